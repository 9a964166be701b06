"""What one waits for before anything is trained: the command line, imports, the first step; and W&B."""

import math
from collections.abc import Iterator
from functools import partial
from statistics import median

from benchmarks.measuring import Row, in_turns, python, run_folder

COMMANDS = {  # arguments, and whether they are a mistake
    "`train.py --help`": (["train.py", "--help"], False),
    "`train.py --cfg job`": (["train.py", "--cfg", "job"], False),
    "a bad override": (["train.py", "model=denoisin"], True),
}
# train.py, as far as the first optimizer step.
FIRST_STEP = """
import os, runpy, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(0))
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""

IMPORTS = "import os, torch, lightning; os._exit(0)"  # Python's own end takes time, too


def rows(quick: bool) -> Iterator[Row]:
    repeats = 3 if quick else 9
    for name, (arguments, fails) in COMMANDS.items():
        imported = python("-X", "importtime", *arguments, fails=fails).output.splitlines()
        without_torch = not any(line.endswith(" torch") for line in imported)
        taken = median(python(*arguments, fails=fails).seconds for _ in range(repeats))
        note = "imports no torch" if without_torch else "imports torch"
        yield Row(name, f"{taken:.2f} s", "", taken if without_torch else math.inf, ("≤", 0.6), note)
    yield first_step(repeats)
    yield wandb(1 if quick else 3)


def first_step(repeats: int) -> Row:
    with run_folder() as folder:
        took = in_turns(
            repeats,
            ours=lambda: python("-c", FIRST_STEP, "logger=csv", f"hydra.run.dir={folder}").seconds,
            imports=lambda: python("-c", IMPORTS).seconds,
        )
    return Row(
        "process start to the first optimizer step",
        f"{took['ours']:.2f} s",
        f"`import torch, lightning`: {took['imports']:.2f} s",
        took["ours"] / took["imports"],
        ("≤", 1.3),
        note="ours are imported without the garbage collector and scipy.signal (`imports.py`)",
    )


def wandb(repeats: int) -> Row:
    """All other benchmarks are without it."""
    few = ["train.py", "trainer.max_epochs=1", "trainer.limit_train_batches=50"]

    def run(logger: str) -> float:
        with run_folder() as folder:
            return python(*few, logger, f"hydra.run.dir={folder}").seconds

    took = in_turns(
        repeats, csv=partial(run, "logger=csv"), offline=partial(run, "logger.wandb.mode=offline")
    )
    return Row(
        "a run of 50 steps with W&B, offline",
        f"{took['offline']:.1f} s",
        f"with `logger=csv`, as in all other rows: {took['csv']:.1f} s",
        took["offline"] - took["csv"],
        None,
        note="the difference in seconds",
    )
