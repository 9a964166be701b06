"""What a report says first: three numbers against their references, and what the model can't do; and what a
comparison says first."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from autoencoders.evaluation import intervals
from autoencoders.evaluation.subject import Scores
from autoencoders.metrics import metric_names


class Metric(NamedTuple):
    """A score that a report can begin with."""

    group: str
    name: str
    label: str
    share: bool = False  # of 1, told in percent
    row: str = "model"

    @property
    def smaller_is_better(self) -> bool:
        return bool(smaller_is_better(self.name))

    def better(self, value: float, other: float) -> bool:
        return value < other if self.smaller_is_better else value > other


# In the order in which they are chosen, of those that there are.
METRICS = (
    Metric("clustering", "accuracy", "accuracy of its own clusters", share=True, row="own clusters"),
    Metric("reconstruction", "mse", "mean squared error of a pixel"),
    Metric("colorization", "ciede2000", "colour difference ΔE00"),
    Metric("likelihood", "elbo", "ELBO in nats an image (larger is better)"),
    Metric("codebook", "usage", "of the codebook in use", share=True),
    Metric("classes", "as_asked", "of samples in the requested class", share=True),
    Metric("features", "linear_probe", "accuracy of a linear probe on the code", share=True),
    Metric("reconstruction", "ssim", "structural similarity (1: the same)"),
    Metric("clustering", "accuracy", "accuracy of k-means on the code", share=True),
    Metric("reconstruction", "psnr", "peak signal-to-noise ratio in dB"),
)  # fmt: skip
MOST = 3
LOWER_IS_BETTER = ("mse", "mae", "chroma_mse", "chroma_error", "ciede2000", "reconstruction_nll")
HIGHER_IS_BETTER = (
    "psnr", "ssim", "gain_db", "accuracy", "accuracy_2", "accuracy_5", "linear_probe", "knn", "elbo",
)  # fmt: skip
OF_THE_MODEL = ("model", "model, whitened", "own clusters")
COPIED = 1e-9  # the mse of PCA with as many numbers as an image has: that is the image
ORACLES = ("ground truth", "test images", "training images")  # rows that are no way of doing it


class Number(NamedTuple):
    """A card of the page's first screen."""

    value: str
    interval: str
    label: str
    worth: str  # against the best of the reference rows; nothing where there is none


def numbers(scores: Mapping[str, Scores], count: int) -> list[Number]:
    """The first few of METRICS; `count` test images."""
    found = list[Number]()
    for metric in METRICS:
        value = scores.get(metric.group, {}).get(metric.row, {}).get(metric.name)
        if isinstance(value, float) and math.isfinite(value) and len(found) < MOST:
            text, _, half = _text(value, metric).partition(" ± ")
            unit = " %" if metric.share else ""
            interval = f"± {half}" if half else ""
            found.append(Number(text + unit, interval, metric.label, _worth(scores, metric, count)))
    return found


def lines(scores: Mapping[str, Scores], count: int) -> Iterator[str]:
    """The same for a terminal: "0.01330 ± 0.00020 mean squared error of a pixel, 2.2 times less than ..."."""
    for value, interval, label, worth in numbers(scores, count):
        yield " ".join(filter(None, (value, interval, label))) + (f", {worth}" if worth else "")


def _worth(scores: Mapping[str, Scores], metric: Metric, count: int) -> str:
    if (best := _best_reference(scores, metric, alike=True) or _best_reference(scores, metric)) is None:
        return ""
    row, reference = best
    value = scores[metric.group][metric.row][metric.name]
    beside = f"{row} ({_short(reference, metric)})"
    if not _beyond_chance(value, reference, count):
        return f"not significantly different from {beside}"
    return _against(value, reference, metric, beside)


def _against(value: float, reference: float, metric: Metric, beside: str) -> str:
    """How much better or worse a value is than the reference, which `beside` names."""
    better = metric.better(value, reference)
    if metric.smaller_is_better and min(value, reference) > 0:
        ratio = value / reference
        if 2 / 3 < ratio < 3 / 2:
            return f"{100 * abs(1 - ratio):.2g} % {'less' if better else 'more'} than {beside}"
        if ratio > 1:
            return f"{ratio:.2g} times that of {beside}"
        return f"{1 / ratio:.2g} times less than {beside}"
    if metric.share:
        return f"{100 * abs(value - reference):.2g} points {'more' if better else 'less'} than {beside}"
    return f"{'better' if better else 'worse'} than {beside}"


def _best_reference(
    scores: Mapping[str, Scores], metric: Metric, alike: bool = False
) -> tuple[str, float] | None:
    """The best of the rows that don't use the model, and its score; where they shall be `alike`, of those
    with as few numbers as a code."""
    rows = {
        row: metrics[metric.name]
        for row, metrics in scores[metric.group].items()
        if row not in (*OF_THE_MODEL, *ORACLES)
        and not (alike and row == "pixels")
        and math.isfinite(metrics.get(metric.name, math.nan))
        and scores.get("reconstruction", {}).get(row, {}).get("mse", 1) > COPIED
    }
    if not rows:
        return None
    row = (min if metric.smaller_is_better else max)(rows, key=lambda name: rows[name])
    return row, rows[row]


def _beyond_chance(value: Any, reference: Any, count: int) -> bool:
    """Also where it can't be told."""
    if not isinstance(value, intervals.Mean) or not isinstance(reference, intervals.Mean):
        return True
    difference = intervals.difference(value, reference, count)
    if difference is None:
        return True
    intervals.simultaneous([difference], count)
    return difference.interval is None or intervals.beyond_chance(difference)


def limits(scores: Mapping[str, Scores], left_out: str) -> Iterator[str]:
    """What the model can't do, in sentences: where another row is better, how bad it gets, what its samples
    lack, and what was left out."""
    of_model, of_input = (
        scores.get("reconstruction", {}).get(row, {}).get("mse") for row in ("model", "corrupted image")
    )
    if isinstance(of_model, float) and isinstance(of_input, float) and of_model > of_input:
        mse = Metric("reconstruction", "mse", "")
        yield (
            f"Its output is worse than its input: a mean squared error of {_text(of_model, mse)} instead of "
            f"{_text(of_input, mse)}."
        )
    for metric in METRICS:
        value = scores.get(metric.group, {}).get(metric.row, {}).get(metric.name)
        if not isinstance(value, float):
            continue
        best = _best_reference(scores, metric)
        if best and metric.better(best[1], value):
            unit = " %" if metric.share else ""
            yield (
                f"It does not beat {best[0]} in {metric.label}: {_text(value, metric)}{unit} against "
                f"{_text(best[1], metric)}{unit}."
            )
    error = scores.get("reconstruction", {}).get("model", {}).get("mse")
    if isinstance(error, intervals.Mean) and len(error.values) > 1 and error > 0:
        largest = float(error.values.max())
        yield f"Its worst test image has an error of {largest:.3g}, {largest / error:.2g} times the mean."
    samples = {
        row: metrics["coverage"]
        for row, metrics in scores.get("generation", {}).items()
        if row not in ("reconstructions", *ORACLES) and isinstance(metrics.get("coverage"), float)
    }
    if samples and samples[best_row := max(samples, key=lambda row: samples[row])] < 0.9:
        most = scores["generation"].get("reconstructions", {}).get("coverage")
        beside = "" if most is None else f" Its reconstructions cover {100 * most:.0f} %."
        yield (
            f"Its best samples ({best_row}) cover {100 * samples[best_row]:.0f} % of the test images; the "
            f"rest have no sample near them.{beside}"
        )
    if left_out:
        yield f"{left_out[0].upper()}{left_out[1:]}."


def compared(row: str, run: str) -> str:
    """What a row is called beside other runs': "model, whitened" is "<run>, whitened"."""
    return f"{run}, {row.removeprefix('model, ')}" if row in OF_THE_MODEL else row


class Answer(NamedTuple):
    """Which of several runs is the best by a metric."""

    metric: str
    sentence: str
    beyond_chance: bool  # whether it says so of a difference


def answer(group: str, scores: Scores, runs: Sequence[str], count: int) -> Answer | None:
    """Which of the runs is the best on the same `count` test images by the first of METRICS that all of them
    have, or else by another; and which are within chance of it, at 95 % for all comparisons with the best at
    once. None where they have none in common of which one knows what is better."""
    shared = [
        name
        for name in metric_names(scores)
        if smaller_is_better(name) is not None
        and all(isinstance(v := scores[run].get(name), intervals.Mean) and math.isfinite(v) for run in runs)
    ]
    if not shared:
        return None
    other = Metric(group, shared[0], shared[0])
    told = (known for known in METRICS if (known.group, known.row) == (group, "model"))
    metric = next((known for known in told if known.name in shared), other)
    values = {run: scores[run][metric.name] for run in runs}
    best, *others = sorted(runs, key=lambda run: values[run], reverse=not metric.smaller_is_better)
    differences = {run: intervals.difference(values[run], values[best], count) for run in others}
    intervals.simultaneous([found for found in differences.values() if found is not None], count)
    near = [run for run, found in differences.items() if found is None or not intervals.beyond_chance(found)]
    beside = {run: f"{run} ({_short(values[run], metric)})" for run in runs}
    name = "mean squared error" if metric.name == "mse" else metric.label.partition(" (")[0]
    least = "smallest" if metric.smaller_is_better else "largest"
    said = f"{best} has the {least} {name}, {_short(values[best], metric)}"
    same = f"on the same {count:,} test images"
    if not near:
        ahead = _against(values[best], values[others[0]], metric, beside[others[0]])
        said += f": {ahead}, beyond chance {same}."
    else:
        said += f", but {_listed(near, beside)} within chance of it {same}"
        far = [run for run in others if run not in near]
        said += f"; {_listed(far, beside)} worse beyond chance." if far else "."
    of_runs = (*runs, *(compared(row, run) for run in runs for row in OF_THE_MODEL))
    without = _best_reference({group: {row: of for row, of in scores.items() if row not in of_runs}}, metric)
    if without and metric.better(without[1], values[best]):
        said += f" A reference is better: {without[0]} ({_short(without[1], metric)})."
    return Answer(metric.name, said, beyond_chance=len(near) < len(others))


def _listed(names: Sequence[str], beside: Mapping[str, str]) -> str:
    """The beginning of what they are: "a (1) is", "a (1) and b (2) are", "a (1), b (2) and 5 others are"."""
    said = [beside[name] for name in names]
    if len(said) > 3:
        said[2:] = [f"{len(said) - 2} others"]
    *first, last = said
    return f"{', '.join(first)} and {last} are" if first else f"{last} is"


def smaller_is_better(metric: str) -> bool | None:
    """None where neither is known to be."""
    if metric in LOWER_IS_BETTER or metric.startswith(("mse_", "nll_", "bits_")):
        return True
    return False if metric in HIGHER_IS_BETTER or metric.startswith("linear_probe") else None


def _short(value: Any, metric: Metric) -> str:
    """Without its interval."""
    return _text(value, metric).partition(" ±")[0] + (" %" if metric.share else "")


def _text(value: Any, metric: Metric) -> str:
    """In percent, without the sign, where it is a share."""
    if not metric.share:
        return intervals.text(value)
    percent = intervals.Score(100 * value)
    if isinstance(value, intervals.Score) and value.interval:
        percent.interval = 100 * value.interval[0], 100 * value.interval[1]
    return intervals.text(percent)
