"""The autoencoder whose code is made of vectors of a learnt codebook."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.models.base import BaseAutoencoder, Coded, code_places
from autoencoders.networks import Network, ResNet, Shape
from autoencoders.quantisation import bits, looked_up, residual_symbols, straight_through, use_of
from autoencoders.randomness import Randomness

EMBEDDING_DIM = 64
# Of the mean use: below which a vector of the codebook is replaced, and what a new one begins with, so that
# at the usual decay it follows its images fast and has 70 steps to find any.
DEAD, NEW = 0.05, 0.1


class VQVAE(BaseAutoencoder):
    """At each place of the code stands the nearest vector of a codebook (van den Oord et al. 2017); with
    several levels, the sum of vectors of which each is the nearest to what those before have left (residual
    quantisation: Zeghidour et al. 2021, Lee et al. 2022).

    Vectors that are not in use any more are replaced by what the encoder makes of images of the batch, as all
    of them are at the first step. Statistics are those of the global batch.

    Args:
        network: `networks.ResNet()` if None.
        code_dim: numbers in the code, embedding_dim · h · w; what follows from embedding_dim if None.
        embedding_dim: D, of a vector. If None: what follows from code_dim, or 64.
        codebook_size: K, vectors of each level, 2..65536.
        levels: of residual quantisation, 1..64; 1 is none.
        commitment: β, what draws the encoder's output to its vector weighs, 0..1e6.
        codebook: how vectors are learnt: "ema", as moving averages of what is nearest to them (appendix A.1),
            or "loss", by a term of the loss (eq. 3).
        decay: of the moving averages, of use and of "ema", ≥ 0 and < 1.
        **base: as for `BaseAutoencoder`.
    """

    couples_batch = True
    evaluations = ("codebook",)
    counts: Tensor  # (L, K), a moving average of how often each vector is taken in a batch
    sums: Tensor  # (L, K, D), and of the sum of what takes it
    codebooks: Tensor  # (L, K, D)

    def __init__(
        self,
        network: Network | None = None,
        input_shape: Shape = (1, 28, 28),
        code_dim: int | None = None,
        embedding_dim: int | None = None,
        codebook_size: int = 512,
        levels: int = 1,
        commitment: float = 0.25,
        codebook: str = "ema",
        decay: float = 0.99,
        **base: Any,
    ) -> None:
        network = network or ResNet()
        checks.integer("codebook_size", codebook_size, at_least=2, at_most=65536)
        checks.integer("levels", levels, at_least=1, at_most=64)
        checks.number("commitment", commitment, at_least=0, at_most=10**6)
        checks.choice("codebook", codebook, ("ema", "loss"))
        checks.number("decay", decay, at_least=0, below=1)
        if embedding_dim is not None:
            checks.integer("embedding_dim", embedding_dim, at_least=1, at_most=65536)
        if code_dim is None:
            code_dim = (embedding_dim or EMBEDDING_DIM) * code_places(network, input_shape)
        super().__init__(network=network, input_shape=input_shape, code_dim=code_dim, **base)
        width, *places = self.code_shape
        if embedding_dim not in (None, width):
            raise ValueError(
                f"embedding_dim={embedding_dim} must be {width} with code_dim={code_dim}: set one of the two"
            )
        self.codebook_size, self.symbols_shape = codebook_size, (levels, *places)
        self.learnt_by_loss, self.decay = codebook == "loss", decay
        self.weights["commitment"] = commitment
        vectors = torch.randn(levels, codebook_size, width) / math.sqrt(width)
        if self.learnt_by_loss:
            self.codebooks = nn.Parameter(vectors)
        else:
            self.register_buffer("codebooks", vectors)
            self.register_buffer("sums", torch.zeros_like(vectors))
        self.register_buffer("counts", torch.zeros(levels, codebook_size))

    @property
    def code_bits(self) -> float:
        """Of its symbols."""
        return bits(self.symbols_shape, self.codebook_size)

    def continuous(self, corrupted: Tensor) -> Tensor:
        """What the encoder gives, before it is quantised, (B, *code_shape)."""
        return super().encode(corrupted).float()

    def encode(self, corrupted: Tensor) -> Tensor:
        """Images (B, C, H, W) to the quantised codes (B, *code_shape), which the decoder reads."""
        return self.code_of(self.symbols(corrupted))

    def symbols(self, corrupted: Tensor) -> Tensor:
        """Images (B, C, H, W) to symbols (B, *symbols_shape) in 0..codebook_size − 1."""
        return self._symbols_of(self.continuous(corrupted))

    def code_of(self, symbols: Tensor) -> Tensor:
        """The codes (B, *code_shape) of symbols (B, *symbols_shape)."""
        return looked_up(symbols.movedim(1, -1), self.codebooks).movedim(-1, 1)

    def _symbols_of(self, continuous: Tensor) -> Tensor:
        return residual_symbols(continuous.movedim(1, -1), self.codebooks.detach()).movedim(-1, 1)

    def coded(self, batch: Batch) -> Coded:
        """The quantised code with the gradient of the continuous one, the distance of both, and how much of
        the codebook is used."""
        continuous = self.continuous(batch.corrupted)
        if self.training:
            everyone = self.gathered(continuous.detach())
            self._replace_unused(everyone, batch.noise)
        symbols = self._symbols_of(continuous)
        every_symbol = self.gathered(symbols.float()).long()
        quantised = self.code_of(symbols)
        penalties = {"commitment": _distance(continuous, quantised.detach())}
        if self.learnt_by_loss:
            penalties["codebook"] = _distance(quantised, continuous.detach())
        if self.training:
            self._follow(everyone, every_symbol)
        return Coded(
            straight_through(continuous, quantised), penalties, use_of(every_symbol, self.codebook_size)
        )

    @torch.no_grad()
    def _replace_unused(self, continuous: Tensor, noise: Randomness) -> None:
        """Puts what the encoder gives for the batch, (N, *code_shape), in the place of unused vectors."""
        rest = continuous.movedim(1, -1).flatten(0, -2)  # (N h w, D)
        usual = len(rest) / self.codebook_size
        for level, (vectors, counts) in enumerate(zip(self.codebooks, self.counts, strict=True)):
            order = noise.permutation(len(rest))
            drawn = rest[order.repeat(math.ceil(self.codebook_size / len(rest)))[: self.codebook_size]]
            dead = counts < DEAD * usual
            vectors.copy_(torch.where(dead[:, None], drawn, vectors))
            counts.masked_fill_(dead, NEW * usual)
            if not self.learnt_by_loss:
                self.sums[level].copy_(torch.where(dead[:, None], NEW * usual * drawn, self.sums[level]))
            rest = rest - looked_up(residual_symbols(rest, vectors[None]), vectors[None])

    @torch.no_grad()
    def _follow(self, continuous: Tensor, symbols: Tensor) -> None:
        """Moves the averages towards a batch (N, *code_shape) with its symbols (N, *symbols_shape)."""
        rest = continuous.movedim(1, -1).flatten(0, -2)
        for level, chosen in enumerate(symbols.movedim(1, -1).flatten(0, -2).T):
            taken = rest
            rest = rest - self.codebooks[level][chosen]
            self.counts[level].lerp_(
                torch.bincount(chosen, minlength=self.codebook_size).to(self.counts), 1 - self.decay
            )
            if not self.learnt_by_loss:
                sums = torch.zeros_like(self.sums[level]).index_add_(0, chosen, taken)
                self.sums[level].lerp_(sums, 1 - self.decay)
                self.codebooks[level].copy_(self.sums[level] / self.counts[level][:, None])

    def prior_codes(self, count: int, seed: int) -> Tensor:
        """Of uniform symbols, the prior under which it is trained."""
        noise = Randomness(seed, rows=count, device=self.device)
        uniform = noise.uniform(count, *self.symbols_shape)
        return self.code_of((uniform * self.codebook_size).long())


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """The sum of squared differences of codes (B, ...), (B,)."""
    return (a - b).square().flatten(1).sum(1)
