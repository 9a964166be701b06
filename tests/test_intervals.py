"""Intervals hold as often as they say, and what is within chance is not called a difference."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    normalized_mutual_info_score,
    roc_auc_score,
)

from autoencoders import chance
from autoencoders.evaluation import anomalies, intervals, representation
from autoencoders.evaluation.intervals import Mean


def interval(mean: Mean, count: int) -> tuple[float, float]:
    intervals.estimate({"model": {"metric": mean}}, count)
    assert mean.interval is not None
    return mean.interval


def test_an_interval_holds_the_true_mean_in_19_of_20_cases() -> None:
    rng, count = np.random.default_rng(0), 200
    for drawn, truth in ((rng.normal(3, 2, (2000, count)), 3), (rng.exponential(size=(2000, count)), 1)):
        means = {str(i): Mean(values) for i, values in enumerate(drawn)}
        intervals.estimate({"model": dict(means)}, count)
        held = [m.interval is not None and m.interval[0] <= truth <= m.interval[1] for m in means.values()]
        assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_an_interval_is_scipy_s() -> None:
    values = np.random.default_rng(0).exponential(size=300)
    known = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = known.high - known.low
    low, high = interval(Mean(values), 300)
    assert low == pytest.approx(known.low, abs=0.05 * width)
    assert high == pytest.approx(known.high, abs=0.05 * width)


def test_differences_hold_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """... of ten rows that are no better than the first, none is called so in 19 of 20 cases."""
    monkeypatch.setattr(intervals, "RESAMPLES", 200)
    rng, found, alone = np.random.default_rng(0), [], []
    for _ in range(150):
        images = rng.normal(size=100)  # some are harder than others, for every row
        first, *others = (Mean(images + rng.normal(size=100)) for _ in range(11))
        differences = [d for mean in others if (d := intervals.difference(mean, first, 100)) is not None]
        assert len(differences) == 10
        intervals.simultaneous(differences, 100)
        found.append(any(map(intervals.beyond_chance, differences)))
        intervals.estimate({"model": dict(zip("abcdefghij", differences, strict=True))}, 100)
        alone.append(any(map(intervals.beyond_chance, differences)))
    assert np.mean(found) == pytest.approx(0.05, abs=0.04)
    assert np.mean(alone) > 0.3


def test_a_pair_tells_more_than_two_intervals() -> None:
    """An image that is hard for one is hard for the other."""
    rng = np.random.default_rng(0)
    images = rng.exponential(size=500)
    a, b = Mean(images), Mean(images + 0.02 + rng.normal(0, 0.05, 500))
    (a_low, a_high), (b_low, b_high) = interval(a, 500), interval(b, 500)
    assert a_low < b_low < a_high < b_high
    difference = intervals.difference(b, a, 500)
    assert difference is not None
    intervals.simultaneous([difference], 500)
    assert intervals.beyond_chance(difference)
    assert float(difference) == pytest.approx(b - a, abs=1e-6)


def test_nothing_differs_from_itself() -> None:
    values = np.random.default_rng(0).exponential(size=50)
    same = intervals.difference(Mean(values), Mean(values), 50)
    other = intervals.difference(Mean(values + 1), Mean(values), 50)
    assert same is not None
    assert other is not None
    intervals.simultaneous([same, other], 50)
    assert (float(same), same.interval) == (0, (0, 0))
    assert not intervals.beyond_chance(same)
    assert intervals.beyond_chance(other)


def test_what_is_of_some_images_is_compared_on_these() -> None:
    values = np.random.default_rng(0).exponential(size=90).astype(np.float32)
    whole, every, first = (
        Mean(values[places], places) for places in (slice(None), slice(None, None, 3), slice(10))
    )
    low, high = interval(every, 90)
    half = 1.96 * values[::3].std() / 30**0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.2)
    assert interval(whole, 90)[1] - interval(whole, 90)[0] < high - low
    difference = intervals.difference(Mean(2 * values), every, 90)
    assert difference is not None
    np.testing.assert_allclose(difference.values, values[::3], rtol=1e-5)
    assert intervals.difference(first, Mean(values[10:], slice(10, None)), 90) is None


def test_a_quantile_has_scipy_s_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "FEW", 2000)
    values = np.random.default_rng(0).exponential(size=300)
    median = intervals.Statistic(lambda places: float(np.median(values[places])), 300)
    assert float(median) == np.median(values)
    intervals.estimate({"model": {"median": median}}, 300)
    known = scipy.stats.bootstrap(
        (values,), np.median, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert median.interval == pytest.approx((known.low, known.high), abs=0.05 * (known.high - known.low))


def test_clusters_agree_with_classes_as_scikit_learn_says() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    clusters = np.where(rng.random(300) < 0.6, (labels + 1) % 4, rng.integers(0, 6, 300))
    places = rng.integers(0, 300, 200)
    for few in (np.arange(300), places, places[:1]):
        for measure, known in (
            (representation.mutual_information, normalized_mutual_info_score),
            (representation.rand_index, adjusted_rand_score),
        ):
            found = representation.agreement(measure, clusters, labels, few)
            assert found == pytest.approx(known(labels[few], clusters[few]), abs=1e-9)


def test_areas_under_curves_are_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    for size in (5, 300):
        told = np.arange(size) % 5 == 0
        for errors in (rng.random(size) + 0.3 * told, rng.integers(0, 4, size) / 4):  # the latter with ties
            assert anomalies.roc_auc(told, errors) == pytest.approx(roc_auc_score(told, errors))
            known = average_precision_score(told, errors)
            assert anomalies.average_precision(told, errors) == pytest.approx(known)


@pytest.mark.parametrize("values", [[0.5], [0.5, math.nan], [0.5, math.inf]])
def test_what_is_no_mean_of_numbers_has_no_interval(values: list[float]) -> None:
    mean = Mean(values)
    intervals.estimate({"model": {"mse": mean, "parameters": 7}}, len(values))
    assert mean.interval is None
    assert intervals.text(mean) == f"{float(mean):.4g}"
    assert intervals.of_scores({"group": {"model": {"mse": mean}}}) == {"group": {"model": {}}}


@pytest.mark.parametrize(
    ("value", "half", "shown"),
    [
        (0.0133421, 0.000123, "0.01334 ± 0.00012"),
        (-98.4, 12.3, "-98 ± 12"),
        (1.0, 0.0, "1"),
        (5e-9, 1e-12, "5e-09"),
    ],
)
def test_as_many_digits_are_shown_as_mean_something(value: float, half: float, shown: str) -> None:
    mean = Mean(np.array([value]))
    mean.interval = value - half, value + half
    assert intervals.text(mean) == shown


# ---- the jobs of a sweep -----------------------------------------------------------------------------------


def job(folder: Path, errors: NDArray[np.float64], std: float = 0.5) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    np.save(folder / chance.ERRORS, errors.astype(np.float32))
    (folder / chance.CONFIG).write_text(
        f"data: {{_target_: Digits, batch_size: 7, corruption: {{std: {std}}}}}"
    )
    return folder


def test_jobs_of_several_seeds_are_told_apart_by_their_spread() -> None:
    groups: list[dict[Path, float]] = [
        {Path(f"{name}{seed}"): mean + 0.01 * seed for seed in (-1, 0, 1)}
        for name, mean in {"a": 0.5, "b": 0.505, "c": 0.9}.items()
    ]
    marks = {"a": "best", "b": "within chance", "c": ""}
    expected = {Path(f"{name}{seed}"): mark for name, mark in marks.items() for seed in (-1, 0, 1)}
    assert chance.near_best(groups, "val/mse") == expected
    once = {Path("once"): 0.501}
    assert chance.near_best([*groups, once], "val/mse") == {**expected, Path("once"): "not compared"}
    same: list[dict[Path, float]] = [{Path(x): 0.5, Path(y): 0.5} for x, y in ("de", "fg")]
    found = chance.near_best([*same, {Path("h"): 1, Path("i"): 1}], "val/mse")
    assert [found[Path(name)] for name in "defghi"] == ["best"] * 2 + ["within chance"] * 2 + [""] * 2
    assert chance.near_best(groups[:1], "val/mse") == {}


def test_two_seeds_tell_what_is_three_times_as_large() -> None:
    pairs = {
        "large": (0.050, 0.052),
        "middle": (0.026, 0.025),
        "best": (0.0165, 0.0166),
        "near": (0.0171, 0.0164),
    }
    groups = [{Path(f"{name}{seed}"): pairs[name][seed] for seed in (0, 1)} for name in pairs]
    found = chance.near_best(groups, "val/mse")
    assert [found[Path(f"{name}0")] for name in pairs] == ["", "", "best", "within chance"]


def test_jobs_of_one_seed_are_told_apart_by_their_test_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    errors = rng.exponential(size=200)
    jobs = {
        "best": job(tmp_path / "best", errors),
        "near": job(tmp_path / "near", errors + rng.normal(0, 0.1, 200)),
        "worse": job(tmp_path / "worse", errors + 0.1 + rng.normal(0, 0.1, 200)),
        "other images": job(tmp_path / "other images", errors, std=0.1),
        "fewer images": job(tmp_path / "fewer images", errors[1:]),
        "not evaluated": tmp_path / "nothing",
    }
    groups = [{folder: 0.5 + 0.01 * place} for place, folder in enumerate(jobs.values())]
    marks = ["best", "within chance", "", *["not compared"] * 3]
    assert chance.near_best(groups, "val/mse") == dict(zip(jobs.values(), marks, strict=True))
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999,)}" + b" " * 51 + b"\n"
    for content in (b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00\x76\x00" + header):
        (jobs["near"] / chance.ERRORS).write_bytes(content)
        assert chance.near_best(groups, "val/mse")[jobs["near"]] == "not compared"
    np.save(jobs["near"] / chance.ERRORS, np.array([{}] * 200), allow_pickle=True)
    assert chance.near_best(groups, "val/mse")[jobs["near"]] == "not compared"
    assert chance.near_best([{tmp_path / "nothing": 0.1}, *groups], "val/mse") == {}
    assert chance.near_best(groups, "val/loss") == {}
