"""What a training says: what it is about to do, and what came out."""

import math
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from autoencoders import jobs, runs
from autoencoders.corruption import Identity
from autoencoders.data import ImageDataModule
from autoencoders.loggers import RunLogger
from autoencoders.models import BaseModel
from autoencoders.networks import parameter_count
from autoencoders.optimizers import Muon
from autoencoders.progress import in_epochs

A_LINE = 4  # scores


class Introduction(Callback):
    """Says before the first step what is trained on what, how long, and where it goes.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, ImageDataModule):
            say("data", _data(data))
            if not isinstance(data.corruption, Identity):
                say("corruption", _name(data.corruption))
        say("model", _model(pl_module))
        say("training", _training(trainer))
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, Muon):
                say("optimizer", optimizer.division())
        say("folder", str(runs.near(self.folder)))
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                say_where(logger.where())
        print(flush=True)


def say(what: str, text: str) -> None:
    """One line of a column of names, and what there is to say about each."""
    print(f"  {what:10} {text}")


def say_wrapped(what: str, text: str) -> None:
    """The same for a sentence that may take several lines."""
    for index, line in enumerate(textwrap.wrap(text, max(40, width() - 13))):
        say("" if index else what, line)


def width() -> int:
    """Columns of the terminal; in a log file, where nothing wraps, there are plenty."""
    return shutil.get_terminal_size((200, 24)).columns


def say_where(where: str) -> None:
    """How to look at what a logger has; `where` is a logger's, "<its name>  <how>"."""
    name, _, how = where.partition("  ")
    say(name, how.strip())


def say_next(about: str, command: str) -> None:
    """What one may type next; in a job of a sweep nothing, which has others to do."""
    if not in_a_sweep():
        say("next", command)
        say("", f"({about})")


def in_a_sweep() -> bool:
    return jobs.COMMAND in os.environ


def _data(data: ImageDataModule) -> str:
    shapes = dict.fromkeys(" x ".join(map(str, shape)) for shape in (data.input_shape, data.target_shape))
    return (
        f"{type(data).__name__}: {len(data.train):,} images to train on and {len(data.val):,} to validate, "
        f"{' to '.join(shapes)}"
    )


def _model(model: LightningModule) -> str:
    text = f"{type(model).__name__}: {parameter_count(model):,} parameters"
    if not isinstance(model, BaseModel) or not model.has_code:
        return text
    numbers = " x ".join(map(str, model.code_shape))
    return f"{text}, a code of {numbers} numbers for {math.prod(model.input_shape):,}"


def _training(trainer: Trainer) -> str:
    steps, devices = trainer.estimated_stepping_batches, trainer.world_size
    length = f"{int(steps):,} step{'s' * (steps != 1)}" if math.isfinite(steps) else "without an end"
    if math.isfinite(steps) and in_epochs(trainer):
        length = f"{trainer.max_epochs} epoch{'s' * (trainer.max_epochs != 1)}, {length}"
    kind = trainer.strategy.root_device.type
    return f"{length}, on {f'{devices} x ' if devices > 1 else ''}{kind}, {trainer.precision}"


def _name(corruption: Any) -> str:
    """As it is written: a dataclass with its fields; a partial's function."""
    text = repr(corruption)
    if " at 0x" not in text and len(text) <= 80:
        return text
    function = getattr(corruption, "func", corruption)
    return str(getattr(function, "__name__", type(function).__name__))


def report(folder: Path, metrics: Mapping[str, float], *, evaluated: bool, can_be_evaluated: bool) -> None:
    """What came out; and unless an evaluation follows, which says so itself, where the pictures are and how
    to evaluate it."""
    print()
    for split, line in _scores(metrics):
        say(split, line)
    say("run", "   ".join(f"{name} {metrics[name]:.5g}" for name in ("epochs", "steps", "seconds")))
    for profile in sorted(folder.glob("*profile*.txt")):
        say("profile", str(runs.near(profile)))
        if profile.name.startswith("fit"):
            print("\n".join(["", *map(str.rstrip, profile.read_text().splitlines()[:30]), "  ...", ""]))
    if not evaluated and not in_a_sweep():
        say("figures", str(runs.near(folder / "figures")))
        if can_be_evaluated:
            print()
            command = runs.command_for(runs.near(folder), "evaluate.py", "run")
            say_next("scores it against simple references and makes a report", command)
    sys.stdout.flush()


def _scores(metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """The scores of each split, a few a line: ("val", "mse 0.01793   loss 462.8"). A gain over the input is
    said in words, as it is what a score is worth."""
    for split in dict.fromkeys(name.partition("/")[0] for name in metrics if "/" in name):
        own = {n.partition("/")[2]: value for n, value in metrics.items() if n.startswith(f"{split}/")}
        gain = own.pop("gain_db", None)
        texts = [f"{name} {value:.5g}" for name, value in own.items()]
        for start in range(0, len(texts), A_LINE):
            yield "" if start else split, "   ".join(texts[start : start + A_LINE])
        if gain is not None:
            yield "", f"{abs(gain):.3g} dB {'better' if gain > 0 else 'worse'} than its input"
