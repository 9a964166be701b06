"""Learning-rate schedules that torch does not have."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from autoencoders import checks


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.3) -> LambdaLR:
    """A linear rise to the optimizer's learning rate over the first `warmup` of all steps, then half a cosine
    down to nothing (after Smith & Topin 2018); stepped by the batch.

    Raises:
        ValueError: `warmup` is not in (0, 1).
    """
    checks.number("warmup", warmup, above=0, below=1)
    return LambdaLR(optimizer, lambda step: warmup_cosine_factor(step, total_steps, warmup))


def warmup_cosine_factor(step: int, total_steps: int, warmup: float) -> float:
    """The fraction of the highest learning rate at a step."""
    rise = max(1.0, warmup * total_steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    fallen = (step - rise) / max(1.0, total_steps - rise)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))
