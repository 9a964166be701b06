"""Processes that end together and cleanly: the ranks of a run, and the jobs of a sweep."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from autoencoders.errors import UserError, is_main_process

PARENT = "AUTOENCODERS_PARENT"  # the pid of the process that started this one, which must not outlive it
POLL_S = 0.3
GRACE_S = 10  # for a run to close its loggers
# The signals that ask a run to stop, and the exit codes they lead to.
INTERRUPTIONS = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR1: 75}


class Interrupted(SystemExit):
    """A run was asked to stop, and shut down cleanly."""


def end_with_parent() -> None:
    """Ends this process soon after its parent, however that died.

    It applies where the parent has called this too, as for a sweep's jobs and the ranks of a run, and to the
    ranks of torchrun.
    """
    parent = os.getppid()
    if os.environ.get(PARENT) == str(parent) or "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_outlive_no_one, args=(parent,), daemon=True).start()
    os.environ[PARENT] = str(os.getpid())


def _outlive_no_one(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    if is_main_process():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
    os._exit(1)


class Interruption:
    """Whether this process was asked to stop by Ctrl-C, SIGTERM or SIGUSR1. Asked again, it ends at once.

    While it is not `deferred`, being asked raises `Interrupted` wherever the process is.
    """

    def __init__(self, deferred: bool = True) -> None:
        self.received: int | None = None
        self.deferred = deferred

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(INTERRUPTIONS[signal.Signals(number)])
        self.received = number
        if not self.deferred:
            raise self.exit()

    def __bool__(self) -> bool:
        return self.received is not None

    def listen(self) -> None:
        """Handles these signals from now on; by default they would kill Python."""
        for number in INTERRUPTIONS:
            signal.signal(number, self)

    @contextmanager
    def listening(self) -> Iterator["Interruption"]:
        """Listens, and restores the previous handlers afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # signals are the main thread's
            return
        before = {number: signal.getsignal(number) for number in INTERRUPTIONS}
        self.listen()
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def exit(self) -> Interrupted:
        """The exception to raise. A rank that shuts down after another's signal reports nothing."""
        number = signal.Signals(self.received or signal.SIGTERM)
        return Interrupted(INTERRUPTIONS[number] if is_main_process() else 0)


class Ranks:
    """Watches the processes of the other ranks of this node, which Lightning starts from this one.

    When one dies, a rank that waits for it in a collective operation may wait forever; this process then ends
    the others and itself, unless it ends on its own. Lightning's own observer does so silently and at once;
    it is left with no processes to observe.
    """

    def __init__(self, launcher: Any) -> None:
        self.processes: list[subprocess.Popen[Any]] = []
        self.ending = False
        if hasattr(launcher, "procs"):
            threading.Thread(target=self._watch, args=(launcher,), daemon=True).start()

    def dead(self) -> str | None:
        """A description of the first rank that failed, if one has."""
        for rank, process in enumerate(self.processes, start=1):
            if process.poll():
                return f"the process of rank {rank} (pid {process.pid}) {how_it_ended(process.returncode)}"
        return None

    def explain(self, error: Exception) -> Exception:
        """The error to raise for `error`: the death of another rank if that caused it."""
        if not self.processes or isinstance(error, UserError):
            return error
        time.sleep(2 * POLL_S)  # a lost connection is noticed before the death of the process behind it
        self.ending = True
        return UserError(dead) if (dead := self.dead()) else error

    def _watch(self, launcher: Any) -> None:
        while not (dead := self.dead()):
            self.processes += launcher.procs
            launcher.procs.clear()
            time.sleep(POLL_S)
        time.sleep(3)  # enough to notice a lost connection
        if self.ending:
            time.sleep(GRACE_S)
        else:
            print(f"error: {dead}", file=sys.stderr, flush=True)
        for process in self.processes:
            process.kill()
        os._exit(1)


def how_it_ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
