"""What a sweep adds to its jobs."""

import subprocess
import sys
import time
from collections.abc import Iterator

from autoencoders.config import REPOSITORY
from benchmarks.measuring import Row, in_turns, run_folder, seconds, train

JOB = ["trainer.max_epochs=1", "trainer.limit_train_batches=50", "logger=csv"]


def gap(jobs: int, *overrides: str) -> float:
    """The longest time between the end of a job and the start of the next one, as the sweep tells."""
    with run_folder() as folder:
        seeds = f"seed={','.join(map(str, range(jobs)))}"
        command = [sys.executable, "train.py", "-m", seeds, *JOB, *overrides, f"hydra.sweep.dir={folder}"]
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            ended, gaps = list[float](), list[float]()
            for line in process.stdout:
                if line.startswith("job ") and " finished: " in line:
                    ended.append(time.perf_counter())
                if line.startswith("job ") and "] starts" in line and ended:
                    gaps.append(time.perf_counter() - ended.pop(0))
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed")
    return max(gaps)


def alone() -> float:
    """A job without a sweep, in seconds."""
    with run_folder() as folder:
        return train(folder, *JOB).seconds


def rows(quick: bool) -> Iterator[Row]:
    jobs = 2 if quick else 4
    took = in_turns(1 if quick else 3, alone=alone, swept=lambda: seconds(lambda: gap(jobs)))
    cost = (took["swept"] - jobs * took["alone"]) / jobs
    yield Row(
        "a sweep's cost per job",
        f"{cost:.1f} s",
        f"the job alone: {took['alone']:.1f} s",
        cost,
        ("≤", 5.0),
        note=f"(a sweep of {jobs} jobs - {jobs} jobs alone) / {jobs}, start and summary included",
    )
    between = gap(jobs + 2, "hydra.launcher.max_parallel=2")
    yield Row(
        "between jobs that run in parallel", f"{between:.2f} s", "", between, ("≤", 0.25), note="the longest"
    )
