"""What happens beside training: the lecture's pictures of fixed validation images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from autoencoders import figures
from autoencoders.data import ImageDataModule
from autoencoders.loggers import RunLogger
from autoencoders.metrics import squared_error
from autoencoders.models import BaseModel

# Percent by which the steps have grown from one drawing to the next: of the rows, and of all pictures.
ROWS_GROWTH, GROWTH = 10, 50


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
