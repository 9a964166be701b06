// A table whose columns sort it, whose rows a text filters and whose columns are picked. What is left of it is told to
// the page by an event "filtered" on the table, with the rows' first cells.
for (const tools of document.querySelectorAll(".tools")) {
  const table = document.getElementById(tools.dataset.table), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const textOf = cell => cell.dataset.value ?? cell.textContent.trim();

  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button?.addEventListener("click", () => {
      const up = head.ariaSort !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.ariaSort = up ? "ascending" : "descending";
      const number = text => text !== "" && !isNaN(text);
      body.append(...[...body.rows].sort((rowA, rowB) => {
        const a = textOf(rowA.cells[column]), b = textOf(rowB.cells[column]);
        if (a === "" || b === "") return (a === "") - (b === "");  // what has no value comes last
        return (up ? 1 : -1) * (number(a) && number(b) ? a - b : a.localeCompare(b));
      }));
    });
  });

  // All words must be in a row; model=vae asks for a cell of that column.
  const filter = tools.querySelector("input[type=search]"), count = tools.querySelector("output");
  const names = heads.map(head => head.textContent.trim().toLowerCase());
  const fits = (row, word) => {
    const [name, value] = word.split("=");
    const column = value === undefined ? -1 : names.indexOf(name);
    return column < 0 ? row.textContent.toLowerCase().includes(word) : textOf(row.cells[column]).toLowerCase() === value;
  };
  const filtered = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean), left = [];
    for (const row of body.rows) {
      row.hidden = !words.every(word => fits(row, word));
      if (!row.hidden) left.push(textOf(row.cells[0]));
    }
    count.textContent = words.length ? `${left.length} of ${body.rows.length}` : "";
    table.dispatchEvent(new CustomEvent("filtered", { detail: left }));
  };
  filter.addEventListener("input", filtered);

  for (const box of tools.querySelectorAll("input[type=checkbox]")) {
    const column = Number(box.value);
    const show = () => { for (const row of table.rows) row.cells[column].hidden = !box.checked; };
    box.addEventListener("change", show);
    show();
  }

  // A page that loads itself again keeps what was chosen.
  const key = `tools of ${location.pathname} ${table.id}`;
  try {
    filter.value = sessionStorage.getItem(key) ?? "";
    filter.addEventListener("input", () => sessionStorage.setItem(key, filter.value));
  } catch { /* a page that came as a file may not be allowed to */ }
  if (filter.value) addEventListener("load", filtered);
}
