"""Pure functions of codes that are made of symbols: one of K vectors, or of a grid's points, at each place.

Vectors have their numbers last, (..., D), so that what stands before may be images and places of any shape.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def straight_through(value: Tensor, quantised: Tensor) -> Tensor:
    """`quantised`, with the gradient of `value` (Bengio et al. 2013); both of one shape."""
    return value + (quantised - value).detach()


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Which of (K, D) is nearest to each of (..., D): (...) int64."""
    device = vectors.device.type
    if torch.is_autocast_enabled(device):  # bfloat16 would take another one
        with torch.autocast(device, enabled=False):
            return nearest(vectors.float(), codebook.float())
    return (codebook.square().sum(1) - 2 * vectors @ codebook.T).argmin(-1)


def residual_symbols(vectors: Tensor, codebooks: Tensor) -> Tensor:
    """Which of each level of (L, K, D) is nearest to what the levels before have left of (..., D): (..., L)
    int64 (Zeghidour et al. 2021, algorithm 1)."""
    chosen, rest = [], vectors
    for codebook in codebooks:
        chosen.append(nearest(rest, codebook))
        rest = rest - codebook[chosen[-1]]
    return torch.stack(chosen, -1)


def looked_up(symbols: Tensor, codebooks: Tensor) -> Tensor:
    """The sums (..., D) of what (..., L) name in (L, K, D)."""
    vectors = codebooks[0][symbols[..., 0]]
    for level in range(1, len(codebooks)):
        vectors = vectors + codebooks[level][symbols[..., level]]
    return vectors


def bounded(numbers: Tensor, levels: Tensor) -> Tensor:
    """(..., D) between the lowest and the highest whole number of each of (D,) levels: −2..2 of 5, −4..3 of 8
    (Mentzer et al. 2024, appendix A.1, with the shift that leaves 0 where it is)."""
    half = (levels - 1) * (1 + 1e-3) / 2
    offset = (levels % 2 == 0) * 0.5
    return (numbers + (offset / half).atanh()).tanh() * half - offset


def grid_symbols(numbers: Tensor, levels: Tensor) -> Tensor:
    """The number (...) int64 of each point (..., D) of whole numbers of the grid, 0 to Π levels − 1."""
    return ((numbers + levels // 2) * _steps(levels)).sum(-1).round().long()


def grid_points(symbols: Tensor, levels: Tensor) -> Tensor:
    """The points (..., D) that symbols (...) name: the inverse of `grid_symbols`."""
    return (symbols[..., None] // _steps(levels)) % levels - levels // 2


def _steps(levels: Tensor) -> Tensor:
    """By how much a symbol grows with each number of its point, (D,)."""
    return levels.cumprod(0) // levels


def symbol_counts(symbols: Tensor, size: int) -> Tensor:
    """How often each of `size` symbols is taken in (N, S, ...), for each of S: (S, size) float32."""
    kinds = torch.arange(symbols.shape[1], device=symbols.device)
    flat = symbols.flatten(2) if symbols.ndim > 2 else symbols[..., None]
    places = (flat + size * kinds[:, None]).flatten()
    return torch.bincount(places, minlength=size * len(kinds)).view(-1, size).float()


def perplexity(counts: Tensor) -> Tensor:
    """exp(entropy) of the use of symbols that were counted (S, K), which is K where it is uniform and 1 where
    there is a single one; the mean over S, ()."""
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(1).exp().mean()


def usage(counts: Tensor) -> Tensor:
    """The share of the symbols that were taken at all, of (S, K), ()."""
    return (counts > 0).float().mean()


def use_of(symbols: Tensor, size: int) -> dict[str, Tensor]:
    """The monitors of a model's symbols (N, S, ...): perplexity and usage, () each."""
    counts = symbol_counts(symbols, size)
    return {"perplexity": perplexity(counts), "usage": usage(counts)}


def bits(shape: Sequence[int], size: int) -> float:
    """Of a code of symbols of a shape, each one of `size`."""
    return math.prod(shape) * math.log2(size)
