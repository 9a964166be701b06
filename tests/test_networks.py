"""Encoders and decoders: shapes, and that a decoder gives back what its encoder took."""

from typing import Any

import pytest
import torch
from torch import nn

from autoencoders import networks
from autoencoders.errors import UserError

FAMILIES: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear"},
    "mlp": {"name": "mlp", "hidden": [32, 16]},
    "conv": {"name": "conv", "patch": 2, "channels": [8, 16], "hidden": [32], "linear_path": True},
    "conv-plain": {"name": "conv", "patch": 1, "channels": [4, 8, 16], "hidden": []},
    "conv-norm": {"name": "conv", "patch": 2, "channels": [8], "hidden": [16], "norm": True},
    "conv-one": {"name": "conv", "patch": 4, "channels": [8], "hidden": [16]},
}


@pytest.mark.parametrize("network", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 20, 20)], ids=str)
@pytest.mark.parametrize("code_dim", [1, 7])
def test_image_to_code_to_image(network: dict[str, Any], shape: tuple[int, ...], code_dim: int) -> None:
    images = torch.rand(3, *shape)
    code = networks.encoder(network, shape, code_dim)(images)
    assert code.shape == (3, code_dim)
    assert networks.decoder(network, code_dim, shape)(code).shape == images.shape


def test_linear_is_affine() -> None:
    encoder = networks.encoder({"name": "linear"}, (1, 4, 4), 3)
    a, b = torch.rand(2, 1, 1, 4, 4)
    torch.testing.assert_close(encoder((a + b) / 2), (encoder(a) + encoder(b)) / 2)


def test_linear_path_is_added_to_the_network() -> None:
    network = networks.encoder({**FAMILIES["mlp"], "linear_path": True}, (1, 4, 4), 3)
    images = torch.rand(2, 1, 4, 4)
    assert isinstance(network, networks.Sum)
    body, path = network.branches
    torch.testing.assert_close(network(images), body(images) + path(images))
    assert sum(isinstance(layer, nn.Linear) for layer in path.modules()) == 1


def test_a_normalised_layer_does_not_see_its_input_s_scale() -> None:
    """What comes after a hidden layer is the same for an image and, without a bias, its multiple."""
    network = networks.encoder({"name": "mlp", "hidden": [8], "norm": True}, (1, 4, 4), 3)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Linear))
    nn.init.zeros_(first.bias)
    images = torch.rand(2, 1, 4, 4) + 1
    torch.testing.assert_close(network(images), network(3 * images), atol=1e-3, rtol=1e-3)


def test_sizes_that_do_not_fit_are_said() -> None:
    with pytest.raises(UserError, match=r"network\.patch=3"):
        networks.encoder({**FAMILIES["conv"], "patch": 3}, (1, 28, 28), 2)
    with pytest.raises(UserError, match="did you mean 'conv'"):
        networks.encoder({"name": "cnov"}, (1, 28, 28), 2)
