"""Trainings and their evaluations, in processes of their own: what the tables of `ledger` and `claims` are
made of."""

import json
import os
import shutil
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from autoencoders import checks
from autoencoders.config import REPOSITORY
from autoencoders.files import write_json

_FOLDERS: dict[Path, Lock] = defaultdict(Lock)
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class Measurement(NamedTuple):
    """What came out of a run."""

    scores: dict[str, Any]  # {"<group>": {"<row>": {"<metric>": value}}}
    seconds: float  # of the training, as a process
    intervals: Mapping[str, Any] = MappingProxyType({})  # likewise, [low, high] for what has one
    gpu: str | None = None  # that it was trained on

    def value(self, metric: str) -> float | None:
        """That of "<group>/<row>/<metric>"; None if there is none."""
        value = _found(self.scores, metric)
        return None if value is None else float(value)

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The 95 % interval of that; None if it has none."""
        found = _found(self.intervals, metric)
        return None if found is None else (float(found[0]), float(found[1]))


def _found(groups: Mapping[str, Any], metric: str) -> Any:
    group, row, name = metric.split("/")
    return groups.get(group, {}).get(row, {}).get(name)


def measure(
    command: str, evaluate: str, metrics: Sequence[str], seed: int, folder: Path, init: Path | None = None
) -> Measurement:
    """Trains and evaluates. The output goes to `log.txt` in the folder, and what came out to `measured.json`:
    if the same was measured there before, it is not done again. What was interrupted is continued, and its
    seconds are those up to the checkpoint and those from there.

    Args:
        command: overrides of train.py.
        evaluate: overrides of evaluate.py.
        metrics: that are wanted, "<group>/<row>/<metric>"; their whole groups are measured.
        init: the run whose weights it begins with, if any.

    Raises:
        RuntimeError: it failed.
    """
    with _FOLDERS[folder]:  # another thread may need the same
        return _measure(command, evaluate, sorted({m.split("/")[0] for m in metrics}), seed, folder, init)


def _measure(
    command: str, evaluate: str, groups: Sequence[str], seed: int, folder: Path, init: Path | None
) -> Measurement:
    asked, kept = {"command": command, "evaluate": evaluate, "groups": groups}, folder / "measured.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    if {name: known.get(name) for name in asked} != asked:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        known = {**asked, "spent": 0.0}
    if "scores" in known:
        return Measurement(known["scores"], known["seconds"], known.get("intervals", {}), known.get("gpu"))
    run = folder / "run"
    with (folder / "log.txt").open("a") as log:

        def process(*arguments: str) -> float:
            """Its seconds."""
            tqdm.write(f"python {' '.join(arguments)}\n  its output goes to {folder / 'log.txt'}")
            start = time.perf_counter()
            done = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, stdout=log, stderr=log)
            if done.returncode:
                raise RuntimeError(f"{folder / 'log.txt'}: python {' '.join(arguments)} failed")
            return time.perf_counter() - start

        if "seconds" not in known:
            if (last := run / "checkpoints" / "last.ckpt").is_file():  # interrupted
                known["spent"] += max(0.0, last.stat().st_mtime - known["begun"])
                words = [f"resume='{run}'"]
            else:
                shutil.rmtree(run, ignore_errors=True)
                begin = [f"init='{init}'"] if init else []
                words = [*command.split(), *begin, f"seed={seed}", f"hydra.run.dir='{run}'", "logger=csv"]
            known["begun"] = time.time()
            write_json(kept, known)
            known["seconds"] = known["spent"] + process("train.py", *words)
            write_json(kept, known)
        process("evaluate.py", f"run='{run}'", *evaluate.split(), f"groups={','.join(groups)}")
    files = (run / "evaluation" / name for name in ("groups.json", "groups_intervals.json"))
    scores, intervals = (json.loads(file.read_text()) for file in files)
    gpus = json.loads((run / "environment.json").read_text())["machine"]["gpus"]
    measured = Measurement(scores, known["seconds"], intervals, gpus[0] if gpus else None)
    write_json(kept, {**known, **measured._asdict()})
    return measured


def side_by_side(todo: Mapping[Key, Callable[[], Result]], jobs: int) -> Iterator[tuple[Key, Result | None]]:
    """What was measured, as soon as it is there, so many at a time; None of what failed, which is said.

    Raises:
        KeyboardInterrupt: Ctrl-C, once the runs in progress, which are told too, have ended.
    """
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ThreadPoolExecutor(jobs) as pool:
        try:
            started = {pool.submit(run): key for key, run in todo.items()}
            for done in tqdm(as_completed(started), total=len(started), desc="runs", disable=None):
                try:
                    yield started[done], done.result()
                except RuntimeError as error:
                    tqdm.write(str(error))
                    yield started[done], None
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)  # else those that wait would begin now
            raise KeyboardInterrupt("interrupted; the same command continues") from None


def seed_argument(text: str) -> int:
    """One of the command line, with train.py's limits."""
    return _whole("seed", text, 0, 2**32 - 1)


def jobs_argument(text: str) -> int:
    """How many runs side by side, of the command line."""
    return _whole("jobs", text, 1)


def folder_argument(text: str) -> Path:
    """A folder of the command line, for processes that work elsewhere."""
    return Path(text).absolute()


def _whole(name: str, text: str, at_least: int, at_most: int | None = None) -> int:
    value = int(text) if text.lstrip("-").isdecimal() else text
    try:
        checks.integer(name, value, at_least, at_most)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return int(value)
