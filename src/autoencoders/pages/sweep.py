"""summary.html: what a sweep asked, and what its jobs answer."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autoencoders import untrusted
from autoencoders.config import REPOSITORY, class_name
from autoencoders.files import atomic_write
from autoencoders.pages import charts, data_uri, template, words
from autoencoders.runs import CONFIG, THUMBNAIL, to_paste
from autoencoders.sweeps import (
    Row,
    Series,
    but_for_seeds,
    mean_and_deviation,
    over_code,
    series_of,
    varied,
    varying,
)

REFRESH_S = 15  # while jobs run
SHOWN = ("val/mse", "test/mse", "seconds")  # the metrics that the table begins with
HERE_ALONE = re.compile(r"hydra\.(mode|sweep\.dir)=").match  # no part of a command that is given again
STATUSES = ("finished", "failed", "pruned", "running", "waiting", "unfinished")
MOST_IN_SHEET = 60  # jobs
LARGEST_PICTURE = 2**20  # bytes


class Strip(NamedTuple):
    """The same images through one job: a row of what it reads, and below one of what it makes of them."""

    name: str
    said: str
    uri: str
    shape: str  # width / height of one row


def write(
    folder: Path, rows: Sequence[Row], metric: str, reference: str, columns: Sequence[str], live: bool
) -> None:
    """Writes the page of a sweep.

    Args:
        metric, reference: what is drawn, as for `sweeps.Summary`.
        columns: of the table, in their order.
        live: whether jobs are still running, so that the page loads itself again.
    """
    done = [row for row in rows if metric in row.metrics]
    strips = _strips(folder, rows)
    html = template("sweep").render(
        title=f"Sweep {folder.name}",
        refresh=REFRESH_S if live else None,
        question=question(folder),
        counts=_counts(rows),
        trained=_trained(folder, rows),
        varied=_varied(rows),
        metric=metric,
        best=_best(rows, metric),
        answer=[answer(done, metric, reference)] if done else [],
        pareto=pareto(done, metric),
        coordinates=coordinates(done, metric),
        drawn=[row.name for row in done],
        strips=strips,
        columns=[(column, column in _first(rows, metric, columns)) for column in columns],
        table=[
            (
                row.name,
                (folder / row.name / "evaluation" / "report.html").is_file(),
                [_cell(row, column) for column in columns],
            )
            for row in rows
        ],
        levels=data_uri(png) if (png := _png(folder / "levels.png")) else None,
        command=command(folder),
        number=lambda value: f"{value:.4g}" if isinstance(value, float) else str(value),
    )
    with atomic_write(folder / "summary.html") as temporary:
        temporary.write_text(html, encoding="utf-8")


def question(folder: Path) -> str:
    """What a study of this repository asks, from the first line of its file."""
    path = folder / "multirun.yaml"
    match untrusted.read_yaml(path) if path.is_file() else None:
        case {"hydra": {"runtime": {"choices": {"sweeps": str(name)}}}}:
            studies = {study.stem: study for study in (REPOSITORY / "sweeps").glob("*.yaml")}
            if name in studies:
                comments = re.findall(r"^# (?!@)(.+)$", studies[name].read_text(), re.MULTILINE)
                return comments[0] if comments else ""
    return ""


def command(folder: Path) -> str:
    """What trains all jobs again, in a new folder; nothing where that isn't known."""
    path = folder / "multirun.yaml"
    match untrusted.read_yaml(path) if path.is_file() else None:
        case {"hydra": {"overrides": {"task": list(task), "hydra": list(hydra)}}}:
            words = [*untrusted.read_strings(path, task), *untrusted.read_strings(path, hydra)]
            return to_paste("python", "train.py", "-m", *(w for w in words if not HERE_ALONE(w)))
    return ""


def _counts(rows: Sequence[Row]) -> str:
    by_status = {status: sum(row.status == status for row in rows) for status in STATUSES}
    return ", ".join(f"{count} {status}" for status, count in by_status.items() if count)


def _trained(folder: Path, rows: Sequence[Row]) -> str:
    """On what all jobs were trained and for how many epochs, as far as these are the same."""
    said, config = list[str](), folder / rows[0].name / CONFIG
    if config.is_file() and not any(key.partition(".")[0] == "data" for key in varying(rows)):
        data = untrusted.read_mapping(config).get("data")
        if isinstance(data, dict):
            size = data.get("train_size")
            name = words(class_name(data))
            said.append(f"{size:,} images of {name}" if isinstance(size, int) else name)
    epochs = {row.metrics["epochs"] for row in rows if "epochs" in row.metrics}
    if len(epochs) == 1:
        said.append(f"{(only := epochs.pop()):g} epoch{'s' * (only != 1)}")
    return ", ".join(said)


def _varied(rows: Sequence[Row]) -> str:
    """What the jobs differ in, with the values."""
    said = []
    for key in varying(rows):
        values = list(dict.fromkeys(row.overrides.get(key, "default") for row in rows))
        some = ", ".join(values[:8]) + (f", … ({len(values)} values)" if len(values) > 8 else "")
        said.append(f"{key} ({some})")
    return "; ".join(said)


def _best(rows: Sequence[Row], metric: str) -> tuple[str, str]:
    """The best group of jobs that differ in their seed alone, and which are within chance of it; what all
    come to if there is one group; nothing where that can't be told."""
    keys, groups = but_for_seeds(rows)
    if not keys:
        alike = [row.metrics[metric] for group in groups.values() for row in group if metric in row.metrics]
        said = (
            f"{metric} {mean_and_deviation(alike)} over {len(alike)} runs, which differ in their seed alone."
        )
        return (said, "") if len(alike) > 1 else ("", "")
    named = {
        ", ".join(f"{key}={value}" for key, value in zip(keys, place, strict=True)): group
        for place, group in groups.items()
    }
    of = {
        mark: [name for name, group in named.items() if group[0].chance == mark]
        for mark in ("best", "within chance")
    }
    if not of["best"]:
        return "", ""
    name = of["best"][0]
    values = [row.metrics[metric] for row in named[name] if metric in row.metrics]
    runs = f" over {len(values)} runs" if len(values) > 1 else ""
    said = f"Best is {name}: {metric} {mean_and_deviation(values)}{runs}."
    of_what = "seeds" if len(values) > 1 else "test images"
    if close := of["within chance"]:
        return said, f"Within chance of it, over {of_what}: {'; '.join(close)}."
    others = [name for name, group in named.items() if any(metric in row.metrics for row in group)][1:]
    return said, f"No other is within chance of it, over {of_what}." if others else ""


def answer(rows: Sequence[Row], metric: str, reference: str) -> charts.Chart:
    """The metric over what was swept. Its bars are of one kind: the spread over seeds where there are
    several, else the intervals of jobs that were evaluated, which are of the test error and not of val/mse.

    Args:
        rows: jobs that have the metric.
    """
    series, instead = series_of(rows, metric, reference), ""
    of_images = not series.several_seeds and any("test/mse" in row.intervals for row in rows)
    if of_images and metric == "val/mse" and all("test/mse" in row.metrics for row in rows):
        metric, instead = "test/mse", ", in the place of val/mse"  # as the intervals are of it
        series = series_of(rows, metric, reference)
    lines = series.lines()
    chart = charts.lines(
        {name: (xs, ys) for name, (xs, ys, _) in lines.items()},
        series.x,
        metric,
        f"{metric} {'against' if series.numeric else 'by'} {series.x}{instead}. {_of_chance(series)}",
        markers=True,
    )
    for trace, (name, (xs, ys, spreads)) in zip(chart.traces, lines.items(), strict=True):
        if series.several_seeds:
            ends = [(y - spread, y + spread) for y, spread in zip(ys, spreads, strict=True)]
        else:
            alone = (scores[0] for scores in series.points[name].values())
            ends = [score.interval or (score.value, score.value) for score in alone]
        if len(trace["x"]) == len(xs) and any(low < high for low, high in ends):
            trace["error_y"] = charts.error_bars(ys, ends) | {"thickness": 1.5, "width": 4}
        trace["mode"] = "lines+markers" if series.numeric else "markers"
    numbers = [x for xs, _, _ in lines.values() for x in xs if isinstance(x, float)]
    if series.numeric and min(numbers) > 0 and max(numbers) > 8 * min(numbers):
        chart.layout["xaxis"]["type"] = "log"
    if series.numeric and len(ticks := sorted(set(numbers))) <= 12:
        chart.layout["xaxis"] |= {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    chart.layout["height"] = 420
    return chart


def _of_chance(series: Series) -> str:
    """What the bars are, or why there are none."""
    places = [scores for of_line in series.points.values() for scores in of_line.values()]
    if series.several_seeds:
        some = " Where there is none, there is one seed." if any(len(p) == 1 for p in places) else ""
        return f"Bars are ± one standard deviation over seeds.{some}"
    seeds = "" if series.x == "seed" else ", not what another seed would change"
    if any(scores[0].interval for scores in places):
        some = " Where there is none, it was not evaluated." if not all(s[0].interval for s in places) else ""
        return f"Bars are 95 % intervals over the test images{seeds}.{some}"
    if series.x == "seed":
        return "The distance between the points is chance."
    return "One seed each, so chance can't be estimated; use several (seed=0,1,2)."


def pareto(rows: Sequence[Row], metric: str) -> list[charts.Chart]:
    """The metric against the size of the code; nothing where jobs don't differ in it."""
    if not (points := over_code(rows, metric)):
        return []
    sizes = sorted({x for xs, _ in points.values() for x in xs})
    caption = "What a larger code buys: lower is better, further left is smaller."
    chart = charts.lines(points, "numbers in the code", metric, caption, markers=True)
    for trace in chart.traces:
        trace["mode"], trace["marker"]["size"] = "markers", 9
    chart.layout["xaxis"] |= {"type": "log", "tickvals": sizes, "ticktext": [f"{size:g}" for size in sizes]}
    chart.layout["height"] = 420
    return [chart]


def coordinates(rows: Sequence[Row], metric: str) -> list[charts.Chart]:
    """Parallel coordinates: a line for each job, through its place on an axis for each key that varies and
    for the metric. Nothing where fewer than two keys vary."""
    keys = varying(rows)
    if len(keys) < 2 or len(rows) < 2:
        return []
    axes = {key: charts.axis([row.overrides.get(key, "default") for row in rows]) for key in keys}
    axes[metric] = charts.axis([row.metrics[metric] for row in rows])
    caption = (
        f"A line for each job, from its settings to its {metric}: blue where that is small, orange where "
        "it is large. What the table's filter leaves out is faint."
    )
    return [charts.parallel([row.name for row in rows], axes, caption)]


def _first(rows: Sequence[Row], metric: str, columns: Sequence[str]) -> set[str]:
    """The columns that are shown before others are chosen."""
    known = {name for row in rows for name in row.metrics}
    of_evaluations = {name for name in columns if name in known and "/" not in name}
    return {c for c in columns if c not in known} | {metric, *SHOWN} | of_evaluations - {"epochs", "steps"}


def _cell(row: Row, column: str) -> Any:
    if column == "status":
        return row.error or row.status
    if column == "best":
        return row.chance
    return row.metrics.get(column, row.overrides.get(column, ""))


def _strips(folder: Path, rows: Sequence[Row]) -> list[Strip]:
    """The first so many jobs' pictures of the same test images, where there are any."""
    keys, strips = varying(rows), list[Strip]()
    for row in rows:
        if png := _png(folder / row.name / THUMBNAIL):
            width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
            strips.append(Strip(row.name, varied(row, keys), data_uri(png), f"{2 * width} / {height}"))
    return strips[:MOST_IN_SHEET]


def _png(path: Path) -> bytes | None:
    """A picture of a job's, if it is one and small."""
    if not path.is_file() or path.stat().st_size > LARGEST_PICTURE:
        return None
    png = path.read_bytes()
    return png if png.startswith(b"\x89PNG\r\n\x1a\n") and png[12:16] == b"IHDR" else None
