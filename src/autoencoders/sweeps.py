"""What comes out of a sweep: a table and a plot of all its jobs, made from their folders.

Every sweep makes them by itself; python -m autoencoders.sweeps <sweep folder> makes them again.
"""

import csv
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, ClassVar, NamedTuple

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, ListConfig

from autoencoders import jobs, runs, untrusted
from autoencoders.chance import near_best
from autoencoders.config import check
from autoencoders.digits import Interval, number, plus_minus
from autoencoders.errors import UserError, one_line, one_line_errors
from autoencoders.files import atomic_write
from autoencoders.overrides import OF_A_SWEEP, parse_stored_override, quoted, translate

UNINTERESTING = ("logger", "hydra", "data.root", "evaluate", "resume")  # overrides that answer no question
EVERY_S, SHARE = 10, 50  # a running sweep's page is written at most so often, and in a 50th of the time
SHOWN = ("val/mse", "test/mse", "seconds")  # the metrics of the table in the terminal; the CSV has all


@dataclass
class Row:
    """One job, as its folder tells of it."""

    name: str
    overrides: dict[str, str]
    status: str  # finished, failed, pruned, unfinished, running or waiting
    metrics: dict[str, float]
    error: str = ""
    code_dim: int | None = None
    scores: dict[str, float] = field(default_factory=dict)  # of an evaluation, "<group>/<row>/<metric>"
    intervals: dict[str, Interval] = field(default_factory=dict)  # of metrics, over the test images
    chance: str = ""  # "best", or "within chance" of it


def read_job(folder: Path) -> Row:
    try:
        return _read_job(folder)
    except UserError as error:  # its files are not what a job leaves; the others' may be
        return Row(folder.name, {}, "failed", {}, one_line(str(error)))


def _read_job(folder: Path) -> Row:
    saved, metrics, scores = folder / ".hydra" / "overrides.yaml", dict[str, float](), dict[str, float]()
    overrides = untrusted.read_strings(saved, untrusted.read_yaml(saved)) if saved.is_file() else []
    pairs = (override.lstrip("+~").partition("=") for override in overrides)
    status, error = "unfinished", ""
    if (folder / "error.txt").is_file():
        status, error = "failed", one_line(untrusted.read_text(folder / "error.txt"))
    elif (folder / "pruned.txt").is_file():
        status = "pruned"
    elif (folder / "metrics.json").is_file():
        status = "finished"
    if (folder / "metrics.json").is_file():
        metrics = untrusted.read_metrics(folder / "metrics.json")
    intervals, of_scores = dict[str, Interval](), folder / "evaluation" / "intervals.json"
    if (evaluated := folder / "evaluation" / "metrics.json").is_file():
        known = untrusted.read_intervals(of_scores) if of_scores.is_file() else {}
        for (group, name, metric), value in untrusted.read_scores(evaluated).items():
            scores[f"{group}/{name}/{metric}"] = value
            if group != "reconstruction":
                continue
            # "PCA 16" is the row "PCA" of a job whose code has 16 numbers.
            column = f"test/{metric}" if name == "model" else f"{name.rstrip(' 0123456789')} {metric}"
            if metric == "mse" and name != "model":
                metrics[column] = value
            low, high = known.get((group, name, metric), (math.inf, math.inf))
            if low <= metrics.get(column, math.nan) <= high:  # else it was tested on other images
                intervals[column] = low, high
    overrides_shown = {
        one_line(key): one_line(value) for key, _, value in pairs if not key.startswith(UNINTERESTING)
    }
    code_dim = None
    if (folder / "config.yaml").is_file():
        match untrusted.read_yaml(folder / "config.yaml"):
            case {"model": {"code_dim": str(size)}} if size.isdecimal():
                code_dim = int(size)
    return Row(folder.name, overrides_shown, status, metrics, error, code_dim, scores, intervals)


def read_sweep(folder: Path) -> list[Row]:
    """The jobs of a sweep, in their order.

    Raises:
        UserError: there is no sweep in the folder, or it leads out of it.
    """
    jobs = [path for path in folder.glob("*") if (path / ".hydra").is_dir() or (path / "error.txt").is_file()]
    if not jobs:
        raise UserError(f"no sweep folder {folder}: it holds no jobs")
    untrusted.check_links(folder)
    return [read_job(path) for path in sorted(jobs, key=lambda path: (len(path.name), path.name))]


def varying(rows: Sequence[Row]) -> list[str]:
    """The overrides in which the jobs differ; those of a single job."""
    keys = dict.fromkeys(key for row in rows for key in row.overrides)
    return [key for key in keys if len(rows) == 1 or len({row.overrides.get(key) for row in rows}) > 1]


def varied(row: Row, keys: Iterable[str]) -> str:
    """What a job has of the overrides in which the jobs differ: "model=vae, seed=1"."""
    return ", ".join(f"{key}={row.overrides[key]}" for key in keys if key in row.overrides)


def summarize(folder: Path) -> list[Row]:
    """Writes summary.csv, summary.md, summary.png and summary.html into a sweep's folder, and prints the
    table."""
    rows = read_sweep(folder)
    keys, (metric, reference, _) = varying(rows), settings(folder)
    columns = columns_of(folder)
    for row in rows:
        row.metrics |= chosen(row.scores, columns)
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    mark(folder, rows, metric)
    best = ["best"] if any(row.chance for row in rows) else []
    with atomic_write(folder / "summary.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["job", *keys, "status", *metrics, *best, "error"])
        for row in rows:
            overrides, values = (
                [row.overrides.get(k, "") for k in keys],
                [row.metrics.get(m, "") for m in metrics],
            )
            marks = [row.chance for _ in best]
            writer.writerow([row.name, *overrides, row.status, *values, *marks, row.error])
    shown = [m for m in dict.fromkeys((metric, *SHOWN, reference)) if m in metrics]
    with atomic_write(folder / "summary.md") as temporary:
        temporary.write_text(markdown(rows, [*shown, *(c for c in columns if c in metrics)]))
    cells = [["job", *keys, "status", *shown, *best]]
    for row in rows:
        numbers = [f"{row.metrics[m]:.5g}" if m in row.metrics else "" for m in shown]
        cells.append([one_line(row.name), *(row.overrides.get(k, "") for k in keys), row.status, *numbers])
        cells[-1] += [row.chance for _ in best]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print()
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"\n  table  {folder / 'summary.csv'}, {folder / 'summary.md'}")
    for name in columns if any(row.scores for row in rows) else ():
        if name not in metrics:
            print(f"  no job has {' or '.join(columns[name])} for the column {name}")
    if any(metric in row.metrics for row in rows):
        plot(rows, metric, reference, folder / "summary.png")
        print(f"  plot   {folder / 'summary.png'}")
        plot_pareto(rows, metric, folder / "pareto.png")
    page(folder, rows, metric, reference, columns, live=False)
    print(f"  page   {folder / 'summary.html'}")
    return rows


def settings(folder: Path) -> tuple[str, str, tuple[str, list[float]] | None]:
    """What a sweep's multirun.yaml says is to be made of it: the metric, the reference beside it, and the
    key and values of a table of levels, if there is to be one."""
    path = folder / "multirun.yaml"
    content = untrusted.read_yaml(path) if path.is_file() else None
    metric, reference, levels = "val/mse", "", None
    match content:
        case {
            "hydra": {"callbacks": {"summary": {"metric": str(metric), "reference": str(reference)}}},
            "objective": str(objective),
        }:
            metric = objective if metric == "${objective}" else metric
    match content:
        case {"hydra": {"callbacks": {"summary": {"levels": {"key": str(key), "values": list(values)}}}}}:
            texts = [value for value in values if isinstance(value, str)]
            numbers = [value for text in texts if (value := number(text)) is not None]
            levels = (key, numbers) if numbers else None
    return metric, reference, levels


def columns_of(folder: Path) -> dict[str, list[str]]:
    """The scores of an evaluation that a sweep's multirun.yaml wants in its tables: for each column, which
    ones, "<group>/<row>/<metric>", of which a job has at most the first that it has."""
    path = folder / "multirun.yaml"
    match untrusted.read_yaml(path) if path.is_file() else None:
        case {"hydra": {"callbacks": {"summary": {"columns": dict(columns)}}}}:
            return {
                one_line(name): untrusted.read_strings(path, some if isinstance(some, list) else [some])
                for name, some in columns.items()
            }
    return {}


def check_columns(columns: Any, evaluated: bool) -> None:
    """Raises UserError for columns that are no names with scores, or of jobs that are not evaluated."""
    if not columns:
        return
    several = columns.values() if isinstance(columns, DictConfig) else [""]
    paths = [path for some in several for path in (some if isinstance(some, ListConfig) else [some])]
    if not all(str(path).count("/") >= 2 for path in paths):
        raise UserError(
            f"hydra.callbacks.summary.columns={columns} must be names with scores, such as "
            "{probe: features/model/linear_probe}"
        )
    if not evaluated:
        raise UserError("hydra.callbacks.summary.columns are scores of evaluations: add evaluate=true")


def chosen(scores: Mapping[str, float], columns: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The scores that go into each column, where there are any."""
    found = {name: [scores[path] for path in paths if path in scores] for name, paths in columns.items()}
    return {name: values[0] for name, values in found.items() if values}


def markdown(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """A table of the finished jobs, to be put into a text: those that differ in their seed alone are one
    line, mean ± standard deviation."""
    keys, groups = but_for_seeds(rows)
    best = ["best"] if any(row.chance for row in rows) else []
    lines = [[*keys, "runs", *metrics, *best], ["---"] * (len(keys) + 1 + len(metrics) + len(best))]
    for place, of_group in groups.items():
        values = [[row.metrics[m] for row in of_group if m in row.metrics] for m in metrics]
        marks = [of_group[0].chance for _ in best]
        lines.append([*place, str(len(of_group)), *map(mean_and_deviation, values), *marks])
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def but_for_seeds(rows: Sequence[Row]) -> tuple[list[str], dict[tuple[str, ...], list[Row]]]:
    """The overrides but for the seed in which the finished jobs differ, and these jobs by their values."""
    done = [row for row in rows if row.status == "finished"]
    keys, groups = [key for key in varying(done) if key != "seed"], dict[tuple[str, ...], list[Row]]()
    for row in done:
        groups.setdefault(tuple(row.overrides.get(key, "") for key in keys), []).append(row)
    return keys, groups


def mark(folder: Path, rows: Sequence[Row], metric: str) -> None:
    """Says of each job whether it is the best, or within chance of it."""
    values = [
        {folder / row.name: row.metrics[metric] for row in group}
        for group in but_for_seeds(rows)[1].values()
        if all(metric in row.metrics for row in group)
    ]
    marks = near_best(values, metric)
    for row in rows:
        row.chance = marks.get(folder / row.name, "")


def mean_and_deviation(values: Sequence[float]) -> str:
    """As many digits as their spread leaves a meaning to."""
    if not values:
        return ""
    if len(values) == 1 or (spread := stdev(values)) < 1e-4 * abs(mean(values)):
        return f"{mean(values):.4g}"
    return plus_minus(mean(values), spread)


def page(
    folder: Path, rows: Sequence[Row], metric: str, reference: str, first: Iterable[str], live: bool
) -> None:
    """Writes summary.html, of jobs with their marks; `first` are the metrics that come first in its table,
    and `live` says whether jobs are still running."""
    from autoencoders.pages import sweep

    sweep.write(folder, rows, metric, reference, table_columns(rows, first), live)


def show(folder: Path, live: bool) -> None:
    """Writes summary.html of what is in a sweep's folder now."""
    rows, (metric, reference, _) = read_sweep(folder), settings(folder)
    columns = columns_of(folder)
    for row in rows:
        row.metrics |= chosen(row.scores, columns)
        if live and row.status == "unfinished":
            begun = any(path.name != ".hydra" for path in (folder / row.name).iterdir())
            row.status = "running" if begun else "waiting"
    mark(folder, rows, metric)
    page(folder, rows, metric, reference, columns, live)


def table_columns(rows: Sequence[Row], first: Iterable[str]) -> list[str]:
    """Of the table of a page: what the jobs differ in, how they ended, and their metrics."""
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    best = ["best"] if any(row.chance for row in rows) else []
    return [*varying(rows), "status", *best, *(name for name in first if name in metrics),
            *(name for name in metrics if name not in first)]  # fmt: skip


class Live:
    """Writes a sweep's page again and again while its jobs run, as often as costs them nothing: a page that
    can't be written stops none of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.due = folder, 0.0

    def __call__(self) -> None:
        start = time.monotonic()
        if start < self.due:
            return
        with suppress(OSError, UserError):
            show(self.folder, live=True)
        self.due = time.monotonic() + max(EVERY_S, SHARE * (time.monotonic() - start))


class Score(NamedTuple):
    """What one job reaches, and the interval of that over the test images if it was evaluated."""

    value: float
    interval: Interval | None


class Series(NamedTuple):
    """A metric over what a sweep varies, with all jobs at each place of each line."""

    x: str
    numeric: bool
    points: dict[str, dict[Any, list[Score]]]

    @property
    def several_seeds(self) -> bool:
        return any(len(scores) > 1 for places in self.points.values() for scores in places.values())

    def lines(self) -> dict[str, tuple[list[Any], list[float], list[float]]]:
        """The places of each line, and the means and standard deviations there; 0 of a single job."""
        values = {
            name: {place: [score.value for score in scores] for place, scores in places.items()}
            for name, places in self.points.items()
        }
        return {
            name: (
                list(places),
                [mean(some) for some in places.values()],
                [stdev(some) if len(some) > 1 else 0.0 for some in places.values()],
            )
            for name, places in values.items()
        }


def series_of(done: Sequence[Row], metric: str, reference: str | None) -> Series:
    """The metric over the swept keys: one of them to the right, a line for each value of the others."""
    keys = [key for key in varying(done) if key != "seed"] or ["seed"]
    known = {key: [number(row.overrides.get(key)) for row in done] for key in keys if key != "seed"}
    numeric = [key for key, values in known.items() if None not in values]  # a seed is a name, no quantity
    x = max(numeric or keys, key=lambda key: len({row.overrides.get(key) for row in done}))
    points: dict[str, dict[Any, list[Score]]] = {}
    for row in done:
        place = row.overrides.get(x, "default")
        others = ", ".join(f"{k}={row.overrides.get(k, 'default')}" for k in keys if k != x)
        for name, column in ((others or metric, metric), (reference, reference)):
            if name and column and column in row.metrics:
                at = points.setdefault(name, {}).setdefault(number(place) if x in numeric else place, [])
                at.append(Score(row.metrics[column], row.intervals.get(column)))
    if x in numeric:
        points = {name: dict(sorted(values.items())) for name, values in points.items()}
    return Series(x, x in numeric, points)


def plot(rows: Sequence[Row], metric: str, reference: str | None, path: Path) -> None:
    """Draws the series; jobs that differ in their seed alone are one point, mean ± standard deviation."""
    from autoencoders import figures  # matplotlib and torch: only when there is something to draw

    found = series_of([row for row in rows if metric in row.metrics], metric, reference)
    figures.save(figures.curves(found.lines(), x=found.x, y=metric, title=path.parent.name), path)


def plot_pareto(rows: Sequence[Row], metric: str, path: Path) -> None:
    """Draws the metric against the size of the code, where jobs differ in it."""
    from autoencoders import figures

    if points := over_code(rows, metric):
        figures.save(figures.pareto(points, x="numbers in the code", y=metric), path)


def over_code(rows: Sequence[Row], metric: str) -> dict[str, tuple[list[float], list[float]]]:
    """The sizes of the jobs' codes and their metric, by model; nothing where all are of one size."""
    points: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row.code_dim and metric in row.metrics:
            sizes, values = points.setdefault(row.overrides.get("model", "jobs"), ([], []))
            sizes.append(float(row.code_dim))
            values.append(row.metrics[metric])
    return points if len({size for sizes, _ in points.values() for size in sizes}) > 1 else {}


class Summary(Callback):
    """Summarizes a sweep at its end, and makes it fail if a job did.

    `settings` reads the arguments from the sweep's folder, so that it can be done again without the sweep.

    Args:
        metric: what is plotted, a key of the jobs' metrics.json.
        reference: another one, drawn beside it, such as "PCA mse" of jobs that are evaluated; or None.
        levels: a key that the sweep varies, and values of it to test each model at; or None.
        columns: further columns of its tables, of jobs with evaluate=true: the name of each, and the score of
            an evaluation, "<group>/<row>/<metric>", or several of which the first that there is counts.
    """

    started: ClassVar[Path | None] = None  # the folder of the sweep that this process runs
    made: ClassVar[Sequence[Path]] = ()  # the folders that there were none of before it

    def __init__(
        self,
        metric: str,
        reference: str | None,
        levels: Mapping[str, Any] | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        self.metric, self.reference, self.levels, self.columns = metric, reference, levels, columns

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            with one_line_errors():
                check(config)  # before Hydra writes it
                check_columns(config.hydra.callbacks.summary.get("columns"), config.get("evaluate"))
        except UserError as error:  # of any Exception Hydra only warns
            raise SystemExit(1) from error
        Summary.started = Path(str(config.hydra.sweep.dir))
        Summary.made = runs.missing(Summary.started)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        finish(Path(str(config.hydra.sweep.dir)), trust=True)


def finish(folder: Path, trust: bool) -> None:
    """Makes what a sweep leaves beside its jobs.

    Raises:
        SystemExit: a job failed; it's no Exception, of which Hydra would only warn.
    """
    rows = summarize(folder)
    failed = [row for row in rows if row.status in ("failed", "unfinished")]
    for row in failed:
        print(one_line(f"error: job {row.name} failed: {row.error or 'it did not end'}"), file=sys.stderr)
    metric, _, levels = settings(folder)
    finished = [row for row in rows if row.status == "finished"]
    if levels and finished and all(levels[0] in row.overrides for row in finished):
        write_levels(folder, finished, *levels, trust)
        show(folder, live=False)
    if failed:
        again = runs.resume_command(folder)
        print(
            f"error: {len(failed)} of {len(rows)} jobs failed; run them again with: {again}", file=sys.stderr
        )
        raise SystemExit(1)
    _say_next(folder, finished, metric)


def stopped(folder: Path) -> None:
    """Makes what a sweep leaves that did not come to its end, and says how to resume it."""
    summarize(folder)
    print(f"\nstopped; resume with: {runs.resume_command(runs.near(folder))}", flush=True)


def _say_next(folder: Path, rows: Sequence[Row], metric: str) -> None:
    """What one may type next: an evaluation of the best job or, where it has one, its comparison with the
    next best of other settings, or else of another seed."""
    known = sorted((row for row in rows if metric in row.metrics), key=lambda row: row.metrics[metric])
    if not known:
        return
    best, *others = known
    alike = next(group for group in but_for_seeds(known)[1].values() if best in group)
    others.sort(key=lambda row: row in alike)
    if not runs.is_evaluated(folder / best.name):
        command = runs.command_for(folder / best.name, "evaluate.py", "run")
        about = "evaluates the best job"
    elif others:
        both = (folder / best.name, folder / others[0].name)
        command = runs.to_paste("python", "-m", "autoencoders.compare", *both, *runs.trusting(folder))
        about = "compares the best job, as trained, with the best of other settings on the same test images"
    else:
        return
    print(f"\n  next   {command}\n         ({about})")


def write_levels(folder: Path, rows: Sequence[Row], key: str, values: Sequence[float], trust: bool) -> None:
    """Scores each of a sweep's models at several values of a key, such as the level of the noise, and draws
    the table of what they were trained at against what they are tested at.

    Args:
        rows: the finished jobs.
        key: the key, which the sweep varies.
        values: what to test at.
    """
    from autoencoders import figures
    from autoencoders.evaluation import test_errors

    trained = {row.overrides[key]: folder / row.name for row in rows}
    arguments = ["trust=true"] if trust else []
    errors = [
        [
            test_errors(*runs.compose_evaluated([f"run={run}", f"{key}={value}", *arguments]))[0]
            for value in values
        ]
        for run in trained.values()
    ]
    with atomic_write(folder / "levels.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f"trained at {key}", *(f"tested at {value:g}" for value in values)])
        writer.writerows([level, *row] for level, row in zip(trained, errors, strict=True))
    figure = figures.heatmap(
        errors, list(trained), [f"{value:g}" for value in values],
        x=f"{key} at test", y=f"{key} in training", title="test MSE",
    )  # fmt: skip
    figures.save(figure, folder / "levels.png")
    print(f"  levels {folder / 'levels.png'}, {folder / 'levels.csv'}")


@contextmanager
def removed_if_empty() -> Iterator[None]:
    """The folder of a sweep doesn't outlive one that ended before its first job had begun."""
    try:
        yield
    except BaseException:
        folder = Summary.started
        if folder and folder.is_dir() and not _begun(folder):
            runs.remove(Summary.made)
        raise


def _begun(folder: Path) -> bool:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return any(path.name != "multirun.yaml" and ".hydra" not in path.parts for path in files)


def is_sweep(folder: Path) -> bool:
    return (folder / "multirun.yaml").is_file()


def resume(command: runs.Command) -> None:
    """Runs the jobs of a sweep that are not finished, and makes what it leaves."""
    untrusted.check_links(command.folder)
    batch, max_parallel = jobs.of_sweep(command)
    try:
        jobs.run(batch, max_parallel, meanwhile=Live(command.folder))
    except BaseException:
        stopped(command.folder)
        raise
    finish(command.folder, command.trust)


def search_again(command: runs.Command, arguments: Sequence[str]) -> list[str] | None:
    """The command line that resumes a sweep whose jobs are chosen as it goes, by Optuna; None for one whose
    jobs were all there at its beginning.

    Raises:
        UserError: its file says more than such a sweep's may.
    """
    path = command.folder / "multirun.yaml"
    untrusted.check_links(command.folder)
    content = untrusted.read_yaml(path)
    hydra = content.get("hydra") if isinstance(content, dict) else None
    overrides = hydra.get("overrides") if isinstance(hydra, dict) else None
    if not isinstance(hydra, dict) or not isinstance(overrides, dict):
        raise UserError(f"{path} does not hold a sweep")
    sweeper = hydra.get("sweeper")
    of_search = isinstance(sweeper, dict) and str(sweeper.get("_target_", "")).endswith("TPESweeper")
    if not of_search:
        return None
    of_jobs, of_hydra = (untrusted.read_strings(path, overrides.get(of)) for of in ("task", "hydra"))
    of_jobs = [override for override in map(translate, of_jobs) if not override.startswith("trust=")]
    of_hydra, keys = list(map(translate, of_hydra)), untrusted.top_level_keys()
    for override in [] if command.trust else of_jobs:
        parse_stored_override(override, path, keys)
    for override in [] if command.trust else of_hydra:
        parse_stored_override(override, path, keys, OF_A_SWEEP)
    rest = [argument for argument in arguments if not argument.startswith("resume=")]
    kept = [override for override in of_hydra if not override.startswith("hydra.sweep.dir=")]
    return ["-m", *of_jobs, *kept, f"hydra.sweep.dir={quoted(command.folder.resolve())}", *rest]


if __name__ == "__main__":
    with one_line_errors():
        if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
            raise UserError(
                "name one sweep folder: python -m autoencoders.sweeps multirun/2026-01-31_12-00-00"
            )
        summarize(Path(sys.argv[1]))
