"""Numbers as texts, and texts as numbers."""

import math
from typing import Any

Interval = tuple[float, float]  # of confidence


def number(text: Any) -> float | None:
    """The finite number that a text says; None where it says none."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def plus_minus(value: float, spread: float) -> str:
    """A number and how far it may be off, with as many digits as that leaves a meaning to.

    >>> plus_minus(0.25, 0.00124)
    '0.2500 ± 0.0012'
    """
    digits = max(0, 1 - math.floor(math.log10(spread))) if math.isfinite(spread) else 3
    return f"{value:.{digits}f} ± {spread:.{digits}f}"
