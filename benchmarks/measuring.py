"""What the benchmarks share: a row of the table, turns, processes, steps."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from autoencoders.config import REPOSITORY

THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, mostly a ratio of what was measured side by side, and its goal."""

    what: str
    ours: str  # with its unit
    against: str  # what it is compared with, and what that took
    figure: float
    goal: tuple[str, float] | None  # ("≥", 0.95); None: it is only reported
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        sign, value = self.goal
        return self.figure >= value if sign == "≥" else self.figure <= value


def in_turns(repeats: int, **contenders: Callable[[], float]) -> dict[str, float]:
    """The median of each, measured in turns, so that what else the machine does falls on all alike."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, measure in contenders.items():
            taken[name].append(measure())
    return {name: median(values) for name, values in taken.items()}


def seconds(work: Callable[[], Any], times: int = 1) -> float:
    """What one of so many repetitions took."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


@dataclass(frozen=True)
class Process:
    """What a process took, its start and end included, and what it said."""

    seconds: float
    peak: float  # MiB; not less than what the process that started it holds: Linux hands that on
    output: str


def python(*arguments: str | Path, threads: int = THREADS, fails: bool = False) -> Process:
    """Runs Python in the repository."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        taken = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read()
    if bool(process.returncode) != fails:
        raise RuntimeError(f"{' '.join(command)}:\n{output[-2000:]}")
    return Process(taken, used.ru_maxrss / 1024, output)  # Linux counts in KiB


def apart(call: str) -> float:
    """What a function of the benchmarks returns, in a process of its own: so nothing of what we set for ours
    helps the others. E.g. `apart("textbook.epoch_seconds('denoising', 100)")`."""
    name = call.partition(".")[0]
    code = f"from benchmarks import {name}; print({call})"
    return float(python("-W", "ignore", "-c", code).output.split()[-1])


@contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for a run, which does not stay."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        yield Path(folder) / "run"


def train(folder: Path, *overrides: str, threads: int = THREADS) -> Process:
    """A whole `python train.py ...` without W&B."""
    return python("train.py", *overrides, "logger=csv", f"hydra.run.dir={folder}", threads=threads)


def steady(ends: Sequence[float], warm: int) -> float:
    """Seconds a step, from the times at which the steps ended, without the first `warm` ones."""
    return (ends[-1] - ends[warm - 1]) / (len(ends) - warm)
