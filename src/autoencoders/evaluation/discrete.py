"""Codes that are made of symbols: how many of the symbols are used, and codes drawn of them."""

import math
from typing import Protocol, cast

import torch
from torch import Tensor

from autoencoders import quantisation
from autoencoders.evaluation import prior
from autoencoders.evaluation.subject import Scores, Subject
from autoencoders.randomness import Randomness

LONGEST = 1024  # symbols a code of which a prior is learnt: beyond, drawing them takes minutes


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


@torch.inference_mode()
def prior_codes(subject: Subject, count: int) -> dict[str, Tensor]:
    """Codes (count, code_dim) by the name of what their symbols are drawn from."""
    model = cast(Discrete, subject.model)
    noise = Randomness(0, rows=count)
    uniform = (noise.uniform(count, *model.symbols_shape) * model.codebook_size).long()
    drawn = {"uniform codes": uniform}
    if math.prod(model.symbols_shape) <= LONGEST:
        batches = subject.batches(subject.labelled, "encoding")
        known = torch.cat([model.symbols(batch.corrupted).cpu() for batch in batches])
        with torch.inference_mode(False):
            learnt = prior.learnt(known.clone(), model.codebook_size)
        drawn["learnt prior"] = learnt.sample(count, torch.Generator().manual_seed(0))
    return {
        name: model.code_of(symbols.to(subject.model.device)).flatten(1) for name, symbols in drawn.items()
    }
