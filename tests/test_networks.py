"""Encoders and decoders: shapes, and that a decoder gives back what its encoder took."""

from typing import Any

import pytest
import torch
from torch import nn

from autoencoders.networks import MLP, Conv, Linear, Network, Sum

FAMILIES: dict[str, Network] = {
    "linear": Linear(),
    "mlp": MLP(hidden=[32, 16]),
    "conv": Conv(channels=[8, 16], hidden=[32], norm=False),
    "conv-plain": Conv(patch=1, channels=[4, 8, 16], hidden=[], linear_path=False, norm=False),
    "conv-norm": Conv(channels=[8], hidden=[16], linear_path=False),
    "conv-one": Conv(patch=4, channels=[8], hidden=[16], linear_path=False, norm=False),
}


@pytest.mark.parametrize("network", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 20, 20)], ids=str)
@pytest.mark.parametrize("code_dim", [1, 7])
def test_image_to_code_to_image(network: Network, shape: tuple[int, ...], code_dim: int) -> None:
    images = torch.rand(3, *shape)
    code = network.encoder(shape, code_dim)(images)
    assert code.shape == (3, code_dim)
    assert network.decoder(code_dim, shape)(code).shape == images.shape


def test_linear_is_affine() -> None:
    encoder = Linear().encoder((1, 4, 4), 3)
    a, b = torch.rand(2, 1, 1, 4, 4)
    torch.testing.assert_close(encoder((a + b) / 2), (encoder(a) + encoder(b)) / 2)


def test_linear_path_is_added_to_the_network() -> None:
    network = MLP(hidden=[32, 16], linear_path=True).encoder((1, 4, 4), 3)
    images = torch.rand(2, 1, 4, 4)
    assert isinstance(network, Sum)
    body, path = network.branches
    torch.testing.assert_close(network(images), body(images) + path(images))
    assert sum(isinstance(layer, nn.Linear) for layer in path.modules()) == 1


def test_a_normalised_layer_does_not_see_its_input_s_scale() -> None:
    """What comes after a hidden layer is the same for an image and, without a bias, its multiple."""
    network = MLP(hidden=[8], norm=True).encoder((1, 4, 4), 3)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Linear))
    nn.init.zeros_(first.bias)
    images = torch.rand(2, 1, 4, 4) + 1
    torch.testing.assert_close(network(images), network(3 * images), atol=1e-3, rtol=1e-3)


def test_the_names_of_weights_are_those_of_older_checkpoints() -> None:
    assert list(Linear().encoder((1, 4, 4), 2).state_dict()) == ["1.weight", "1.bias"]
    assert list(MLP(hidden=[3], linear_path=True).decoder(2, (1, 4, 4)).state_dict()) == [
        "branches.0.0.weight", "branches.0.0.bias", "branches.0.2.weight", "branches.0.2.bias",
        "branches.1.0.weight", "branches.1.0.bias",
    ]  # fmt: skip
    assert list(Conv(channels=[4], hidden=[], linear_path=False).encoder((1, 4, 4), 2).state_dict()) == [
        "1.weight", "1.bias", "2.weight", "2.bias", "5.weight", "5.bias",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        (Conv, {"patch": 33}, "patch=33 must be ≥ 1 and ≤ 32"),
        (Conv, {"channels": [32, 0]}, r"channels\[1\]=0 must be ≥ 1 and ≤ 65536"),
        (Conv, {"norm": 1}, "norm=1 must be true or false"),
        (MLP, {"hidden": ["a"]}, r"hidden\[0\]=a must be a whole number ≥ 1 and ≤ 65536"),
        (MLP, {"hidden": 256}, "hidden=256 must be a list"),
        (MLP, {"linear_path": "yes"}, "linear_path=yes must be true or false"),
    ],
)
def test_ranges_are_checked(family: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        family(**arguments)


@pytest.mark.parametrize(("patch", "shape"), [(3, (1, 28, 28)), (2, (1, 28, 20)), (32, (3, 16, 16))])
def test_images_that_do_not_fit_are_named(patch: int, shape: tuple[int, int, int]) -> None:
    message = (
        f"^patch={patch} must divide the side of a square image, not one of {shape[1]} x {shape[2]}: "
        r"use network=mlp, or resize the images with data\.size=32$"
    )
    with pytest.raises(ValueError, match=message):
        Conv(patch=patch).encoder(shape, 2)
    with pytest.raises(ValueError, match=message):
        Conv(patch=patch).decoder(2, shape)
