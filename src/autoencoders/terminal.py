"""What a training says: what it is about to do, and what came out."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from autoencoders import runs
from autoencoders.corruption import Identity
from autoencoders.data import ImageDataModule
from autoencoders.loggers import RunLogger
from autoencoders.models import BaseModel


class Introduction(Callback):
    """Says before the first step what is trained on what, how long, and where to.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        said = {"model": _model(pl_module), "training": _training(trainer), "folder": str(self.folder)}
        if isinstance(data := getattr(trainer, "datamodule", None), ImageDataModule):
            said = {"data": _data(data), **said}
        print("\n".join(f"  {name:9}{what}" for name, what in said.items()), end="\n\n", flush=True)


def _data(data: ImageDataModule) -> str:
    shapes = dict.fromkeys(" x ".join(map(str, shape)) for shape in (data.input_shape, data.target_shape))
    corrupted = "" if isinstance(data.corruption, Identity) else f", corrupted by {_name(data.corruption)}"
    return (
        f"{type(data).__name__}, {len(data.train):,} images to train on and {len(data.val):,} to validate, "
        f"{' to '.join(shapes)}{corrupted}"
    )


def _model(model: LightningModule) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    text = f"{type(model).__name__}: {parameters:,} parameters"
    if not isinstance(model, BaseModel) or not model.has_code:
        return text
    numbers = " x ".join(map(str, model.code_shape))
    return f"{text}, a code of {numbers} numbers for {math.prod(model.input_shape):,}"


def _training(trainer: Trainer) -> str:
    steps, devices = trainer.estimated_stepping_batches, trainer.world_size
    length = f"{int(steps):,} steps" if steps != float("inf") else "without an end"
    kind = trainer.strategy.root_device.type
    return f"{length}, on {f'{devices} x ' if devices > 1 else ''}{kind}, {trainer.precision}"


def _name(corruption: Any) -> str:
    """As it is written: a dataclass with its fields; a partial's function."""
    text = repr(corruption)
    if " at 0x" not in text and len(text) <= 80:
        return text
    function = getattr(corruption, "func", corruption)
    return str(getattr(function, "__name__", type(function).__name__))


def report(folder: Path, metrics: Mapping[str, float], loggers: Sequence[RunLogger], evaluated: bool) -> None:
    """What came out and where it is; and how to evaluate it, where that does not follow."""
    print()
    for name, value in metrics.items():
        print(f"  {name:14} {value:.5g}")
    print(f"\n  figures  {folder / 'figures'}")
    print(f"  metrics  {folder / 'metrics.json'}, {folder / 'metrics.csv'}")
    for profile in sorted(folder.glob("*profile*.txt")):
        print(f"  profile  {profile}")
        if profile.name.startswith("fit"):
            print("\n".join(["", *map(str.rstrip, profile.read_text().splitlines()[:30]), "  ...", ""]))
    for logger in loggers:
        print(f"  {logger.where()}")
    if not evaluated:
        print(f"\n  next     {runs.command_for(folder, 'evaluate.py', 'run')}")
