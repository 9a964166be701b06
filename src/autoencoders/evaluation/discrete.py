"""Codes that are made of symbols: how many of the symbols are used."""

from typing import Protocol, cast

import torch
from torch import Tensor

from autoencoders import quantisation
from autoencoders.evaluation.subject import Scores, Subject


class Discrete(Protocol):
    """What a model has whose `evaluations` name "codebook"."""

    codebook_size: int
    symbols_shape: tuple[int, ...]  # (S, *places)

    def symbols(self, corrupted: Tensor) -> Tensor:
        """Images (B, C, H, W) to symbols (B, *symbols_shape) in 0..codebook_size − 1."""
        ...

    def code_of(self, symbols: Tensor) -> Tensor:
        """The codes (B, *code_shape) of symbols (B, *symbols_shape)."""
        ...


@torch.inference_mode()
def codebook(subject: Subject) -> Scores:
    """Of all places of all test images: `size` is how many symbols there are, `perplexity` the exponential of
    the entropy of their use, which is the size for uniform use, and `usage` the share of them that is used at
    all; with several symbols at a place, such as the levels of residual quantisation, the mean over these."""
    model = cast(Discrete, subject.model)
    counts = torch.zeros(model.symbols_shape[0], model.codebook_size)
    for batch in subject.batches(subject.data.test, "codebook"):
        symbols = model.symbols(batch.corrupted)
        counts += quantisation.symbol_counts(symbols, model.codebook_size).cpu()
    return {
        "model": {
            "size": model.codebook_size,
            "perplexity": float(quantisation.perplexity(counts)),
            "usage": float(quantisation.usage(counts)),
        }
    }
