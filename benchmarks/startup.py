"""What one waits for before anything is trained: the command line, imports, the first step."""

from collections.abc import Iterator

from benchmarks.measuring import Row, in_turns, python, run_folder

COMMANDS = {
    "--help": ["train.py", "--help"],
    "--cfg job": ["train.py", "--cfg", "job"],
    "a bad override": ["train.py", "model=denoisin"],
}
# train.py, as far as the first optimizer step.
FIRST_STEP = """
import os, runpy, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(0))
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


def imports_torch(arguments: list[str], fails: bool) -> bool:
    output = python("-X", "importtime", *arguments, fails=fails).output
    return any(line.endswith(" torch") for line in output.splitlines())


def rows(quick: bool) -> Iterator[Row]:
    repeats = 3 if quick else 9
    for name, arguments in COMMANDS.items():
        fails = name == "a bad override"
        took = in_turns(repeats, ours=lambda a=arguments, f=fails: python(*a, fails=f).seconds)["ours"]
        heavy = imports_torch(arguments, fails)
        note = "imports torch" if heavy else "imports no torch"
        yield Row(
            f"`train.py {name}`" if not fails else f"train.py, {name}",
            f"{took:.2f} s",
            "",
            took,
            ("≤", 0.6),
            note,
        )
    with run_folder() as folder:
        first = ["-c", FIRST_STEP, "logger=csv", f"hydra.run.dir={folder}"]
        took = in_turns(
            repeats,
            first_step=lambda: python(*first).seconds,
            imports=lambda: python("-c", "import torch, lightning").seconds,
        )
    yield Row(
        "process start to the first optimizer step",
        f"{took['first_step']:.2f} s",
        f"`import torch, lightning`: {took['imports']:.2f} s",
        took["first_step"] / took["imports"],
        ("≤", 1.3),
    )
    few = ["trainer.max_epochs=1", "trainer.limit_train_batches=50"]
    with run_folder() as folder:
        took = in_turns(
            1 if quick else 3,
            csv=lambda: python("train.py", *few, "logger=csv", f"hydra.run.dir={folder}").seconds,
            wandb=lambda: (
                python("train.py", *few, "logger.mode=offline", f"hydra.run.dir={folder}-wandb").seconds
            ),
        )
    yield Row(
        "W&B, offline: a run of 50 steps",
        f"{took['wandb']:.1f} s",
        f"without W&B: {took['csv']:.1f} s",
        took["wandb"] - took["csv"],
        None,
        note="the difference in seconds",
    )
