"""Faults at chosen moments of a run, for the processes that tests start: tiny.py plays that of TINY_FAULT."""

import os
import resource
import signal
from collections.abc import Callable
from typing import Any


def play(fault: str) -> None:
    """ "<what> <where> <at which call of it>", as "kill step 7"."""
    what, where, count = fault.split()
    before(where, int(count), {"kill": kill, "full": no_room}[what])


def before(where: str, count: int, act: Callable[[], None]) -> None:
    """Acts when it is called for the `count`-th time."""
    from autoencoders import training
    from autoencoders.checkpoints import BestCheckpoint, LastCheckpoint
    from autoencoders.models import BaseAutoencoder

    owner, name = {
        "step": (BaseAutoencoder, "training_step"),
        "validation": (BaseAutoencoder, "validation_step"),
        "epoch's_edge": (BestCheckpoint, "on_validation_end"),
        "save": (LastCheckpoint, "save"),
        "write": (os, "fsync"),
        "test": (training, "report"),
    }[where]
    original, calls = getattr(owner, name), 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            act()
        return original(*arguments, **named)

    setattr(owner, name, counted)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_room() -> None:
    """As a full disk: no file grows beyond 10 kB any more."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
