// Draws every <div class="chart"> with plotly, from the data in the script beside it, in the page's colours.
const charts = [...document.querySelectorAll(".chart")];
const dark = matchMedia("(prefers-color-scheme: dark)"), coarse = matchMedia("(pointer: coarse)");

function themed(layout, printed) {
  const style = getComputedStyle(document.body);
  const ink = printed ? "#111" : style.color;
  const line = printed ? "#ccc" : style.getPropertyValue(dark.matches ? "--grid-dark" : "--grid-light");
  const ground = printed ? "#fff" : style.backgroundColor;  // under a text that lines cross
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line };
  return {
    ...layout,
    font: { color: ink, family: style.fontFamily, size: 13 },
    paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    margin: { l: 55, r: 15, t: layout.showlegend ? 30 : 15, b: 45 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { font: { family: style.fontFamily } },
    modebar: { bgcolor: "transparent", color: line, activecolor: ink },
    dragmode: coarse.matches ? false : "zoom",  // a finger scrolls the page
    annotations: (layout.annotations ?? []).map(text => ({ bgcolor: ground, borderpad: 1, ...text })),
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
}

function draw(chart, printed = false) {
  const figure = JSON.parse(chart.nextElementSibling.textContent);
  for (const [k, trace] of figure.data.entries()) {
    if (chart.opacities) trace.opacity = chart.opacities[k];
    if (trace.error_x) trace.error_x.color = printed ? "#111" : getComputedStyle(document.body).color;
  }
  const options = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  return Plotly.react(chart, figure.data, themed(figure.layout, printed), options);
}
window.drawChart = draw;  // again, once a page's own script has changed its opacities

const waiting = new IntersectionObserver(entries => {  // what is out of sight can wait
  for (const entry of entries) if (entry.isIntersecting) { waiting.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "600px" });
charts.forEach(chart => waiting.observe(chart));
dark.addEventListener("change", () => charts.filter(chart => chart.data).forEach(chart => draw(chart)));
addEventListener("beforeprint", () => charts.forEach(chart => draw(chart, true)));
addEventListener("afterprint", () => charts.forEach(chart => draw(chart)));

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const text = button.previousElementSibling;
    getSelection().selectAllChildren(text);
    try { await navigator.clipboard.writeText(text.textContent); } catch { document.execCommand("copy"); }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  });
}
