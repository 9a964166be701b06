"""Faster imports of torch, Lightning and torchmetrics."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def importing() -> Iterator[None]:
    """Imports torchmetrics (below), and keeps the garbage collector away from everything imported here.

    It would scan a million objects again and again, all of which stay: a fifth of the time that importing
    Lightning takes, and a second at the end of the process.
    """
    gc.disable()
    try:
        import_torchmetrics()
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_torchmetrics() -> None:
    """Imports torchmetrics before Lightning does, and without scipy.signal, which takes a fifth of the time:
    torchmetrics only checks whether it has a `hamming`, for a library that is not used here."""
    if "scipy.signal" in sys.modules:
        return
    sys.modules["scipy.signal"] = stand_in = ModuleType("scipy.signal")
    stand_in.hamming = None  # type: ignore[attr-defined]
    try:
        import torchmetrics  # noqa: F401
    finally:
        del sys.modules["scipy.signal"]
