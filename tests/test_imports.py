"""Imports that the garbage collector keeps away from."""

import gc

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
