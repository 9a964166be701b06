"""What happens beside training: the lecture's pictures of fixed validation images, and the progress."""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from autoencoders import figures
from autoencoders.data import ImageDataModule
from autoencoders.loggers import RunLogger
from autoencoders.metrics import squared_error
from autoencoders.models import BaseModel

# Percent by which the steps have grown from one drawing to the next: of the rows, and of all pictures.
ROWS_GROWTH, GROWTH = 10, 50
WARMING_UP, MEASURED_S = 10, 5.0  # steps, and then seconds, after which the length of a training is told


class Pictures(Callback):
    """Draws a model's pictures on validation images while it trains, into a folder and for the loggers.

    Unless it is told how often, it draws at validations, which are after each epoch unless the Trainer says
    otherwise: the rows of images whenever the steps have grown by a tenth, and all pictures, which take ten
    times as long, whenever they have grown by half. So after epochs 1, 2, 3, ..., 12, 14, 16, 18, 20, 22, 25,
    ..., and 1, 2, 3, 5, 8, 12, 18, ...: most of the beginning, when most is learnt, and twice as long a
    training has only a few more.

    Models and data modules that are not this project's have none.

    Args:
        folder: where the PNG files are put; the folder around it must exist.
        every_n_epochs: how often all of them are drawn; None: as above.
        images: how many validation images are in the rows.
    """

    def __init__(
        self, folder: str | Path = "figures", every_n_epochs: int | None = None, images: int = 10
    ) -> None:
        self.folder, self.every_n_epochs, self.images = Path(folder), every_n_epochs, images
        self.rows_step = self.step = 0  # of the last drawing of the rows, and of all

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or self.every_n_epochs:
            return
        now = 100 * trainer.global_step
        if now >= (100 + GROWTH) * self.step:
            self.rows_step = self.step = trainer.global_step
            self.draw(trainer, pl_module)
        elif now >= (100 + ROWS_GROWTH) * self.rows_step:
            self.rows_step = trainer.global_step
            self.draw(trainer, pl_module, rows_alone=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.draw(trainer, pl_module)

    def draw(self, trainer: Trainer, model: LightningModule, rows_alone: bool = False) -> None:
        """All pictures of the model as it is now, or the rows of images alone, by the first process."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(model, BaseModel) or not isinstance(data, ImageDataModule):
            return
        if not trainer.is_global_zero:
            return
        was_training = model.training
        model.eval()  # a look at it changes nothing in it, such as the averages of a batch normalisation
        self._draw(trainer, model, data, rows_alone)
        model.train(was_training)

    def _draw(self, trainer: Trainer, model: BaseModel, data: ImageDataModule, rows_alone: bool) -> None:
        paths = {}
        shown = figures.model_rows(model, data.first(data.val, self.images, model.device))
        drawn: dict[str, figures.Picture] = {"reconstructions": figures.Rows(shown)}
        if not rows_alone:
            drawn |= figures.of_code(model, data, data.val)
        for name, figure in drawn.items():
            paths[f"pictures/{name}"] = self.folder / f"{name}.png"
            figures.save(figure, self.folder / f"{name}.png")
        if not (loggers := [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]):
            return
        columns: list[Sequence[Any]] = [
            [figures.to_array(image, 1, 0) for image in images] for images in shown.values()
        ]
        clean, made = (shown[model.row_titles[key]] for key in ("clean", "reconstruction"))
        columns.append(squared_error(made, clean).tolist())
        table = [[index, *row] for index, row in enumerate(zip(*columns, strict=True))]
        for logger in loggers:
            logger.log_images(paths, trainer.global_step)
            logger.log_table("validation_images", ["image", *shown, "mse"], table, step=trainer.global_step)


def draw_thumbnail(trainer: Trainer, model: LightningModule, path: Path) -> None:
    """The first test images and what a trained model makes of them, small, for the pages of sweeps and of all
    runs."""
    data = getattr(trainer, "datamodule", None)
    if isinstance(model, BaseModel) and isinstance(data, ImageDataModule) and hasattr(data, "test"):
        model.eval()
        figures.save_picture(figures.thumbnail(model, data, data.test), path)


def progress(callbacks: Sequence[Callback], bar: bool | None = None) -> list[Callback]:
    """A progress bar, or a line an epoch; nothing where `callbacks` hold a progress bar already.

    Args:
        bar: which of them; None: a bar on a terminal, lines elsewhere, such as in a log file.
    """
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        return []
    return [
        TQDMProgressBar(refresh_rate=20) if bar or (bar is None and sys.stderr.isatty()) else EpochLines()
    ]


class EpochLines(Callback):
    """Prints "epoch 3/9   val/mse 0.01642   14.2 s" at every validation: the seconds since the one before;
    and once, from the first steps, how long the training will take.

    Where epochs are not what the run is measured by, in validations within or across them or by a limit of
    steps, it prints "step 300/1200" instead.
    """

    start: float
    warm: float | None = None  # when its first steps, which are slower, were done; None before and after

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start, self.first_step = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps, now = trainer.global_step - self.first_step - WARMING_UP, time.perf_counter()
        if not steps:
            self.warm = now
        elif self.warm is not None and now - self.warm >= MEASURED_S:
            left = (trainer.estimated_stepping_batches - trainer.global_step) * (now - self.warm) / steps
            self.warm = None
            if math.isfinite(left) and trainer.is_global_zero:
                print(f"about {duration(left)} left", flush=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or not trainer.is_global_zero:
            return
        mse, now = trainer.callback_metrics.get("val/mse"), time.perf_counter()
        score = "" if mse is None else f"val/mse {mse:.5f} "
        print(f"{place(trainer):14} {score}{now - self.start:8.1f} s", flush=True)
        self.start = now


def duration(seconds: float) -> str:
    """In words: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def place(trainer: Trainer) -> str:
    """How far a training is when it validates: "epoch 3/9", "step 300/1200", or "epoch 3" without an end."""
    every_epoch = trainer.check_val_every_n_epoch is not None
    once = every_epoch and trainer.val_check_batch == trainer.num_training_batches
    if once and trainer.max_steps == -1:
        last = trainer.max_epochs if trainer.max_epochs not in (None, -1) else None
        unit, now = "epoch", trainer.current_epoch + 1
    else:
        steps = trainer.estimated_stepping_batches
        last = int(steps) if steps != float("inf") else None
        unit, now = "step", trainer.global_step
    return f"{unit} {now}" if last is None else f"{unit} {now}/{last}"
