"""Encoders and decoders: shapes, and that a decoder gives back what its encoder took."""

from typing import Any

import pytest
import torch
from torch import nn

from autoencoders.networks import MLP, Attention, Conv, Linear, Network, Sum, UNet, ViT, mirrored

FAMILIES: dict[str, Network] = {
    "linear": Linear(),
    "mlp": MLP(hidden=[32, 16]),
    "conv": Conv(channels=[8, 16], hidden=[32], norm=False),
    "conv-plain": Conv(patch=1, channels=[4, 8, 16], hidden=[], linear_path=False, norm=False),
    "conv-deep": Conv(channels=[4, 8], hidden=[16], depth=2),
    "conv-norm": Conv(channels=[8], hidden=[16], linear_path=False),
    "vit": ViT(patch=4, width=8, depth=1, heads=2),
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


def test_attention_is_torch_s_own() -> None:
    ours, theirs = Attention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.read.weight, "in_proj_bias": ours.read.bias,
            "out_proj.weight": ours.given.weight, "out_proj.bias": ours.given.bias,
        }
    )  # fmt: skip
    places = torch.randn(3, 5, 8)
    torch.testing.assert_close(ours(places), theirs(places, places, places)[0])


def test_a_transformer_knows_its_places() -> None:
    """An image whose patches are exchanged has another code, and a decoder's patches land where they are."""
    network = ViT(patch=4, width=8, depth=1, heads=2)
    encoder, decoder = network.encoder((1, 8, 8), 3), network.decoder(3, (1, 8, 8))
    image = torch.rand(1, 1, 8, 8)
    assert not torch.allclose(encoder(image), encoder(image.roll(4, 3)), atol=1e-4)
    patches: list[torch.Tensor] = []
    assert isinstance(decoder, nn.Sequential)
    norm = next(layer for layer in reversed(decoder) if isinstance(layer, nn.LayerNorm))
    norm.register_forward_hook(lambda _, __, output: patches.append(output))
    made = decoder(torch.randn(2, 3))
    pixels = next(layer for layer in decoder[-4:] if isinstance(layer, nn.Linear))(patches[0])
    torch.testing.assert_close(made[:, 0, :4, 4:], pixels[:, 1].view(2, 4, 4))
    torch.testing.assert_close(made[:, 0, 4:, :4], pixels[:, 2].view(2, 4, 4))


def test_linear_path_is_added_to_the_network() -> None:
    network = MLP(hidden=[32, 16], linear_path=True).encoder((1, 4, 4), 3)
    images = torch.rand(2, 1, 4, 4)
    assert isinstance(network, Sum)
    body, path = network.branches
    torch.testing.assert_close(network(images), body(images) + path(images))
    assert sum(isinstance(layer, nn.Linear) for layer in path.modules()) == 1


def test_the_activation_is_chosen() -> None:
    network = MLP(hidden=[8, 4], activation="tanh")
    for half in (network.encoder((1, 4, 4), 3), network.decoder(3, (1, 4, 4))):
        kinds = [type(part) for part in half.modules()]
        assert (kinds.count(nn.Linear), kinds.count(nn.Tanh), kinds.count(nn.SiLU)) == (3, 2, 0)


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
        (MLP, {"activation": "ReLU"}, "activation=ReLU must be silu or relu or gelu or tanh or sigmoid"),
        (UNet, {"patch": 0}, "patch=0 must be ≥ 1 and ≤ 32"),
        (UNet, {"widths": []}, r"widths=\[\] must have at least one number"),
        (UNet, {"widths": [32, 0]}, r"widths\[1\]=0 must be ≥ 1 and ≤ 65536"),
        (UNet, {"depth": 0}, "depth=0 must be ≥ 1 and ≤ 100"),
        (ViT, {"width": 10, "heads": 4}, "heads=4 must divide width=10"),
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


# ---- a U-Net, which has no code ----------------------------------------------------------------------------


def unet(channels: tuple[int, int] = (1, 1), **options: Any) -> nn.Module:
    """Of two levels, whose last layer is not zero any more."""
    torch.manual_seed(0)
    shapes = ((count, 8, 8) for count in channels)
    network = UNet(**{"widths": [4, 6], **options}).restorer(*shapes)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2)
    return network.eval()


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (1, 1), (2, 3), (13, 40), (5, 64)], ids=str)
@pytest.mark.parametrize("channels", [(1, 1), (3, 3), (1, 3)], ids=str)
def test_a_unet_takes_any_size_and_gives_it_back(channels: tuple[int, int], size: tuple[int, int]) -> None:
    images = torch.rand(2, channels[0], *size)
    assert unet(channels)(images).shape == (2, channels[1], *size)


def test_a_new_unet_changes_nothing() -> None:
    gray = torch.rand(2, 1, 9, 12)
    assert torch.equal(UNet().restorer((1, 9, 12), (1, 9, 12))(gray), gray)
    assert torch.equal(UNet().restorer((1, 9, 12), (3, 9, 12))(gray), gray.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("patch", [1, 2])
def test_a_unet_moves_with_the_image(patch: int) -> None:
    """... by multiples of patch · 2^levels, away from the borders, which it sees only from nearby."""
    network, step = unet(patch=patch), 2 * patch
    images = torch.rand(1, 1, 160, 160)
    moved = network(images.roll((3 * step, step), (-2, -1)))
    middle = (..., slice(64, 96), slice(64, 96))
    torch.testing.assert_close(moved[middle], network(images).roll((3 * step, step), (-2, -1))[middle])
    assert not torch.allclose(moved[middle], network(images)[middle], atol=1e-2)


def test_an_image_is_restored_alike_alone_and_among_others() -> None:
    images = torch.rand(3, 1, 10, 14)
    network = unet()
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def test_edges_are_continued_as_in_mirrors() -> None:
    line = torch.arange(3.0).view(1, 1, 1, 3)
    assert mirrored(line, -1, 8).flatten().tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert mirrored(line, -2, 2).shape == (1, 1, 2, 3)
    assert mirrored(line, -1, 3) is line


def test_a_unet_makes_no_gray_image_of_a_coloured_one() -> None:
    with pytest.raises(ValueError, match="UNet makes no image of 1 channels of one of 3"):
        UNet().restorer((3, 8, 8), (1, 8, 8))
