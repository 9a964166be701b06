"""Colour: what is kept of x̃, CIELAB, classes of colour, and the models that use them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Compose
from skimage.color import rgb2lab
from torch import Tensor, nn
from torch.nn import functional as F

from autoencoders import training
from autoencoders.colours import (
    annealed_mean,
    bins,
    class_weights,
    from_lab,
    in_gamut,
    luma,
    soft_encoded,
    to_lab,
    with_luma,
)
from autoencoders.data.pairs import Batch, to_float
from autoencoders.errors import UserError
from autoencoders.models import (
    BaseModel,
    ColorizationAutoencoder,
    ColorizationClasses,
    DenoisingAutoencoder,
    Restoration,
)
from autoencoders.networks import UNet
from autoencoders.randomness import Randomness

GRAY, COLOUR = (1, 8, 8), (3, 8, 8)


def batch(clean: Tensor, corrupted: Tensor) -> Batch:
    labels = torch.zeros(len(clean), dtype=torch.int64)
    return Batch(corrupted, clean, labels, Randomness(0, rows=len(clean)))


def scrambled(model: BaseModel) -> BaseModel:
    """With weights that make something of an image, where a new U-Net's last ones are 0."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


# ---- mathematics -------------------------------------------------------------------------------------------


def test_lab_is_that_of_skimage_and_there_is_a_way_back() -> None:
    levels = torch.linspace(0, 1, 9)
    images = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 27, 27)
    lab = to_lab(images)
    np.testing.assert_allclose(
        lab[0].permute(1, 2, 0), rgb2lab(images[0].permute(1, 2, 0).numpy()), atol=1e-3
    )
    torch.testing.assert_close(from_lab(lab), images, atol=1e-4, rtol=0)


def test_the_luma_is_kept_also_where_colours_must_fade() -> None:
    gray, colours = torch.rand(4, 1, 8, 8), torch.rand(4, 3, 8, 8)
    gray[0, :, :2], gray[0, :, 2:4] = 0, 1
    coloured = with_luma(gray, colours)
    torch.testing.assert_close(luma(coloured), gray)
    inside = ((coloured >= 0) & (coloured <= 1)).all(1, keepdim=True).expand(-1, 3, -1, -1)
    assert 0 < inside.float().mean() < 1
    shown = in_gamut(gray, coloured)
    assert (float(shown.min()), float(shown.max())) == (0.0, 1.0)
    torch.testing.assert_close(luma(shown), gray)
    torch.testing.assert_close(shown[inside], coloured[inside])
    faded, whole = (shown - gray)[~inside], (coloured - gray)[~inside]
    assert (faded * whole >= 0).all()  # of the same hue
    assert (faded.abs() <= whole.abs() + 1e-6).all()


def test_each_colour_is_in_one_of_the_bins() -> None:
    places = to_lab(torch.rand(1, 3, 50, 50))[0, 1:].flatten(1).T
    for side in (15.0, 30.0):
        nearest = (places[:, None] - bins(side)).abs().amax(2).amin(1)
        assert nearest.max() <= side / 2 + 1e-4
        assert len(bins(side).unique(dim=0)) == len(bins(side))


def test_a_soft_encoding_adds_up_to_1_and_is_a_gaussian_of_the_distance() -> None:
    centres = bins(20.0)
    places = torch.rand(50, 2) * 60 - 30
    index, weights = soft_encoded(places, centres, 10.0)
    torch.testing.assert_close(weights.sum(1), torch.ones(50))
    for place, some, of_place in zip(places, index, weights, strict=True):
        distances = torch.tensor([math.dist(place.tolist(), centre.tolist()) for centre in centres])
        assert some.tolist() == distances.argsort()[:5].tolist()
        gaussian = (-distances[some].square() / 200).exp()
        torch.testing.assert_close(of_place, gaussian / gaussian.sum(), rtol=1e-3, atol=1e-5)


def test_an_annealed_mean_is_between_the_mode_and_the_mean() -> None:
    logits, centres = torch.randn(2, 6, 3, 4), torch.randn(6, 2)
    mean = torch.einsum("bkhw,kc->bchw", logits.softmax(1), centres)
    mode = centres[logits.argmax(1)].permute(0, 3, 1, 2)
    torch.testing.assert_close(annealed_mean(logits, centres, 1.0), mean)
    torch.testing.assert_close(annealed_mean(logits, centres, 1e-3), mode, atol=1e-3, rtol=0)


def test_rare_colours_count_more_and_all_together_as_much() -> None:
    centres = torch.tensor([[0.0, 0.0], [1000.0, 0.0], [0.0, 1000.0]])  # too far to be smoothed
    frequencies = torch.tensor([0.6, 0.3, 0.1])
    torch.testing.assert_close(class_weights(frequencies, centres, 5.0, 1.0), torch.ones(3))
    weights = class_weights(frequencies, centres, 5.0, 0.5)
    expected = 1 / (0.5 * frequencies + 0.5 / 3)
    torch.testing.assert_close(weights, expected / (frequencies * expected).sum())
    assert class_weights(torch.tensor([1.0, 0.0, 0.0]), centres, 5.0, 0.0).isfinite().all()


# ---- what is kept ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_a_colorizer_keeps_the_lightness(likelihood: str) -> None:
    clean = torch.rand(3, 3, 8, 8)
    gray = luma(clean)
    models: list[Any] = [
        ColorizationAutoencoder(None, GRAY, COLOUR, code_dim=4, likelihood=likelihood),
        Restoration(UNet(widths=(4, 8)), GRAY, COLOUR, likelihood, keep_lightness=True),
    ]
    for model in models:
        scrambled(model)
        made = model(gray)
        torch.testing.assert_close(luma(made), gray)
        assert (made - gray).abs().max() > 0.01
        if isinstance(model, Restoration):
            pixels = model.likelihood.mean(model.output(gray))
        else:
            pixels = model.likelihood.mean(model.output(model.encode(gray)))
        coloured = gray + pixels - luma(pixels)
        (nll,) = model.terms(batch(clean, gray)).losses.values()
        if likelihood == "gaussian":
            squared = (coloured - clean).square().flatten(1).sum(1)
            torch.testing.assert_close(nll, squared + 96 * math.log(math.pi))
        else:
            p = coloured.clamp(1e-6, 1 - 1e-6)
            torch.testing.assert_close(
                nll, F.binary_cross_entropy(p, clean, reduction="none").flatten(1).sum(1)
            )


def test_the_lecture_s_colorizer_sends_everything_through_the_code() -> None:
    model = ColorizationAutoencoder(None, GRAY, COLOUR, code_dim=4, keep_lightness=False)
    gray = torch.rand(2, 1, 8, 8)
    codes = model.encode(gray)
    torch.testing.assert_close(model(gray), model.decode(codes))
    assert model.decodes_alone
    torch.testing.assert_close(model(gray), model.likelihood.mean(model.output(codes)))


def test_codes_of_a_colorizer_are_shown_at_one_lightness() -> None:
    model = ColorizationAutoencoder(None, GRAY, COLOUR, code_dim=4)
    assert not model.decodes_alone
    images = model.decode(torch.randn(5, 4) * 9)
    torch.testing.assert_close(luma(images), torch.full((5, 1, 8, 8), 0.5))
    gray = torch.rand(1, 1, 8, 8)  # or at that of an image
    torch.testing.assert_close(model.decode_beside(model.encode(gray), gray), model(gray))
    images = model.decode_beside(torch.randn(5, 4), gray)
    torch.testing.assert_close(luma(images), gray.expand(5, 1, 8, 8))


@pytest.mark.parametrize("name", ["denoising", "restoration"])
def test_pixels_that_were_seen_stay(name: str) -> None:
    clean = torch.rand(3, 1, 8, 8)
    hidden = torch.rand(3, 1, 8, 8) < 0.5
    corrupted = clean.masked_fill(hidden, -1)
    model = (
        DenoisingAutoencoder(keep_known=True, input_shape=GRAY)
        if name == "denoising"
        else Restoration(UNet(widths=(4, 8)), GRAY, keep_known=True)
    )
    scrambled(model)
    made = model(corrupted)
    assert torch.equal(made[~hidden], clean[~hidden])
    assert not torch.equal(made[hidden], clean[hidden])
    (nll,) = model.terms(batch(clean, corrupted)).losses.values()
    output = (
        model.output(corrupted)
        if isinstance(model, Restoration)
        else model.likelihood.mean(model.output(model.encode(corrupted)))
    )
    squared = ((output - clean) * hidden).square().flatten(1).sum(1)
    torch.testing.assert_close(nll, squared + 32 * math.log(math.pi))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("model=denoising model.keep_known=true", "and Gaussian hides none: use corruption=masking"),
        (
            "model=restoration model.keep_known=true corruption=patches",
            "can't tell a hidden pixel from one that is 0: use corruption.fill=-1",
        ),
        (
            "model=colorization corruption=blur",
            "keep_lightness=true would keep what Blur does to the gray image: use corruption=none, or model",
        ),
        (
            "model=colorization_classes corruption=blur",
            "model=colorization_classes would keep what Blur does to the gray image: use corruption=none",
        ),
        ("model=colorization_classes data=mnist", "can't colour MNIST"),
        (
            "model=restoration model.keep_lightness=true",
            "not for 1 channels in and 1 out: use data=cifar10_gray",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(overrides: str, said: str, composed: Compose) -> None:
    cfg = composed(*overrides.split())
    with pytest.raises(UserError) as caught:
        training.build_model(cfg, training.build_data(cfg))
    assert said in str(caught.value)


def test_masks_that_can_be_told_are_taken(composed: Compose) -> None:
    for model in ("denoising", "restoration"):
        cfg = composed(f"model={model}", "model.keep_known=true", "corruption=masking", "corruption.fill=-1")
        assert training.build_model(cfg, training.build_data(cfg)).keep_known


# ---- classes -----------------------------------------------------------------------------------------------


def test_the_loss_of_classes_is_a_weighted_cross_entropy() -> None:
    model = ColorizationClasses(UNet(widths=(4,)), GRAY, COLOUR, bin_size=30)
    scrambled(model)
    count = len(model.centres)
    model.importance.copy_(torch.rand(count))
    clean = torch.rand(2, 3, 8, 8)
    (loss,) = model.terms(batch(clean, luma(clean))).losses.values()
    ab = to_lab(F.avg_pool2d(clean, 2))[:, 1:].permute(0, 2, 3, 1)  # (2, 4, 4, 2)
    log_p = model.output(luma(clean)).log_softmax(1)
    expected = torch.zeros(2)
    for image in range(2):
        for y in range(4):
            for x in range(4):
                index, weights = soft_encoded(ab[image, y, x][None], model.centres, 15.0)
                target = torch.zeros(count).index_add(0, index[0], weights[0])
                entropy = -(target * log_p[image, :, y, x]).sum()
                expected[image] += model.importance[target.argmax()] * entropy
    torch.testing.assert_close(loss, expected)


def test_classes_keep_the_lightness_of_images_of_any_size() -> None:
    model = scrambled(ColorizationClasses(UNet(widths=(4, 8)), bin_size=50))
    gray = torch.rand(2, 1, 13, 10)
    made = model(gray)
    assert made.shape == (2, 3, 13, 10)
    torch.testing.assert_close(luma(made), gray, atol=1e-5, rtol=0)
    assert (made - gray).abs().max() > 0.05


def test_rare_colours_of_the_training_images_weigh_more(composed: Compose) -> None:
    model = ColorizationClasses(UNet(widths=(4,)), GRAY, COLOUR, bin_size=30)
    images = torch.full((20, 3, 8, 8), 128, dtype=torch.uint8)
    images[0] = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    model.weigh(images)
    of = model.colours_of(to_float(images)).flatten(1, 2)[:2, 0]  # of red, of gray
    (red, gray), _ = soft_encoded(of, model.centres, 15.0)
    assert model.importance[red[0]] > 2 * model.importance[gray[0]]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"bin_size": 1}, "bin_size=1 must be ≥ 5"),
        ({"temperature": 0}, "temperature=0 must be ≥ 0.001"),
        ({"uniform_weight": 2}, "uniform_weight=2 must be ≥ 0"),
    ],
)
def test_arguments_are_checked(argument: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ColorizationClasses(**argument)
