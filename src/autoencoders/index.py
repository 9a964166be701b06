"""Lists all runs and sweeps on one page: python -m autoencoders.index [folder ...]

Searches the folders, by default runs/ and multirun/, and writes index.html into the first.
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from autoencoders import runs, sweeps, untrusted
from autoencoders.config import class_name
from autoencoders.errors import UserError, one_line, one_line_errors
from autoencoders.files import atomic_write

DEEPEST = 5  # levels below a folder at which runs are looked for
HEADLINES = ("test/mse", "val/mse")  # the first of these that a run has
RUNNING_S = 600  # since a run without scores last wrote a metric, while which it counts as running
PICTURES = (runs.THUMBNAIL, "figures/reconstructions.png")  # the first of these that a run has


class Entry(NamedTuple):
    """A run or a sweep, as the page shows it. Its links are relative to the page."""

    name: str
    link: str
    picture: str  # nothing where there is none
    model: str
    code: int | None  # its numbers, where that is known
    data: str
    corruption: str  # nothing where there is none
    metric: str
    value: float | None
    date: str
    state: str


def write(folders: Sequence[Path]) -> tuple[Path, int]:
    """Writes the page into the first of the folders; its path, and how many runs and sweeps it lists.

    Raises:
        UserError: a folder is not there, or there is nothing in them.
    """
    from autoencoders.pages import template

    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}")
    page = folders[0] / "index.html"
    entries = [entry_of(path, page.parent) for folder in folders for path in found(folder)]
    if not entries:
        raise UserError(
            f"there are no runs in {', '.join(map(str, folders))}: train one with python train.py"
        )
    entries.sort(key=lambda entry: entry.date, reverse=True)
    html = template("index").render(
        title="Runs", entries=entries, made=datetime.now().strftime("%Y-%m-%d %H:%M")
    )
    with atomic_write(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return page, len(entries)


def found(folder: Path, depth: int = 0) -> Iterator[Path]:
    """The folders of runs and of sweeps, not following links; a sweep's jobs are its own."""
    if sweeps.is_sweep(folder) or (folder / runs.CONFIG).is_file():
        yield folder
    elif depth < DEEPEST:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                yield from found(path, depth + 1)


def entry_of(folder: Path, start: Path) -> Entry:
    """What a folder that anyone may have made tells of itself; where it is not what a run leaves, that."""
    relative = Path(os.path.relpath(folder, start))
    try:
        untrusted.check_links(folder)
        return (_sweep if sweeps.is_sweep(folder) else _run)(folder, relative)
    except (UserError, OSError, RecursionError) as error:
        return Entry(
            relative.as_posix(), "", "", "", None, "", "", "", None, "", f"unreadable: {one_line(str(error))}"
        )


def _run(folder: Path, relative: Path) -> Entry:
    config = untrusted.read_mapping(folder / runs.CONFIG)
    scores, state = folder / "metrics.json", "finished"
    metrics = untrusted.read_metrics(scores) if scores.is_file() else {}
    if not metrics:
        state = "failed" if (folder / "error.txt").is_file() else _whether_running(folder)
    metric = next((name for name in HEADLINES if name in metrics), "")
    report = "evaluation/report.html" if (folder / "evaluation" / "report.html").is_file() else ""
    return Entry(
        name=relative.as_posix(),
        link=_url(relative / report),
        picture=next((_url(relative / name) for name in PICTURES if (folder / name).is_file()), ""),
        model=_class(config.get("model")),
        code=_code(config.get("model")),
        data=_class(config.get("data")),
        corruption=corruption if (corruption := _class(config.get("corruption"))) != "Identity" else "",
        metric=metric,
        value=float(metrics[metric]) if metric else None,
        date=_date(folder),
        state=state,
    )


def _sweep(folder: Path, relative: Path) -> Entry:
    rows = sweeps.read_sweep(folder)
    metric = sweeps.settings(folder)[0]
    done = [row for row in rows if metric in row.metrics]
    best = min(done, key=lambda row: row.metrics[metric], default=None)
    ended = sum(row.status in ("finished", "pruned") for row in rows)
    of_best = entry_of(folder / best.name, folder) if best else None
    shown = HEADLINES[0] if best and metric == HEADLINES[1] and HEADLINES[0] in best.metrics else metric
    page = "summary.html" if (folder / "summary.html").is_file() else ""
    return Entry(
        name=relative.as_posix(),
        link=_url(relative / page),
        picture=f"{_url(relative)}/{of_best.picture}" if of_best and of_best.picture else "",
        model=f"sweep over {', '.join(sweeps.varying(rows)) or 'nothing'}",
        code=None,
        data=of_best.data if of_best else "",
        corruption=of_best.corruption if of_best else "",
        metric=f"{shown} of the best job" if best else "",
        value=best.metrics[shown] if best else None,  # chosen by its metric, and shown as a run is
        date=_date(folder),
        state=f"{ended} of {len(rows)} jobs finished",
    )


def _whether_running(folder: Path) -> str:
    path = folder / "metrics.csv"
    recent = path.is_file() and time.time() - path.stat().st_mtime < RUNNING_S
    return "running" if recent else "unfinished"


def _date(folder: Path) -> str:
    """When a run or a sweep began, as its folder's name or its files tell."""
    if match := re.match(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)", folder.name):
        return f"{match[1]} {match[2]}:{match[3]}"
    path = folder / (runs.CONFIG if (folder / runs.CONFIG).is_file() else "multirun.yaml")
    return datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")


def _class(node: object) -> str:
    return one_line(class_name(node)) if isinstance(node, dict) else ""


def _code(node: object) -> int | None:
    size = node.get("code_dim") if isinstance(node, dict) else None
    return size if isinstance(size, int) else None


def _url(path: Path) -> str:
    return quote(path.as_posix())


def main(arguments: Sequence[str]) -> None:
    if {"--help", "-h"} & set(arguments):
        print(str(__doc__).strip())
        return
    if options := [word for word in arguments if word.startswith("-")]:
        raise UserError(f"no option {options[0]}: name folders, such as python -m autoencoders.index runs")
    default = [path for path in (Path("runs"), Path("multirun")) if path.is_dir()] or [Path("runs")]
    page, count = write([Path(word) for word in arguments] or default)
    print(f"  index  {page}  (runs and sweeps: {count})")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
