"""What happens beside training: the lecture's pictures of fixed validation images, and the progress."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from autoencoders import figures
from autoencoders.data import ImageDataModule
from autoencoders.loggers import Wandb
from autoencoders.models import BaseAutoencoder


class Pictures(Callback):
    """Draws a model's pictures on validation images every few epochs, into `folder` and W&B."""

    def __init__(self, folder: Path, every_n_epochs: int, images: int) -> None:
        self.folder, self.every_n_epochs, self.images = folder, every_n_epochs, images

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            assert isinstance(pl_module, BaseAutoencoder)
            self.draw(trainer, pl_module)

    def draw(self, trainer: Trainer, model: BaseAutoencoder) -> None:
        """All pictures of the model as it is now."""
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        pictures = figures.draw_all(model, data, data.val, self.images)
        for name, figure in pictures.items():
            figures.save(figure, self.folder / f"{name}.png")
        for logger in trainer.loggers:
            if isinstance(logger, Wandb) and not logger.lost:
                self._to_wandb(logger, trainer.global_step, model, data, list(pictures))

    def _to_wandb(
        self,
        logger: Wandb,
        step: int,
        model: BaseAutoencoder,
        data: ImageDataModule,
        names: Sequence[str],
    ) -> None:
        import wandb

        table = wandb.Table(columns=["image", *model.row_titles.values()])
        shown = figures.model_rows(model, data.first(data.val, self.images, model.device))
        columns = [shown.get(title) for title in model.row_titles.values()]
        for index in range(min(self.images, len(data.val))):
            cells = [None if c is None else wandb.Image(figures.to_array(c[index], 1, 0)) for c in columns]
            table.add_data(index, *cells)
        pictures: dict[str, Any] = {
            f"pictures/{name}": wandb.Image(str(self.folder / f"{name}.png")) for name in names
        }
        logged = {**pictures, "validation_images": table, "trainer/global_step": step}
        logger.send(lambda experiment: experiment.log(logged))


def progress() -> Callback:
    """A progress bar on a terminal; elsewhere, as in a log file, a line an epoch."""
    return TQDMProgressBar(refresh_rate=20) if sys.stderr.isatty() else EpochLines()


class EpochLines(Callback):
    """Prints "epoch 3/9   val/mse 0.01642   14.2 s" at every validation: the seconds since the one before."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING:
            mse, now = trainer.callback_metrics["val/mse"], time.perf_counter()
            epochs = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            print(f"epoch {epochs:8} val/mse {mse:.5f} {now - self.start:8.1f} s", flush=True)
            self.start = now
