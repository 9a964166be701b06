"""C(x̃|x): its statistics, and that nothing but its noise decides what it does."""

import math
import re
from typing import Any

import pytest
import tiny
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor

from autoencoders import corruption as c
from autoencoders.corruption import Corruption
from autoencoders.randomness import Randomness, Stream

COUNT = 400
CLEAN = torch.full((COUNT, 3, 16, 16), 0.25)

EVERY: dict[str, Corruption] = {
    "none": c.Identity(),
    "gaussian": c.Gaussian(0.5, 0.5, True),
    "speckle": c.Speckle(0.5),
    "salt_pepper": c.SaltPepper(0.25),
    "masking": c.Masking(0.5, 0.0),
    "patches": c.Patches(0.5, 4, 0.0),
    "blur": c.Blur(1.5),
    "grayscale": c.Grayscale(),
    "compose": c.Compose({"blur": c.Blur(1.0), "masking": c.Masking(0.3, -1.0)}),
}


def corrupt(corruption: Corruption, clean: Tensor = CLEAN, *key: int) -> Tensor:
    return corruption(clean, Randomness(*(key or (0,)), rows=len(clean)))


@pytest.mark.parametrize("corruption", EVERY.values(), ids=EVERY)
def test_shape_stays_and_the_clean_image_is_left_alone(corruption: Corruption) -> None:
    clean = torch.rand(8, 3, 16, 16)
    before = clean.clone()
    corrupted = corrupt(corruption, clean)
    assert corrupted.shape == clean.shape
    assert torch.equal(clean, before)
    assert corrupt(corruption, clean[:, :1]).shape == (8, 1, 16, 16)


@pytest.mark.parametrize("corruption", EVERY.values(), ids=EVERY)
def test_two_devices_corrupt_as_one(corruption: Corruption) -> None:
    clean = torch.rand(10, 1, 16, 16)
    whole = corruption(clean, Randomness(7, 3, rows=10))
    for rank in range(2):
        part = corruption(clean[rank::2], Randomness(7, 3, rows=10, rank=rank, world_size=2))
        torch.testing.assert_close(part, whole[rank::2], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gaussian", "speckle", "salt_pepper", "masking", "patches"])
def test_the_key_decides_the_noise(name: str) -> None:
    assert torch.equal(corrupt(EVERY[name], CLEAN, 1, 2), corrupt(EVERY[name], CLEAN, 1, 2))
    assert not torch.equal(corrupt(EVERY[name], CLEAN, 1, 2), corrupt(EVERY[name], CLEAN, 2, 1))


def test_gaussian_has_its_mean_and_standard_deviation() -> None:
    noise = corrupt(c.Gaussian(0.5, 0.2, clip=False)) - CLEAN
    assert noise.mean().item() == pytest.approx(0.5, abs=0.005)
    assert noise.std().item() == pytest.approx(0.2, abs=0.005)


def test_clipped_gaussian_has_the_atoms_of_its_closed_form() -> None:
    corrupted = corrupt(c.Gaussian(0.5, 0.5, clip=True))
    above = 0.5 * math.erfc((1 - 0.75) / 0.5 / math.sqrt(2))  # P(0.25 + N(0.5, 0.5²) > 1)
    assert (corrupted == 1).float().mean().item() == pytest.approx(above, abs=0.01)
    assert corrupted.min() == 0


def test_speckle_grows_with_the_image() -> None:
    assert corrupt(c.Speckle(0.1)).std().item() == pytest.approx(0.025, abs=0.001)
    assert corrupt(c.Speckle(0.1), torch.zeros(2, 1, 8, 8)).abs().max() == 0


def test_salt_and_pepper_share_the_fraction() -> None:
    corrupted = corrupt(c.SaltPepper(0.3))
    assert (corrupted == 1).float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (corrupted == 0).float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(corrupted[:, 0], corrupted[:, 2])  # whole pixels, not channels


def test_masking_hides_its_fraction_behind_its_fill() -> None:
    corrupted = corrupt(c.Masking(0.4, fill=-1.0))
    assert (corrupted == -1).float().mean().item() == pytest.approx(0.4, abs=0.01)
    assert set(corrupted.unique().tolist()) == {-1.0, 0.25}


def test_patches_hide_exactly_their_fraction_of_whole_squares() -> None:
    squares = corrupt(c.Patches(0.5, 4, fill=-1.0))[:, 0].unfold(1, 4, 4).unfold(2, 4, 4)
    hidden = (squares == -1).flatten(3)
    assert torch.equal(hidden.all(-1), hidden.any(-1))
    assert torch.equal(hidden.all(-1).flatten(1).sum(1), torch.full((COUNT,), 8))


def test_blur_keeps_the_mean_and_spreads_a_point_by_sigma() -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    blurred = corrupt(c.Blur(2.0), point)[0, 0]
    variance = (blurred * (torch.arange(41.0) - 20).square()).sum()
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    assert variance.item() == pytest.approx(4, rel=0.05)


def test_grayscale_is_the_luma_in_every_channel() -> None:
    clean = torch.rand(2, 3, 4, 4)
    luma = 0.299 * clean[:, 0] + 0.587 * clean[:, 1] + 0.114 * clean[:, 2]
    torch.testing.assert_close(
        corrupt(c.Grayscale(), clean), luma[:, None].expand(-1, 3, -1, -1), atol=1e-3, rtol=0
    )


def test_compose_goes_in_order() -> None:
    both = c.Compose({"shift": c.Gaussian(2.0, 0.0, clip=True), "mask": c.Masking(1.0, 0.5)})
    assert corrupt(both).unique().tolist() == [0.5]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (c.Gaussian, {"std": -1}, "std=-1 must be ≥ 0"),
        (c.Gaussian, {"std": 1e7}, "std=10000000.0 must be ≥ 0 and ≤ 1000000"),
        (c.Gaussian, {"mean": math.nan}, "mean=nan must be a number"),
        (c.Gaussian, {"mean": math.inf}, "mean=inf must be a number"),
        (c.Gaussian, {"clip": 1}, "clip=1 must be true or false"),
        (c.Speckle, {"std": "loud"}, "std=loud must be a number"),
        (c.SaltPepper, {"fraction": 1.5}, "fraction=1.5 must be ≥ 0 and ≤ 1"),
        (c.Masking, {"fraction": -0.1}, "fraction=-0.1 must be ≥ 0 and ≤ 1"),
        (c.Masking, {"fill": math.inf}, "fill=inf must be a number"),
        (c.Patches, {"size": 0}, "size=0 must be ≥ 1 and ≤ 32"),
        (c.Patches, {"size": 2.5}, "size=2.5 must be a whole number"),
        (c.Patches, {"fill": None}, "fill=None must be a number"),
        (c.Blur, {"sigma": 0}, "sigma=0 must be > 0 and ≤ 100"),
        (c.Compose, {"steps": [c.Blur()]}, "must be a mapping of corruptions"),
        (c.Compose, {"steps": {"blur": 1.5}}, "steps.blur=1.5 must be a corruption"),
    ],
)
def test_an_argument_out_of_its_range_is_named(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**options)


def test_the_defaults_are_those_of_conf() -> None:
    for path in sorted((tiny.REPOSITORY / "conf" / "corruption").glob("*.yaml")):
        if path.stem not in ("compose", "own", "hidden_patches"):  # the last is patches with another fill
            arguments: Any = OmegaConf.to_container(OmegaConf.load(path))
            kind = get_class(arguments.pop("_target_"))
            assert kind() == kind(**arguments)


def test_any_callable_is_a_step() -> None:
    def negative(clean: Tensor, randomness: Randomness) -> Tensor:
        return 1 - clean

    assert torch.equal(corrupt(c.Compose({"negative": negative, "back": negative})), CLEAN)


def test_the_streams_keep_their_numbers() -> None:
    """They are in the keys of every number that was ever drawn."""
    names = "SPLIT VALIDATION TEST TRAIN FLIPS SHIFTS BATCH LABELLED BITS CROPS TARGET BLIND_SPOTS"
    assert [(stream.name, int(stream)) for stream in Stream] == list(
        zip(names.split(), range(12), strict=True)
    )
    assert Randomness(Stream.TEST, rows=1).normal(1).item() == pytest.approx(-0.03999, abs=1e-6)
