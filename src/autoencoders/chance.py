"""Which jobs of a sweep are as good as the best of them, as far as one can tell."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from autoencoders import untrusted
from autoencoders.errors import UserError

BEST, NEAR, WORSE, UNKNOWN = "best", "within chance", "", "not compared"
LEVEL = 0.95
ERRORS = Path("evaluation") / "errors.npy"  # in a run's folder: the squared error of each test image
CONFIG = Path("evaluation") / "config.yaml"  # what those images were
OF_ERRORS = ("val/mse", "test/mse")  # the metrics that they tell of
# What of a run's data leaves the test images as they are.
OF_TRAINING = (
    "batch_size", "eval_batch_size", "validation_size", "train_size", "flip", "shift", "augment_until",
    "corrupt_once", "seed", "only", "without", "cache", "cache_gb", "strict", "supervision", "blind_spots",
)  # fmt: skip


def near_best(groups: Sequence[Mapping[Path, float]], metric: str) -> dict[Path, str]:
    """Which jobs have the smallest mean of a metric, and which are within chance of it, by their folders.

    Where there are several seeds, that is by t-tests, and else by the paired bootstrap over the test
    images, of jobs that were evaluated on the same; at 95 % for all comparisons with the best at once.

    Args:
        groups: each job's value; jobs of one group differ in their seed alone.
    """
    groups = [group for group in groups if group and all(map(math.isfinite, group.values()))]
    if len(groups) < 2:
        return {}
    best, *others = sorted(groups, key=lambda group: mean(group.values()))
    if len(best) > 1:
        found = _by_seeds(best, others)
    else:
        found = _by_images(best, others) if metric in OF_ERRORS else []
    if set(found) <= {UNKNOWN}:
        return {}
    marks = dict.fromkeys(best, BEST)
    for group, mark in zip(others, found, strict=True):
        marks |= dict.fromkeys(group, mark)
    return marks


def _by_seeds(best: Mapping[Path, float], others: Sequence[Mapping[Path, float]]) -> list[str]:
    """By t-tests with the variance within all groups together, as of two or three seeds one alone tells next
    to nothing: of the logarithms, where there are any, as larger errors vary by more."""
    from scipy.stats import t

    values = [list(group.values()) for group in (best, *others)]
    if min(map(min, values)) > 0:
        values = [[math.log(value) for value in some] for some in values]
    spare = sum(len(some) - 1 for some in values)  # degrees of freedom
    within = sum((value - mean(some)) ** 2 for some in values for value in some) / spare
    compared = sum(len(some) > 1 for some in values[1:])
    reach = float(t.isf((1 - LEVEL) / 2 / max(1, compared), spare))  # by Bonferroni
    marks = []
    for some in values[1:]:
        error = math.sqrt(within * (1 / len(values[0]) + 1 / len(some)))
        near = mean(some) - mean(values[0]) <= reach * error
        marks.append(UNKNOWN if len(some) == 1 else NEAR if near else WORSE)
    return marks


def _by_images(best: Mapping[Path, float], others: Sequence[Mapping[Path, float]]) -> list[str]:
    (of_best,) = best
    if (known := _errors(of_best)) is None:
        return [UNKNOWN] * len(others)
    from autoencoders.evaluation import intervals  # torch: only where there is something to compare

    images, errors = known
    differences = dict[int, intervals.Mean]()
    for place, group in enumerate(others):
        other = _errors(next(iter(group))) if len(group) == 1 else None
        if other is not None and other[0] == images and len(other[1]) == len(errors):
            differences[place] = intervals.Mean(other[1] - errors)
    intervals.simultaneous(list(differences.values()), len(errors))
    found = [UNKNOWN] * len(others)
    for place, difference in differences.items():
        if difference.interval is not None:
            found[place] = NEAR if difference.interval[0] <= 0 else WORSE
    return found


def _errors(job: Path) -> tuple[dict[str, Any], Any] | None:
    """What a job was evaluated on, and its error on each image (N,); None if it was not."""
    try:
        content = untrusted.read_yaml(job / CONFIG)
        return test_images(content["data"]), untrusted.read_array(job / ERRORS)
    except (UserError, OSError, KeyError, TypeError, AttributeError):  # as of an evaluation of before
        return None


def test_images(data: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's config of its data makes its test images what they are."""
    chosen = {key: value for key, value in data.items() if key not in OF_TRAINING}
    if "binarize" in chosen:  # test images always once: dynamic and static differ in training
        chosen["binarize"] = bool(chosen["binarize"])
    return chosen
