"""C(x̃|x): what destroys an image before the encoder sees it.

A corruption maps clean images (B, C, H, W) in [0, 1] to corrupted ones of the same shape. It draws its random
numbers from the `Randomness` that it is given and from nothing else, so the same key gives the same x̃. Any
callable (clean, randomness) → corrupted is one: a function, an object with `__call__`, an `nn.Module`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from autoencoders import checks
from autoencoders.randomness import Randomness


class Corruption(Protocol):
    """Clean images (B, C, H, W), in [0, 1], to corrupted ones of the same shape; leaves `clean` unchanged."""

    def __call__(self, clean: Tensor, randomness: Randomness, /) -> Tensor: ...


@dataclass(frozen=True)
class Identity:
    """x̃ = x."""

    def __call__(self, clean: Tensor, randomness: Randomness) -> Tensor:
        return clean


@dataclass(frozen=True)
class Gaussian:
    """Additive Gaussian noise N(mean, std²), in units of a pixel's range; the default is the lecture's.

    Args:
        mean: -1e6 to 1e6.
        std: 0 to 1e6.
        clip: whether x̃ is clipped to [0, 1].
    """

    mean: float = 0.5
    std: float = 0.5
    clip: bool = True

    def __post_init__(self) -> None:
        checks.number("mean", self.mean, -1e6, 1e6)
        checks.number("std", self.std, 0, 1e6)
        checks.boolean("clip", self.clip)

    def __call__(self, clean: Tensor, randomness: Randomness) -> Tensor:
        corrupted = randomness.normal(*clean.shape).mul_(self.std).add_(self.mean).add_(clean)
        return corrupted.clamp_(0, 1) if self.clip else corrupted


@dataclass(frozen=True)
class Speckle:
    """Multiplicative noise, as in radar and ultrasound images: x̃ = x (1 + N(0, std²)), clipped to [0, 1].

    Args:
        std: 0 to 1e6.
    """

    std: float = 0.5

    def __post_init__(self) -> None:
        checks.number("std", self.std, 0, 1e6)

    def __call__(self, clean: Tensor, randomness: Randomness) -> Tensor:
        return randomness.normal(*clean.shape).mul_(self.std).add_(1).mul_(clean).clamp_(0, 1)


@dataclass(frozen=True)
class SaltPepper:
    """A fraction of the pixels turns black or white, with equal probability (Vincent et al. 2010, §4.3).

    Args:
        fraction: 0 to 1.
    """

    fraction: float = 0.25

    def __post_init__(self) -> None:
        checks.number("fraction", self.fraction, 0, 1)

    def __call__(self, clean: Tensor, randomness: Randomness) -> Tensor:
        count, _, height, width = clean.shape
        u = randomness.uniform(count, 1, height, width)  # one draw a pixel: all its channels change together
        salt = (u < self.fraction / 2).to(clean.dtype)
        return torch.where(u < self.fraction, salt, clean)


@dataclass(frozen=True)
class Masking:
    """A fraction of the pixels is hidden behind the value `fill` (Vincent et al. 2010, §4.3).

    Args:
        fraction: 0 to 1.
        fill: -1e6 to 1e6; -1 can be told from every pixel of an image.
    """

    fraction: float = 0.5
    fill: float = 0.0

    def __post_init__(self) -> None:
        checks.number("fraction", self.fraction, 0, 1)
        checks.number("fill", self.fill, -1e6, 1e6)

    def __call__(self, clean: Tensor, randomness: Randomness) -> Tensor:
        count, _, height, width = clean.shape
        return clean.masked_fill(randomness.uniform(count, 1, height, width) < self.fraction, self.fill)


@dataclass(frozen=True)
class Patches:
    """A fraction of the squares of a grid is hidden behind the value `fill`, as in masked autoencoders.

    Args:
        fraction: 0 to 1, of the squares, rounded to whole ones.
        size: pixels a side, 1 to 32.
        fill: -1e6 to 1e6.
    """

    fraction: float = 0.5
    size: int = 4
    fill: float = 0.0

    def __post_init__(self) -> None:
        checks.number("fraction", self.fraction, 0, 1)
        checks.integer("size", self.size, 1, 32)
        checks.number("fill", self.fill, -1e6, 1e6)

    def __call__(self, clean: Tensor, randomness: Randomness) -> Tensor:
        count, _, height, width = clean.shape
        rows, columns = -(-height // self.size), -(-width // self.size)
        order = randomness.uniform(count, rows * columns).argsort(dim=1).argsort(dim=1)  # a random rank each
        hidden = (order < round(self.fraction * rows * columns)).view(count, 1, rows, columns)
        mask = hidden.repeat_interleave(self.size, 2).repeat_interleave(self.size, 3)
        return clean.masked_fill(mask[..., :height, :width], self.fill)


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur, reflected at the edges.

    Args:
        sigma: standard deviation in pixels, above 0 and at most 100.
    """

    sigma: float = 1.5

    def __post_init__(self) -> None:
        checks.number("sigma", self.sigma, at_most=100, above=0)

    def __call__(self, clean: Tensor, randomness: Randomness) -> Tensor:
        radius = min(max(1, round(3 * self.sigma)), min(clean.shape[-2:]) - 1)
        return tv.gaussian_blur(clean, [2 * radius + 1, 2 * radius + 1], [self.sigma, self.sigma])


@dataclass(frozen=True)
class Grayscale:
    """Drops the colour: every channel becomes the luma (ITU-R BT.601). A gray image stays as it is."""

    def __call__(self, clean: Tensor, randomness: Randomness) -> Tensor:
        return tv.rgb_to_grayscale(clean, num_output_channels=3) if clean.shape[1] == 3 else clean


def _out_of_focus() -> dict[str, Corruption]:
    return {"blur": Blur(), "gaussian": Gaussian(0.0, 0.2)}


@dataclass(frozen=True)
class Compose:
    """Several corruptions, applied in order.

    Args:
        steps: the corruptions by name; the default is a photograph out of focus, taken by a noisy sensor.
    """

    steps: Mapping[str, Corruption] = field(default_factory=_out_of_focus)

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Mapping):
            raise ValueError(f"steps={self.steps} must be a mapping of corruptions")
        for name, corruption in self.steps.items():
            if not callable(corruption):
                raise ValueError(f"steps.{name}={corruption} must be a corruption")

    def __call__(self, clean: Tensor, randomness: Randomness) -> Tensor:
        for corruption in self.steps.values():
            clean = corruption(clean, randomness)
        return clean
