"""A trained run in Python: `autoencoders.load`."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from autoencoders import runs, untrusted
from autoencoders.errors import UserError
from autoencoders.training import build_data, build_model

# One image (H, W) or (H, W, C), or a batch (N, H, W), (N, H, W, C) or (N, C, H, W): floats in [0, 1] or
# uint8; a PIL image, or a list of any of them.
Images = Any


@dataclass
class TrainedRun:
    """What a run has trained: its best model in evaluation mode, and its config.

    Images go in as a batch (N, C, H, W) or anything that can be made one (see `batch`), and come out as they
    went in: numpy for numpy and PIL, a tensor for a tensor, one image for one image.
    """

    folder: Path
    config: DictConfig
    model: Any

    @cached_property
    def data(self) -> Any:
        """The run's data module, its splits read."""
        data = build_data(self.config)
        data.prepare_data()
        data.setup(None)
        return data

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of what the encoder reads."""
        return tuple(self.model.hparams["input_shape"])

    def encode(self, images: Images) -> Any:
        """The codes (N, code_dim) of images; (code_dim,) of one image."""
        batch, single, as_numpy = self.batch(images)
        with torch.inference_mode():
            codes = self.model.encode(batch).float()
        return _given_back(codes, single, as_numpy)

    def decode(self, codes: NDArray[np.floating] | Tensor) -> Any:
        """The images (N, C, H, W) of codes (N, code_dim), floats in [0, 1]; (C, H, W) of one code."""
        tensor = torch.as_tensor(codes, dtype=torch.float32, device=self.model.device)
        single = tensor.ndim == 1
        with torch.inference_mode():
            images = self.model.decode(tensor[None] if single else tensor)
        return _given_back(images, single, not isinstance(codes, Tensor))

    def reconstruct(self, images: Images) -> Any:
        """What the model makes of images, which it does not corrupt: (N, C, H, W); (C, H, W) of one image."""
        batch, single, as_numpy = self.batch(images)
        with torch.inference_mode():
            reconstruction = self.model(batch)
        return _given_back(reconstruction, single, as_numpy)

    def batch(self, images: Images) -> tuple[Tensor, bool, bool]:
        """Images as the encoder reads them, (N, C, H, W) on the model's device; whether it was a single one;
        and whether numpy is to be given back. Bytes become floats in [0, 1].

        Raises:
            UserError: they are not of the shape that the model was trained on.
        """
        as_numpy = not isinstance(images, Tensor)
        if isinstance(images, list | tuple):
            images = np.stack([np.asarray(image) for image in images])
        # A copy of what is not a tensor: the pixels of a PIL image can't be written to, which torch warns of.
        given = torch.as_tensor(np.array(images) if as_numpy else images)
        tensor = given.float() / 255 if given.dtype == torch.uint8 else given.float()
        channels, height, width = self.input_shape
        shape = tuple(tensor.shape)
        single = False
        if shape in ((height, width), (height, width, channels), (channels, height, width)):
            tensor, shape, single = tensor[None], (1, *shape), True
        if shape[1:] == (height, width):
            tensor = tensor[:, None].expand(-1, channels, -1, -1) if channels == 1 else tensor
        elif shape[1:] == (height, width, channels):
            tensor = tensor.permute(0, 3, 1, 2)
        if tensor.shape[1:] != (channels, height, width):
            raise UserError(
                f"images of shape {tuple(given.shape)} don't fit this model, which reads (N, {channels}, "
                f"{height}, {width}), (N, {height}, {width}, {channels}) or one such image"
            )
        return tensor.to(self.model.device), single, as_numpy


def load(folder: str | Path, trust: bool = False) -> TrainedRun:
    """The run in a folder, which anyone may have made: nothing of it is executed.

    Args:
        folder: of the run.
        trust: whether the run may use classes of your own, which are imported then.

    Raises:
        UserError: it isn't a run's folder, or needs to be trusted.
    """
    path = Path(folder)
    config = runs.read_run(path, trust, f"autoencoders.load({str(folder)!r}, trust=True)")
    config.trust = trust
    data = build_data(config)
    model = build_model(config, data)
    untrusted.load_weights(model, runs.best_checkpoint(path))
    return TrainedRun(path, config, model.eval())


def _given_back(tensor: Tensor, single: bool, as_numpy: bool) -> Any:
    tensor = tensor[0] if single else tensor
    return tensor.cpu().numpy() if as_numpy else tensor
