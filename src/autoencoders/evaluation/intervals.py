"""How much of a score is due to the test images that there happen to be: its 95 % interval, by the bootstrap
(Efron & Tibshirani 1993) over test images. What another seed of the training would change, it does not tell.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from autoencoders.digits import Interval, plus_minus
from autoencoders.evaluation.subject import Scores

RESAMPLES, LEVEL, SEED = 1000, 0.95, 0
FEW = 200  # resamples of what is no mean, and so is computed anew of each
BLOCK = 4_000_000  # numbers of the resamples that are held at once
EXPLAINED = (
    f"± is half of a {100 * LEVEL:g} % confidence interval from {RESAMPLES:,} bootstrap resamples of the "
    f"test images ({FEW} for scores that are not means over images). It covers the choice of test images "
    "only. Scores of samples and properties of the code have none."
)
Places = NDArray[np.int64]  # of test images


class Score(float):
    """A score of test images, whose interval can be estimated."""

    interval: Interval | None = None  # once it has been


class Mean(Score):
    """A score that is a mean over test images, and what it is the mean of.

    Args:
        values: one an image (n,).
        places: which of the test images these are.
    """

    values: NDArray[np.float32]
    places: slice | Places

    def __new__(cls, values: ArrayLike, places: slice | Places = slice(None)) -> "Mean":
        array = np.asarray(values, np.float32)
        mean = super().__new__(cls, array.mean(dtype=np.float64))
        mean.values, mean.places = array, places
        return mean


class Statistic(Score):
    """A score that is no mean.

    Args:
        of: computes it of the test images at some places (n,), any of them several times.
        count: how many test images there are.
    """

    of: Callable[[Places], float]

    def __new__(cls, of: Callable[[Places], float], count: int) -> "Statistic":
        statistic = super().__new__(cls, of(np.arange(count)))
        statistic.of = of
        return statistic


class Means:
    """Means over images of the metrics of each row, batch by batch.

    Args:
        places: which of the test images are looked at.
    """

    def __init__(self, places: slice = slice(None)) -> None:
        self.parts: dict[str, dict[str, list[Tensor]]] = {}
        self.places = places

    def add(self, row: str, metrics: Mapping[str, Tensor | NDArray[np.floating]]) -> None:
        """One value an image (B,) of each metric."""
        for metric, values in metrics.items():
            part = torch.as_tensor(values).float().cpu()
            self.parts.setdefault(row, {}).setdefault(metric, []).append(part)

    def scores(self) -> Scores:
        return {
            row: {metric: Mean(torch.cat(parts), self.places) for metric, parts in metrics.items()}
            for row, metrics in self.parts.items()
        }


def estimate(scores: Scores, count: int) -> None:
    """Gives each score of a group that can have one its interval: those of several of the `count` test
    images. All are drawn with the same resamples."""
    every = [value for metrics in scores.values() for value in metrics.values()]
    means = [value for value in every if isinstance(value, Mean) and _varies(value)]
    others = [value for value in every if isinstance(value, Statistic) and math.isfinite(value) and count > 1]
    if means:
        _give(means, bootstrap(means, count))
    if others:
        rng = np.random.default_rng(SEED)
        drawn = (rng.integers(count, size=count) for _ in range(FEW))
        _give(others, np.array([[other.of(places) for other in others] for places in drawn]))


def _give(scores: Sequence[Score], drawn: NDArray[np.float64]) -> None:
    """Gives scores (S,) the interval of what resamples made of them (R, S); of some there may be nothing."""
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    for score, low, high in zip(scores, *np.nanquantile(drawn, tails, axis=0), strict=True):
        score.interval = float(low), float(high)


def _varies(mean: Mean) -> bool:
    return math.isfinite(mean) and len(mean.values) > 1


def bootstrap(means: Sequence[Mean], count: int) -> NDArray[np.float64]:
    """(RESAMPLES, len(means)): the means over as many images, drawn from the `count` test images with
    replacement; NaN where none of those was drawn that a mean is of. The same images for all of the means,
    and in every call for the same `count`."""
    values, known = np.zeros((2, count, len(means)))
    for column, mean in enumerate(means):
        values[mean.places, column], known[mean.places, column] = mean.values, 1
    rng, drawn = np.random.default_rng(SEED), list[NDArray[np.float64]]()
    for block in np.array_split(np.arange(RESAMPLES), -(-RESAMPLES * count // BLOCK)):
        times = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in block]
        weights = np.stack(times).astype(np.float64) if times else np.zeros((0, count))
        with np.errstate(invalid="ignore"):
            drawn.append(weights @ values / (count if known.all() else weights @ known))
    return np.concatenate(drawn)


def difference(mean: Mean, reference: Mean, count: int) -> Mean | None:
    """`mean` − `reference`, over those of the `count` test images that both are of; None if none is."""
    (values, known), (others, of_others) = (np.zeros((2, count), np.float32) for _ in range(2))
    values[mean.places], known[mean.places] = mean.values, 1
    others[reference.places], of_others[reference.places] = reference.values, 1
    both = np.flatnonzero(known * of_others)
    return Mean(values[both] - others[both], both) if len(both) else None


def simultaneous(differences: Sequence[Mean], count: int) -> None:
    """Gives means their intervals so that with the probability LEVEL all of them hold, however many there
    are: as wide as the largest of their deviations over the resamples asks for, each in units of its own
    standard error (Romano & Wolf 2005)."""
    found = [mean for mean in differences if _varies(mean)]
    if not found:
        return
    drawn = bootstrap(found, count)
    errors = np.nanstd(drawn, axis=0)
    deviations = np.abs(drawn - np.array(found)) / np.where(errors > 0, errors, 1)
    width = np.quantile(np.nan_to_num(deviations).max(axis=1), LEVEL)
    for mean, error in zip(found, errors, strict=True):
        mean.interval = float(mean - width * error), float(mean + width * error)


def beyond_chance(difference: Mean) -> bool:
    """Whether its interval leaves out 0."""
    return difference.interval is not None and not difference.interval[0] <= 0 <= difference.interval[1]


def plain(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """The groups' scores as numbers alone."""
    return {
        group: {
            row: {m: float(v) if isinstance(v, Score) else v for m, v in metrics.items()}
            for row, metrics in rows.items()
        }
        for group, rows in scores.items()
    }


def of_scores(scores: Mapping[str, Scores]) -> dict[str, dict[str, dict[str, Interval]]]:
    """The groups' intervals, by row and metric."""
    return {
        group: {
            row: {m: v.interval for m, v in metrics.items() if isinstance(v, Score) and v.interval}
            for row, metrics in rows.items()
        }
        for group, rows in scores.items()
    }


def text(value: Any) -> str:
    """A score as it is shown: with half of its interval, if it has one, and as many digits as that leaves a
    meaning to.

    >>> mean = Mean([0.25, 0.25])
    >>> mean.interval = 0.24876, 0.25124
    >>> text(mean)
    '0.2500 ± 0.0012'
    """
    if isinstance(value, Score) and value.interval is not None:
        half = (value.interval[1] - value.interval[0]) / 2
        if half >= 1e-6 * max(1e-3, abs(value)):
            return plus_minus(value, half)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
