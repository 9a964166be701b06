"""report.html: what was trained and how good it is, in one file that needs nothing else.

Its sections are made of blocks: rows and sheets of images, charts and tables.
"""

import csv
import inspect
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from autoencoders import figures, pages, runs, untrusted
from autoencoders.config import class_name, shareable
from autoencoders.digits import number
from autoencoders.evaluation import intervals
from autoencoders.evaluation.explorer import LARGEST, explorer
from autoencoders.evaluation.headline import COPIED, limits, numbers
from autoencoders.evaluation.subject import Scores, Subject, averaged
from autoencoders.figures import Counts, Picture, Rows, Sheet
from autoencoders.files import atomic_write, replace_between
from autoencoders.metrics import metric_names
from autoencoders.models import BaseModel
from autoencoders.networks import parameter_count
from autoencoders.pages import charts
from autoencoders.palette import COLOURS
from autoencoders.progress import duration

LARGEST_PAGE = 10_000_000  # letters
GRID = Path("evaluation", "grid.csv")  # in a run folder
ROBUSTNESS, END = "<!-- robustness -->", "<!-- end of robustness -->"
BINS = 60
MOST_CURVES, MOST_DIRECTIONS = 12, 64
OF_THE_CODE = ("features", "clustering", "latent space", "codebook", "likelihood", "contraction")
OF_GENERATION = ("generation", "classes")


class Images(NamedTuple):
    """A block: pictures by what stands beside them, each with its alternative text."""

    caption: str
    rows: list[tuple[str, str, str]]  # title, data URI, alternative text
    kind: str = "rows"  # or "sheet"


class Table(NamedTuple):
    """A block: a group's scores."""

    title: str
    explained: str
    columns: list[str]
    scores: Scores


class Cells(NamedTuple):
    """A block: counts, each on a ground as dark as its share of its line."""

    caption: str
    title: str
    across: Sequence[str]
    lines: list[tuple[str, list[tuple[int, float]]]]  # name, and count and share of each cell


class Section(NamedTuple):
    """A heading of the page, and what is below it."""

    title: str
    blocks: list[tuple[str, Any]]  # kind and block
    said: str = ""


def write(
    run: Path,
    scores: Mapping[str, Scores],
    pictures: Mapping[str, Picture],
    subject: Subject,
    groups: Mapping[str, Callable[..., Any]],
    cfg: DictConfig,
    left_out: str = "",
    overrides: Sequence[str] = (),
) -> None:
    """Writes `run/evaluation/report.html` from the scores, the pictures, by name, the explorer of a model's
    code, a sentence on what is left out, and what was said to evaluate.py beside the run."""
    environment, metrics = _read(run / "environment.json"), _read(run / "metrics.json")
    own = run / "config.yaml"
    trained: Mapping[Any, Any] = untrusted.read_mapping(own) if own.is_file() else cfg  # cfg: as evaluated
    facts = _facts(cfg, trained, environment, metrics, subject.model.code_dim)
    tables = {
        name: Table(name, _explained(groups.get(name)), metric_names(of_group), of_group)
        for name, of_group in scores.items()
    }
    reconstructions, command = pictures.get("reconstructions"), facts.pop("command", "")

    curves = [("chart", chart) for chart in learning(run / "metrics.csv", cfg.objective)]

    def page(explored: dict[str, Any] | None) -> str:
        left, of_code = dict(tables), [("explorer", explored)] if explored else []
        sections = [
            Section("Learning", curves, "" if curves else "Too short for a curve: it was validated once."),
            Section("Reconstruction", [*reconstruction(scores, pictures), *_tables(left, "reconstruction")]),
            Section("The code", [*of_code, *code(scores, subject, pictures), *_tables(left, *OF_THE_CODE)]),
            Section("Generation", [*_samples(pictures), *_tables(left, *OF_GENERATION)]),
            Section("Further scores", _tables(left, *left)),
        ]
        html: str = pages.template("report").render(
            title=pages.words(f"{_class(cfg.model)} on {_class(cfg.data)}"),
            sentence=sentence(cfg, trained, metrics, subject),
            numbers=numbers(scores, len(subject.data.test)),
            first=strips(reconstructions, _FIRST) if isinstance(reconstructions, Rows) else None,
            limits=list(limits(scores, left_out)),
            sections=[section for section in sections if section.blocks or section.said],
            robustness=f"{ROBUSTNESS}\n{robustness(run)}\n{END}",
            explorer=explored is not None,
            intervals=intervals.EXPLAINED,
            command=command,
            again=runs.to_paste("python", "train.py", f"rerun={run.absolute()}"),
            evaluate=_command(run, *overrides),
            facts={**facts, "folder": run.absolute()},
            config=OmegaConf.to_yaml(OmegaConf.create(shareable(cfg))),
            number=intervals.text,
        )
        return html

    html = page(explorer(subject) if subject.model.has_code else None)
    if len(html) > LARGEST_PAGE and subject.model.has_code:
        html = page(explorer(subject, refused="the page would be too large"))
    with atomic_write(run / "evaluation" / "report.html") as temporary:
        temporary.write_text(html, encoding="utf-8")


# ---- sections ----------------------------------------------------------------------------------------------

_FIRST = "The first test images and the model's output."


def sentence(
    cfg: DictConfig, trained: Mapping[Any, Any], metrics: Mapping[str, Any], subject: Subject
) -> str:
    """What was trained, on what and for how long; and on what it was tested, where that is something else.

    Args:
        cfg: what it was evaluated with.
        trained: what it was trained with.
    """
    data, model = subject.data, subject.model
    pixels = f"the {math.prod(model.input_shape):,} values of an image"
    symbols = model.code_bits < 32 * model.code_dim
    size = f"{model.code_bits:,.0f} bits" if symbols else f"{model.code_dim:,}"
    does = f"turns {pixels} into a code of {size}" if model.has_code else f"corrects {pixels}"
    was, now = (_described(config.get("corruption")) for config in (trained, cfg))
    took = _trained(metrics)
    task = f"to undo {was}, " if was else "to colour gray images, " if _colours(model) else ""
    begun = " It began with the weights of another run." if cfg.get("init") else ""
    images, others = pages.words(class_name(cfg.data)), "others"
    if (own := class_name(trained.get("data") or {})) != class_name(cfg.data):
        trained_on, others = pages.words(own), f"of {images}"
    else:
        trained_on = f"{len(data.train):,} images of {images}"
    under = "" if was == now else f" under {now}" if now else " without corruption"
    return (
        f"{pages.words(class_name(cfg.model))} ({parameter_count(model):,} parameters) {does}. "
        f"It was trained {task}on {trained_on}{took and f' for {took}'}, "
        f"and tested on {len(data.test):,} {others}{under}.{begun}"
    )


def _trained(metrics: Mapping[str, Any]) -> str:
    """For how long; nothing where that is not known."""
    if not (epochs := metrics.get("epochs")):
        return ""
    return f"{epochs:g} epoch{'s' * (epochs != 1)} ({duration(metrics.get('seconds', 0))})"


def _colours(model: BaseModel) -> bool:
    return (model.input_shape[0], model.target_shape[0]) == (1, 3)


def learning(path: Path, objective: str) -> Iterator[charts.Chart]:
    """A chart of each quantity that metrics.csv holds over the steps, training and validation together; the
    error first. The best checkpoint is that of the least `objective`."""
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for row in csv.DictReader(untrusted.read_text(path).splitlines()) if path.is_file() else ():
        step = number(row.get("step"))
        for column, text in row.items():
            stage, _, name = (column or "").partition("/")
            value = number(text)
            if stage in _STAGES and name not in ("", "lr") and step is not None and value is not None:
                xs, ys = curves.setdefault(name, {}).setdefault(_STAGES[stage], ([], []))
                xs.append(step)
                ys.append(value)
    for name in sorted(curves, key=lambda name: (name != "mse", name != "loss"))[:MOST_CURVES]:
        lines = curves[name]
        if all(len(xs) < 2 for xs, _ in lines.values()):
            continue
        title = _LOGGED.get(name, (name, ""))[0]
        title += f" ({next(iter(lines))})" if len(lines) == 1 else ""
        yield charts.lines(lines, "step", title, _of_curve(name, lines, objective), log_y=name == "mse")


_STAGES = {"train": "training", "val": "validation"}
_LOGGED = {  # what it is called, and what it is
    "mse": ("mean squared error", ""),
    "loss": (
        "loss",
        "What training minimises, in nats, with a constant part. Validation above training: overfitting.",
    ),
    "nll": ("-log p(x|h)", "The loss's reconstruction term, in nats."),
    "kl": ("KL divergence", "Of the code's distribution from the prior, in nats: what the code says of x."),
    "clustering": ("clustering", "The loss's other term: how far the clusters are from clear ones, in nats."),
    "unsure": (
        "unsure",
        "1 - the mean certainty that an image is in its cluster; the least chooses the weights.",
    ),
}


def _of_curve(name: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], objective: str) -> str:
    if name != "mse":
        return _LOGGED.get(name, ("", "A part of the loss, or a quantity that the model watches."))[1]
    steps, errors = lines.get("validation", ([], []))
    if not errors:
        return "The error of training images."
    best = int(np.argmin(errors))
    if best == len(errors) - 1:
        return "The validation error was still falling at the end: longer training may help."
    kept = "those weights were kept" if objective == "val/mse" else f"kept are those of the least {objective}"
    return f"The validation error was lowest at step {steps[best]:,.0f}; {kept}."


def reconstruction(
    scores: Mapping[str, Scores], pictures: Mapping[str, Picture]
) -> Iterator[tuple[str, charts.Chart | Images]]:
    """The error against its references, over images, and the best, the median and the worst images."""
    rows = {row: m["mse"] for row, m in scores.get("reconstruction", {}).items() if "mse" in m}
    rows = {row: v for row, v in rows.items() if isinstance(v, float) and (row == "model" or v > COPIED)}
    if len(rows) > 1:
        both = {row: (float(value), getattr(value, "interval", None)) for row, value in rows.items()}
        caption = "The model's mean squared error beside simple references; smaller is better."
        yield "chart", charts.intervals(both, "mean squared error", caption, {"model": COLOURS[0]})
    if isinstance(error := rows.get("model"), intervals.Mean) and len(error.values) > 1:
        yield "chart", histogram(error.values)
    if isinstance(shown := pictures.get("best_and_worst"), Rows):
        for name, caption in _EXTREMES.items():
            rows_of = {t.removeprefix(name): i for t, i in shown.images.items() if t.startswith(name)}
            yield "images", strips(Rows(rows_of), caption)


_EXTREMES = {
    "best: ": "The test images with the smallest error.",
    "median: ": "The test images with the median error: what to expect.",
    "worst: ": "The test images with the largest error: where it fails.",
}


def histogram(errors: NDArray[np.float32]) -> charts.Chart:
    """How many test images have which error."""
    low, high = float(errors.min()), float(np.quantile(errors, 0.999))
    bins = min(BINS, max(5, len(errors) // 5))
    counts, edges = np.histogram(errors, bins, (low, max(high, low + 1e-9)))
    beyond = int((errors > high).sum())
    caption = "Test images by their error. A long tail means that the model fails on some."
    if beyond:
        caption += f" Not shown: {beyond:,} beyond, up to {float(errors.max()):.3g}."
    middles = (edges[1:] + edges[:-1]) / 2
    return charts.bars(
        middles.tolist(), counts.tolist(), "mse of an image", "images", caption, float(np.median(errors))
    )


def code(
    scores: Mapping[str, Scores], subject: Subject, pictures: Mapping[str, Picture]
) -> Iterator[tuple[str, Any]]:
    """How many directions the codes use, what they are good for, and what lies along and between them."""
    if not subject.model.has_code:
        return
    variances = subject.test_directions.deviations**2
    share = (variances / max(variances.sum(), 1e-30))[:MOST_DIRECTIONS]
    places = [i + 1.0 for i in range(len(share))]
    caption = "Each principal direction's share of the codes' variance; if flat, all are used."
    if len(share) < len(variances):
        caption += f" The first {len(share)} of {len(variances):,}, with {100 * share.sum():.0f} % in all."
    yield "chart", charts.bars(places, share.tolist(), "direction", "share of the variance", caption)
    probes = dict[str, tuple[list[str], list[float]]]()
    for row, metrics in scores.get("features", {}).items():
        known = {f"{n} a class": metrics[f"linear_probe_{n}_a_class"] for n in (1, 10, 100)
                 if f"linear_probe_{n}_a_class" in metrics}  # fmt: skip
        if "linear_probe" in metrics and known:
            known["all"] = metrics["linear_probe"]
            probes[row] = (list(known), [float(value) for value in known.values()])
    if probes:
        caption = (
            "Test accuracy of a linear probe against the number of labels that it is trained on. Where it is "
            "above pixels, the code saves labels."
        )
        yield "chart", charts.lines(probes, "labels", "accuracy", caption, markers=True)
    for name, caption in _CAPTIONS.items():
        if isinstance(shown := pictures.get(name), Rows):
            yield "images", strips(shown, caption)
    if isinstance(confused := pictures.get("clusters"), Counts):
        yield "cells", cells(confused)


_CAPTIONS = {
    "traversals": (
        "The mean code, moved by up to 3 standard deviations along each of the directions in which the codes "
        "vary most: each row shows what its direction controls."
    ),
    "interpolations": (
        "Decoded along the way from one test image's code to another's, on a straight line and on an arc: "
        "in a good code every step is a plausible image."
    ),
}


def cells(counts: Counts) -> Cells:
    """Of clusters and classes."""
    shares = counts.counts / np.maximum(counts.counts.sum(1, keepdims=True), 1)
    lines = [
        (f"mostly {name}", list(zip(line.tolist(), of_line.tolist(), strict=True)))
        for name, line, of_line in zip(counts.down, counts.counts, shares, strict=True)
    ]
    caption = (
        "Test images of each class (columns) in each cluster (rows, by their most frequent class). "
        "Classes that share a row look alike to the code; a class with several rows is split."
    )
    return Cells(caption, counts.title, counts.across, lines)


def _samples(pictures: Mapping[str, Picture]) -> list[tuple[str, Images]]:
    sheets = [p for name, p in pictures.items() if name.startswith("samples") and isinstance(p, Sheet)]
    drawn = [sheet.title.removeprefix("samples: ") for sheet in sheets]
    said = [f"Decoded from codes drawn from {_DRAWN_FROM.get(name, f'the {name}')}." for name in drawn]
    return [("images", _sheet(*both)) for both in zip(sheets, said, strict=True)]


_DRAWN_FROM = {
    "Gaussian of the codes": "a Gaussian fitted to the codes",
    "mixture of Gaussians": "a mixture of Gaussians fitted to the codes",
    "uniform codes": "all symbols alike",
    "learnt prior": "a learnt prior of the symbols",
}


def robustness(run: Path) -> str:
    """The page's part with the error over kinds and levels of corruption, or how to measure it."""
    outdated = runs.is_outdated(run, run / GRID)
    html: str = pages.template("robustness").render(
        chart=None if outdated else _of_grid(run / GRID),
        outdated=outdated,
        command=_command(run, "grid=true"),
    )
    return html


def update_robustness(run: Path) -> None:
    """Puts a new grid into the report, if there is one."""
    if (page := run / "evaluation" / "report.html").is_file():
        replace_between(page, ROBUSTNESS, END, robustness(run))


def _of_grid(path: Path) -> charts.Chart | None:
    of_model, of_corrupted = (dict[str, tuple[list[str], list[float]]]() for _ in range(2))
    rows = list(csv.DictReader(untrusted.read_text(path).splitlines())) if path.is_file() else []
    levels = dict[str, list[str]]()
    for row in rows:
        levels.setdefault(str(row.get("corruption")), []).append(str(row.get("value")))
    for row in rows:
        known = levels[kind := str(row.get("corruption"))]
        name = f"{kind} ({row.get('level')} {known[0]} to {known[-1]})"
        for curves, column in ((of_model, "model mse"), (of_corrupted, "corrupted image mse")):
            if (value := number(row.get(column))) is not None:
                places, values = curves.setdefault(name, ([], []))
                places.append(str(len(places) + 1))
                values.append(value)
    if not of_model:
        return None
    caption = (
        "The error under six kinds of corruption, from weak (1) to strong (5), whatever it was trained on. "
        "Dashed, in the same colour: that of the corrupted image itself. A model's line above its dashed one "
        "makes the image worse."
    )
    chart = charts.lines(of_model, "level", "mean squared error", caption, markers=True)
    for trace in charts.lines(of_corrupted, "", "", "").traces:
        line = {**trace["line"], "dash": "dash", "width": 1}
        name = f"{trace['name']}, corrupted image"
        chart.traces.append({**trace, "mode": "lines", "line": line, "name": name, "showlegend": False})
    chart.layout["xaxis"]["type"], chart.layout["yaxis"]["rangemode"] = "category", "tozero"
    return chart


def _command(run: Path, *words: str) -> str:
    return runs.to_paste("python", "evaluate.py", f"run={run.absolute()}", *words)


def _tables(tables: dict[str, Table], *names: str) -> list[tuple[str, Table]]:
    """The tables of these names, which are taken out."""
    return [("table", tables.pop(name)) for name in names if name in tables]


# ---- blocks ------------------------------------------------------------------------------------------------


def strips(rows: Rows, caption: str) -> Images:
    """A line of images for each title."""
    return Images(
        caption,
        [
            (title, pages.png(strip(images, len(images))), f"{title}: {len(images)} images")
            for title, images in rows.images.items()
        ],
    )


def _sheet(sheet: Sheet, caption: str) -> Images:
    picture = pages.png(strip(sheet.images, sheet.columns))
    return Images(caption, [("", picture, f"{sheet.title}: {len(sheet.images)} images")], "sheet")


def strip(images: Tensor, columns: int) -> NDArray[np.uint8]:
    """Images (N, C, H, W) side by side, `columns` in a line, with a pixel of nothing between them, as
    (H', W', 2), gray and opacity, or (H', W', 4); large ones are averaged."""
    small = averaged(images.float().cpu(), (max(images.shape[2:]) / LARGEST) ** 2)
    gray = small.shape[1] == 1
    picture = figures.to_array(small, columns, 1)[1:-1, 1:-1]
    opacity = figures.to_array(small * 0 + 1, columns, 1)[1:-1, 1:-1, :1] * 0 + 255
    height, width = small.shape[2:]
    opacity[height :: height + 1] = 0
    opacity[:, width :: width + 1] = 0
    return np.concatenate([picture[..., :1] if gray else picture, opacity], axis=2)


# ---- what is known of the run ------------------------------------------------------------------------------


def _facts(
    cfg: DictConfig,
    trained: Mapping[Any, Any],
    environment: dict[str, Any],
    metrics: dict[str, Any],
    code_dim: int = 0,
) -> dict[str, str]:
    """What was trained, with what, when and for how long; what is not known is left out. For `cfg` and
    `trained` see `sentence`."""
    versions, git = environment.get("versions", {}), environment.get("git", {})
    command = environment.get("command", [])
    facts = {
        "model": _class(cfg.model),
        "code": f"{code_dim} numbers" if code_dim else "",
        "likelihood": str(cfg.model.get("likelihood") or ""),
        **{part: _class(cfg.get(part)) for part in ("network", "optimizer", "scheduler")},
        **{part: class_name(trained.get(part) or {}) for part in ("data", "corruption")},
        "began with": str(cfg.get("init") or ""),
        "seed": str(cfg.seed),
        "trained": _trained(metrics),
        "started": environment.get("started", "?"),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "commit": f"{git.get('commit') or '?'}{' with changes' if git.get('changed') else ''}",
        "command": f"python {shlex.join(command)}" if command else "",
    }
    return {name: fact for name, fact in facts.items() if fact and (name, fact) != ("corruption", "Identity")}


def _class(node: Any) -> str:
    """The class that a part of the configuration is made of, and for a network of one's own its modules'."""
    if not isinstance(node, DictConfig):
        return ""
    inner = [_class(node.get(part)) for part in ("encoder", "decoder")]
    return f"{class_name(node)} ({', '.join(inner)})" if all(inner) else class_name(node)


def _described(node: Any) -> str:
    """A corruption with its settings; nothing for none."""
    if not isinstance(node, DictConfig | dict) or class_name(node) in ("", "Identity", "NoCorruption"):
        return ""
    settings = [f"{key!s}={value}" for key, value in node.items() if not str(key).startswith("_")]
    return f"{class_name(node)}({', '.join(settings)})"


def _read(path: Path) -> dict[str, Any]:
    return untrusted.read_json(path) if path.is_file() else {}


def _explained(group: Callable[..., Any] | None) -> str:
    """What a group's metrics are, from its docstring."""
    text = inspect.getdoc(group) or ""
    text = re.split(r"\n\n(?:Args|Returns):", text)[0].replace("`", "")
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)  # a page breaks its lines itself
