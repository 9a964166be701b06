"""Imports that the garbage collector keeps away from, and without what none of us needs."""

import gc
import subprocess
import sys

import pytest

from autoencoders.imports import importing


def test_what_is_imported_is_not_looked_at_again() -> None:
    gc.unfreeze()
    with importing():
        assert not gc.isenabled()
        made = [[number] for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(made)
    gc.unfreeze()


def test_a_failed_import_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()
    gc.unfreeze()


def test_scipy_signal_is_left_to_those_who_use_it() -> None:
    code = """
import sys
from autoencoders.imports import importing
with importing():
    from autoencoders import training
assert "torchmetrics" in sys.modules and "scipy.signal" not in sys.modules
import scipy.signal
assert scipy.signal.convolve([1, 1], [1, 1]).tolist() == [1, 2, 1]
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
