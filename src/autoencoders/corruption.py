"""C(x̃|x): what destroys an image before the encoder sees it.

A corruption maps clean images (B, C, H, W) in [0, 1] to corrupted ones of the same shape. It draws its
randomness from the `Noise` that it is given and from nothing else, so the same noise gives the same x̃.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv


class Noise:
    """The random numbers of one batch, the same whatever the number of devices.

    Every process draws the numbers of the whole global batch, of `rows` images, from a generator seeded
    with `key` (the run's seed, the step, ...), keeping those of its own images: rank, rank + world_size, ...
    """

    def __init__(
        self, *key: int, rows: int, device: torch.device | str = "cpu", rank: int = 0, world_size: int = 1
    ) -> None:
        self.key, self.device = key, device
        self.rows, self.rank, self.world_size = rows, rank, world_size

    @cached_property
    def generator(self) -> torch.Generator:
        """Made when the first number is drawn: many a batch needs none."""
        # SeedSequence mixes the key, so that (seed 0, step 1) and (seed 1, step 0) share nothing.
        seed = int(np.random.SeedSequence(self.key).generate_state(1, np.uint64)[0])
        return torch.Generator(self.device).manual_seed(seed)

    def normal(self, count: int, *shape: int) -> Tensor:
        """Standard normal numbers (count, *shape)."""
        return self._draw(torch.randn, count, shape)

    def uniform(self, count: int, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) (count, *shape)."""
        return self._draw(torch.rand, count, shape)

    def _draw(self, draw: Callable[..., Tensor], count: int, shape: tuple[int, ...]) -> Tensor:
        drawn = draw((self.rows, *shape), generator=self.generator, device=self.device)
        return drawn[self.rank :: self.world_size][:count]


class Corruption(Protocol):
    def __call__(self, clean: Tensor, noise: Noise) -> Tensor: ...


@dataclass(frozen=True)
class Identity:
    """x̃ = x."""

    def __call__(self, clean: Tensor, noise: Noise) -> Tensor:
        return clean


@dataclass(frozen=True)
class Gaussian:
    """Additive Gaussian noise N(mean, std²); the lecture's is N(0.5, 0.5²), clipped to [0, 1]."""

    mean: float
    std: float
    clip: bool

    def __call__(self, clean: Tensor, noise: Noise) -> Tensor:
        corrupted = noise.normal(*clean.shape).mul_(self.std).add_(self.mean).add_(clean)
        return corrupted.clamp_(0, 1) if self.clip else corrupted


@dataclass(frozen=True)
class Speckle:
    """Multiplicative noise, as of radar and ultrasound: x̃ = x (1 + N(0, std²)), clipped to [0, 1]."""

    std: float

    def __call__(self, clean: Tensor, noise: Noise) -> Tensor:
        return noise.normal(*clean.shape).mul_(self.std).add_(1).mul_(clean).clamp_(0, 1)


@dataclass(frozen=True)
class SaltPepper:
    """A fraction of the pixels turns black or white, with equal chance (Vincent et al. 2010, §4.3)."""

    fraction: float

    def __call__(self, clean: Tensor, noise: Noise) -> Tensor:
        count, _, height, width = clean.shape
        u = noise.uniform(count, 1, height, width)  # one draw a pixel: all its channels change together
        salt = (u < self.fraction / 2).to(clean.dtype)
        return torch.where(u < self.fraction, salt, clean)


@dataclass(frozen=True)
class Masking:
    """A fraction of the pixels is hidden behind the value `fill` (Vincent et al. 2010, §4.3)."""

    fraction: float
    fill: float

    def __call__(self, clean: Tensor, noise: Noise) -> Tensor:
        count, _, height, width = clean.shape
        return clean.masked_fill(noise.uniform(count, 1, height, width) < self.fraction, self.fill)


@dataclass(frozen=True)
class Patches:
    """A fraction of the squares of a grid, `size` pixels a side, is hidden behind the value `fill`."""

    fraction: float
    size: int
    fill: float

    def __call__(self, clean: Tensor, noise: Noise) -> Tensor:
        count, _, height, width = clean.shape
        rows, columns = -(-height // self.size), -(-width // self.size)
        order = noise.uniform(count, rows * columns).argsort(dim=1).argsort(dim=1)  # a random rank each
        hidden = (order < round(self.fraction * rows * columns)).view(count, 1, rows, columns)
        mask = hidden.repeat_interleave(self.size, 2).repeat_interleave(self.size, 3)
        return clean.masked_fill(mask[..., :height, :width], self.fill)


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of standard deviation `sigma` pixels; the edge is reflected."""

    sigma: float

    def __call__(self, clean: Tensor, noise: Noise) -> Tensor:
        radius = min(max(1, round(3 * self.sigma)), min(clean.shape[-2:]) - 1)
        return tv.gaussian_blur(clean, [2 * radius + 1, 2 * radius + 1], [self.sigma, self.sigma])


@dataclass(frozen=True)
class Grayscale:
    """The colour is dropped: every channel becomes the luma (ITU-R BT.601). A gray image stays as it is."""

    def __call__(self, clean: Tensor, noise: Noise) -> Tensor:
        return tv.rgb_to_grayscale(clean, num_output_channels=3) if clean.shape[1] == 3 else clean


@dataclass(frozen=True)
class Compose:
    """Several corruptions, one after the other, in the order of their names' appearance."""

    steps: Mapping[str, Corruption]

    def __call__(self, clean: Tensor, noise: Noise) -> Tensor:
        for corruption in self.steps.values():
            clean = corruption(clean, noise)
        return clean
