"""The reconstruction of a few validation images through training, as an animation: callbacks=film."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image, ImageDraw
from torch import Tensor

from autoencoders import checks, figures
from autoencoders.apply import motion
from autoencoders.data import ImageDataModule
from autoencoders.data.pairs import Batch
from autoencoders.evaluation.subject import averaged
from autoencoders.models import BaseModel

LARGEST = 64  # pixels a side of an image: larger ones are averaged
WIDTH = 640  # pixels, about, that frames are enlarged to
LINE = 16  # pixels below, for the step
LAST = 20  # how many times as long the last frame is shown


class Film(Callback):
    """Keeps what the model makes of fixed validation images, and writes `training.gif` at the end.

    There is a frame whenever the steps have grown by a share of themselves: at first, when most is learnt, at
    every step, and twice as long a training has only a few more. The frames are in the checkpoints that runs
    are resumed from, so a resumed run has the film of one that was never interrupted.

    Models and data modules that are not this project's have none.

    Args:
        folder: where it is put; None: `figures` in the trainer's default_root_dir.
        images: how many are shown, 1 to 50.
        growth: of the steps from frame to frame, 0.01 to 1.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(self, folder: str | Path | None = None, images: int = 8, growth: float = 0.05) -> None:
        checks.integer("images", images, 1, 50)
        checks.number("growth", growth, 0.01, 1)
        self.folder, self.images, self.growth = folder, images, growth
        self.steps: list[int] = []
        self.frames: list[Tensor] = []  # (N, C, H, W) uint8 each

    def state_dict(self) -> dict[str, Any]:
        return {"steps": [*self.steps], "frames": [*self.frames]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.frames = state_dict["steps"], state_dict["frames"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.steps:
            self._keep(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if self.steps and trainer.global_step >= max(1, math.ceil(self.steps[-1] * (1 + self.growth))):
            self._keep(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.steps or not trainer.is_global_zero:
            return
        if self.steps[-1] != trainer.global_step:
            self._keep(trainer, pl_module)
        path = Path(self.folder or Path(trainer.default_root_dir) / "figures") / "training.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(pl_module, BaseModel)
        shown = list(self._drawn(pl_module, self._batch(trainer, pl_module)))
        motion.save([*shown, *shown[-1:] * (LAST - 1)], path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_video("pictures/training", [str(path)], format=["gif"])

    def _keep(self, trainer: Trainer, model: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        if not (
            trainer.is_global_zero and isinstance(model, BaseModel) and isinstance(data, ImageDataModule)
        ):
            return
        was_training = model.training
        model.eval()  # a look at it changes nothing in it, as in `Pictures`
        with torch.inference_mode():
            made = model(self._batch(trainer, model).corrupted)
        model.train(was_training)
        self.steps.append(trainer.global_step)
        self.frames.append((small(made.float()).clamp(0, 1) * 255).round().byte().cpu())

    def _batch(self, trainer: Trainer, model: BaseModel) -> Batch:
        data = trainer.datamodule  # type: ignore[attr-defined]
        return data.first(data.val, self.images, model.device)

    def _drawn(self, model: BaseModel, batch: Batch) -> Iterator[Image.Image]:
        """The rows of `figures.model_rows`, of which only the reconstruction changes, above the step."""
        rows = {title: small(images).cpu() for title, images in figures.model_rows(model, batch).items()}
        for step, frame in zip(self.steps, self.frames, strict=True):
            now = {**rows, model.row_titles["reconstruction"]: frame / 255}
            picture = np.concatenate([figures.to_array(row, self.images, 1) for row in now.values()])
            picture = picture.repeat(times := max(1, WIDTH // picture.shape[1]), 0).repeat(times, 1)
            canvas = Image.new("RGB", (picture.shape[1], picture.shape[0] + LINE), "white")
            canvas.paste(Image.fromarray(picture))
            ImageDraw.Draw(canvas).text((4, picture.shape[0] + 2), f"step {step:,}", fill="black")
            yield canvas


def small(images: Tensor) -> Tensor:
    """Images (N, C, H, W), their sides averaged to LARGEST pixels at most."""
    return averaged(images, (max(images.shape[2:]) / LARGEST) ** 2)
