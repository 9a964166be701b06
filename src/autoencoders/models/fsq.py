"""The autoencoder whose code is rounded."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.models.base import BaseAutoencoder, Coded, code_places
from autoencoders.networks import Network, ResNet, Shape
from autoencoders.quantisation import bits, bounded, grid_points, grid_symbols, straight_through, use_of
from autoencoders.randomness import Randomness


class FSQ(BaseAutoencoder):
    """Each number of the code is bounded and rounded to one of a few levels, so that every len(levels)
    numbers are one of Π levels symbols without any codebook to learn: finite scalar quantisation (Mentzer et
    al. 2024).

    Args:
        network: `networks.ResNet()` if None.
        code_dim: numbers in the code, a multiple of len(levels) · h · w: how many symbols there are at each
            place, of which there is one if None.
        levels: how many values each number of a symbol has, 2..65536, and all of them 65536 together; the
            paper advises 5 or more.
        **base: as for `BaseAutoencoder`.
    """

    couples_batch = True  # in what it monitors
    evaluations = ("codebook",)
    levels: Tensor  # (D,) int64

    def __init__(
        self,
        network: Network | None = None,
        input_shape: Shape = (1, 28, 28),
        code_dim: int | None = None,
        levels: Sequence[int] = (8, 5, 5, 5),
        **base: Any,
    ) -> None:
        network = network or ResNet()
        checks.integers("levels", levels, at_least=2, at_most=65536)
        if not 2 <= math.prod(levels) <= 65536:
            raise ValueError(f"levels={list(levels)} must make 2 to 65536 symbols, not {math.prod(levels)}")
        if code_dim is None:
            code_dim = len(levels) * code_places(network, input_shape)
        super().__init__(network=network, input_shape=input_shape, code_dim=code_dim, **base)
        width, *places = self.code_shape
        if width % len(levels):
            raise ValueError(
                f"code_dim={code_dim} must be a multiple of {len(levels) * math.prod(places)}: "
                f"{len(levels)} levels at each of {math.prod(places)} places"
            )
        self.codebook_size = math.prod(levels)
        self.symbols_shape = (width // len(levels), *places)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    @property
    def code_bits(self) -> float:
        """Of its symbols."""
        return bits(self.symbols_shape, self.codebook_size)

    def bounded_code(self, corrupted: Tensor) -> Tensor:
        """What is rounded: (B, *places, S, D), symbols and their numbers last."""
        code = super().encode(corrupted).float().movedim(1, -1)
        return bounded(code.unflatten(-1, (-1, len(self.levels))), self.levels)

    def encode(self, corrupted: Tensor) -> Tensor:
        """Images (B, C, H, W) to the rounded codes (B, *code_shape), which the decoder reads."""
        return self._as_code(self.bounded_code(corrupted).round())

    def symbols(self, corrupted: Tensor) -> Tensor:
        """Images (B, C, H, W) to symbols (B, *symbols_shape) in 0..codebook_size − 1."""
        return grid_symbols(self.bounded_code(corrupted).round(), self.levels).movedim(-1, 1)

    def code_of(self, symbols: Tensor) -> Tensor:
        """The codes (B, *code_shape) of symbols (B, *symbols_shape)."""
        return self._as_code(grid_points(symbols.movedim(1, -1), self.levels).float())

    def _as_code(self, points: Tensor) -> Tensor:
        """Whole numbers (B, *places, S, D) as the decoder reads them: (B, *code_shape), in [−1, 1]."""
        return (points / (self.levels // 2)).flatten(-2).movedim(-1, 1)

    def coded(self, batch: Batch) -> Coded:
        """The rounded code with the gradient of the bounded one, and how many of the symbols are used."""
        numbers = self.bounded_code(batch.corrupted)
        rounded = numbers.round()
        symbols = self.gathered(grid_symbols(rounded, self.levels).movedim(-1, 1).float()).long()
        code = self._as_code(straight_through(numbers, rounded))
        return Coded(code, monitors=use_of(symbols, self.codebook_size))

    def prior_codes(self, count: int, seed: int) -> Tensor:
        """Of uniform symbols."""
        noise = Randomness(seed, rows=count, device=self.device)
        uniform = noise.uniform(count, *self.symbols_shape)
        return self.code_of((uniform * self.codebook_size).long())
