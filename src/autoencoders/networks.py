"""Encoders and decoders, sized by plain numbers: linear, mlp, conv.

`encoder` maps images (B, C, H, W) to features (B, F); `decoder` maps codes (B, D) to images (B, C, H, W),
without a squashing function at the end: a likelihood makes pixels of it. A decoder mirrors its encoder.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from autoencoders.errors import UserError, near

Shape = Sequence[int]  # (C, H, W)


def encoder(network: Mapping[str, Any], shape: Shape, features: int) -> nn.Module:
    """The encoder of a family, e.g. `{"name": "mlp", "hidden": [512, 128]}`, for images of `shape`.

    With `linear_path: true` an affine map is added to the network's output, so that the network has only to
    learn what PCA can't. With `norm: true` every layer but the last is normalised (Ba et al. 2016).
    """
    name, linear_path, sizes = _split(network)
    body = ENCODERS[name](shape, features, **sizes)
    return Sum(body, _linear_encoder(shape, features)) if linear_path else body


def decoder(network: Mapping[str, Any], code_dim: int, shape: Shape) -> nn.Module:
    """The decoder of a family, for images of `shape`; `linear_path` as for the encoder."""
    name, linear_path, sizes = _split(network)
    body = DECODERS[name](code_dim, shape, **sizes)
    return Sum(body, _linear_decoder(code_dim, shape)) if linear_path else body


class Sum(nn.Module):
    """The sum of what several networks make of the same input."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return reduce(torch.add, (branch(x) for branch in self.branches))


def _split(network: Mapping[str, Any]) -> tuple[str, bool, dict[str, Any]]:
    sizes = dict(network)
    name, linear_path = sizes.pop("name"), sizes.pop("linear_path", False)
    if name not in ENCODERS:
        raise UserError(f"no network={name}: {near(name, ENCODERS)}")
    return name, linear_path, sizes


def _linear_encoder(shape: Shape, features: int) -> nn.Sequential:
    return _mlp_encoder(shape, features, hidden=())


def _linear_decoder(code_dim: int, shape: Shape) -> nn.Sequential:
    return _mlp_decoder(code_dim, shape, hidden=())


def _mlp_encoder(shape: Shape, features: int, hidden: Sequence[int], norm: bool = False) -> nn.Sequential:
    channels, height, width = shape
    return nn.Sequential(nn.Flatten(), *_layers([channels * height * width, *hidden, features], norm))


def _mlp_decoder(code_dim: int, shape: Shape, hidden: Sequence[int], norm: bool = False) -> nn.Sequential:
    channels, height, width = shape
    layers = _layers([code_dim, *reversed(hidden), channels * height * width], norm)
    return nn.Sequential(*layers, nn.Unflatten(1, tuple(shape)))


def _conv_encoder(
    shape: Shape,
    features: int,
    patch: int,
    channels: Sequence[int],
    hidden: Sequence[int],
    norm: bool = False,
) -> nn.Sequential:
    """Patches of `patch` x `patch` pixels become channels, which makes the first layer, the dearest one on
    a full-size image, cheap. Then each convolution halves the side; fully connected layers end in the code.
    """
    widths, sides = _conv_sizes(shape, patch, channels)
    layers: list[nn.Module] = [nn.PixelUnshuffle(patch)]
    for (before, after), side in zip(pairwise(widths), sides, strict=False):
        layers += [nn.Conv2d(before, after, _kernel(side), stride=2, padding=1), *_activation(after, norm)]
    flat = widths[-1] * sides[-1] ** 2
    return nn.Sequential(*layers, nn.Flatten(), *_layers([flat, *hidden, features], norm))


def _conv_decoder(
    code_dim: int,
    shape: Shape,
    patch: int,
    channels: Sequence[int],
    hidden: Sequence[int],
    norm: bool = False,
) -> nn.Sequential:
    widths, sides = _conv_sizes(shape, patch, channels)
    flat = widths[-1] * sides[-1] ** 2
    layers: list[nn.Module] = [
        *_layers([code_dim, *reversed(hidden), flat], norm),
        nn.Unflatten(1, (widths[-1], sides[-1], sides[-1])),
    ]
    for (before, after), side in zip(pairwise(widths[::-1]), sides[-2::-1], strict=True):
        # No bias: with one oneDNN takes another algorithm for bfloat16, 5 times slower from 4 to 7 pixels.
        transposed = nn.ConvTranspose2d(before, after, _kernel(side), stride=2, padding=1, bias=False)
        layers += [*_activation(before, norm), transposed]
    return nn.Sequential(*layers, nn.PixelShuffle(patch))


def _conv_sizes(shape: Shape, patch: int, channels: Sequence[int]) -> tuple[list[int], list[int]]:
    """The channels and the sides of the images between the convolutions, from the image to the code."""
    depth, height, width = shape
    if height != width or height % patch:
        raise UserError(f"network=conv needs square images whose side divides by network.patch={patch}")
    sides = [height // patch]
    for _ in channels:
        sides.append((sides[-1] + 1) // 2)
    return [depth * patch**2, *channels], sides


def _kernel(side: int) -> int:
    """The kernel that halves `side` (rounded up) and whose transpose gives it back exactly, at padding 1."""
    return 4 - side % 2


def _layers(widths: Sequence[int], norm: bool) -> list[nn.Module]:
    """Fully connected layers with an activation between them, none after the last."""
    layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for before, after in pairwise(widths[1:]):
        layers += [*_activation(before, norm), nn.Linear(before, after)]
    return layers


def _activation(width: int, norm: bool) -> list[nn.Module]:
    """SiLU; after a normalisation over all numbers that the layer makes of an image, if wanted. (Over a batch
    instead, what becomes of an image would depend on the others, and on the number of devices.)"""
    return [nn.GroupNorm(1, width), nn.SiLU()] if norm else [nn.SiLU()]


ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "linear": _linear_encoder,
    "mlp": _mlp_encoder,
    "conv": _conv_encoder,
}
DECODERS: dict[str, Callable[..., nn.Module]] = {
    "linear": _linear_decoder,
    "mlp": _mlp_decoder,
    "conv": _conv_decoder,
}
