"""A trained run in Python: `autoencoders.load`."""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor
from torch.overrides import TorchFunctionMode

from autoencoders import runs, untrusted
from autoencoders.errors import UserError, explain
from autoencoders.export import folder as exported
from autoencoders.training import build_data, build_model

# One image (H, W) or (H, W, C), or a batch (N, H, W), (N, H, W, C) or (N, C, H, W): floats in [0, 1] or
# uint8; a PIL image, or a list of any of them.
Images = Any
FARTHEST = 10.0  # from 0, of a pixel under any noise that one would want; 255 tells of bytes as floats


@dataclass(repr=False)
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
        """The codes (N, *code_shape) of images; (*code_shape) of one image.

        Raises:
            UserError: the model has no code.
        """
        self._check_code()
        batch, single, as_numpy = self.batch(images)
        with torch.inference_mode():
            codes = self.model.encode(batch).float()
        return _given_back(codes, single, as_numpy)

    def decode(self, codes: NDArray[np.floating] | Tensor) -> Any:
        """The images (N, C, H, W) of codes (N, *code_shape) or (N, code_dim), floats in [0, 1]; (C, H, W) of
        one code.

        Raises:
            UserError: the model has no code, or one of another size.
        """
        self._check_code()
        as_numpy = not isinstance(codes, Tensor)
        tensor = torch.as_tensor(np.array(codes) if as_numpy else codes).float().to(self.model.device)
        fitting = (self.model.code_shape, (self.model.code_dim,))
        single = tensor.shape in fitting
        tensor = tensor[None] if single else tensor
        if tensor.shape[1:] not in fitting:
            shape = ", ".join(map(str, self.model.code_shape))
            raise UserError(
                f"codes of shape {tuple(np.shape(codes))} don't fit this model: it decodes (N, {shape}), or "
                "one code"
            )
        with torch.inference_mode():
            images = self.model.decode(tensor)
        return _given_back(images, single, as_numpy)

    def clusters(self, images: Images) -> Any:
        """The cluster of each image (N,), whole numbers from 0; () of one image.

        Raises:
            UserError: the model has no clusters.
        """
        batch, single, as_numpy = self.batch(images)
        with torch.inference_mode():
            clusters = self.model.clusters_of(self.model.encode(batch)) if self.model.has_code else None
        if clusters is None:
            yet = (
                " yet: its pretraining had not ended" if hasattr(self.model, "centres") else ": model=dec has"
            )
            raise UserError(f"{type(self.model).__name__} has no clusters{yet}")
        return _given_back(clusters, single, as_numpy)

    def reconstruct(self, images: Images) -> Any:
        """What the model makes of images, which it does not corrupt: (N, C, H, W); (C, H, W) of one image.
        They may be of any height and width where the model takes any, as `model=restoration` does."""
        batch, single, as_numpy = self.batch(images)
        with torch.inference_mode():
            reconstruction = self.model(batch)
        return _given_back(reconstruction, single, as_numpy)

    def batch(self, images: Images) -> tuple[Tensor, bool, bool]:
        """Images as the encoder reads them, (N, C, H, W) on the model's device; whether it was a single one,
        (H, W), (H, W, C) or in colour (C, H, W); and whether numpy is to be given back. A list is a batch.

        Raises:
            UserError: they are not of the shape that the model was trained on, or neither bytes nor floats.
        """
        if isinstance(images, list | tuple):
            if not images:
                raise UserError("there are no images in an empty list")
            batches = [self.batch(image)[0] for image in images]  # bytes and floats may be mixed
            if len({part.shape[1:] for part in batches}) > 1:
                raise UserError("a list is made one batch, so its images must all be of one size")
            return torch.cat(batches), False, not isinstance(images[0], Tensor)
        as_numpy = not isinstance(images, Tensor)
        # A copy of what is not a tensor: torch takes no array that is read-only, flipped or big-endian.
        array = np.array(images) if as_numpy else images
        if as_numpy and array.dtype.kind not in "uif":
            raise UserError(f"images must be arrays, tensors or PIL images, not {type(images).__name__}")
        if as_numpy and array.dtype.kind == "f":
            array = array.astype(np.float32)
        tensor = _as_floats(torch.as_tensor(array))
        given = shape = tuple(tensor.shape)
        channels, height, width = self._fitting(given)
        single = shape in ((height, width), (height, width, channels)) or (
            shape == (channels, height, width) and channels > 1
        )
        if single:
            tensor, shape = tensor[None], (1, *shape)
        if shape[1:] == (height, width) and channels == 1:
            tensor = tensor[:, None]
        elif shape[1:] == (height, width, channels):
            tensor = tensor.permute(0, 3, 1, 2)
        if tensor.shape[1:] != (channels, height, width) or 0 in tensor.shape:
            raise UserError(
                f"images of shape {given} don't fit this model, which reads (N, {channels}, {height}, "
                f"{width}), (N, {height}, {width}, {channels}) or one such image"
            )
        return tensor.to(self.model.device), single, as_numpy

    def _fitting(self, given: tuple[int, ...]) -> tuple[int, ...]:
        """(C, H, W) that images of the shape `given` must have: with their own height and width where the
        model takes any."""
        channels, height, width = self.input_shape
        if not getattr(self.model, "any_size", False) or not 2 <= len(given) <= 4:
            return channels, height, width
        channels_first = len(given) > (3 if channels == 1 else 2) and given[-3] == channels
        channels_last = len(given) > 2 and given[-1] == channels and not channels_first
        return channels, *(given[-3:-1] if channels_last else given[-2:])

    def _check_code(self) -> None:
        if not getattr(self.model, "has_code", True):
            raise UserError(
                f"{type(self.model).__name__} has no code: use reconstruct, which makes an image of an image"
            )

    def __repr__(self) -> str:
        name, code_dim = type(self.model).__name__, getattr(self.model, "code_dim", 0)
        code = f", code_dim={code_dim}" if code_dim else ""
        return f"TrainedRun({str(self.folder)!r}, {name}{code})"


def _as_floats(images: Tensor) -> Tensor:
    """Bytes 0..255 and floats as floats in [0, 1]; noise may lead out of that range, but not far.

    Raises:
        UserError: they are something else.
    """
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise UserError(f"images must be uint8 (0..255) or floats in [0, 1], not {images.dtype}")
    if images.numel() and not images.abs().max() <= FARTHEST:  # also true of NaN
        raise UserError(
            f"images must be uint8 (0..255) or floats in [0, 1]; these reach from {float(images.min()):.4g} "
            f"to {float(images.max()):.4g}"
        )
    return images.float()


def load(folder: str | Path, trust: bool = False) -> TrainedRun:
    """The run in a folder, which anyone may have made: nothing of it is executed.

    Args:
        folder: of the run, or that `python -m autoencoders.export` made of it.
        trust: whether the run may use classes of your own, which are imported then.

    Raises:
        UserError: it isn't a run's folder, or needs to be trusted.
    """
    return read(Path(folder), trust, f"autoencoders.load({str(folder)!r}, trust=True)")


def read(path: Path, trust: bool, trusting: str) -> TrainedRun:
    """As `load`; `trusting` is what would trust it, to be shown where that is needed."""
    if path.is_file():
        raise UserError(f"{path} is a file: name the run folder that it is in")
    config = (exported.read_config if exported.is_exported(path) else runs.read_run)(path, trust, trusting)
    config.trust = trust
    return TrainedRun(path, config, model_of(path, config).eval())


def model_of(folder: Path, config: DictConfig) -> Any:
    """The model of `config` with the best weights of a run, or with those of an exported folder.

    Raises:
        UserError: there are none, or not its own.
    """
    weights = weights_file(folder)
    checkpoint = None if exported.is_exported(folder) else untrusted.read_checkpoint(weights)
    try:
        with nullcontext() if config.trust else NoLargerThan(weights):
            model = build_model(config, build_data(config))
    except Exception as error:  # of Hydra's, Lightning's and torch's kinds, for a value that is none
        if (line := explain(error)) is None:
            raise
        raise UserError(line) from error
    if checkpoint is None:
        exported.load_weights(model, weights)
    else:
        untrusted.put_checkpoint(model, checkpoint, weights)
    return model


def weights_file(folder: Path) -> Path:
    """Where the weights are that `model_of` reads."""
    return exported.weights_of(folder) if exported.is_exported(folder) else runs.best_checkpoint(folder)


class NoLargerThan(TorchFunctionMode):
    """Refuses to make a model of more numbers than its file has bytes, before they take memory."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.weights, self.left = weights, weights.stat().st_size

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn):
            sizes = kwargs.get("size", args if args and isinstance(args[0], int) else args[0])
            self.left -= math.prod(sizes)
            if self.left < 0:
                raise UserError(
                    f"{self.weights} does not hold this model's weights: it is too small, or cut off"
                )
        return function(*args, **kwargs)


def _given_back(tensor: Tensor, single: bool, as_numpy: bool) -> Any:
    tensor = tensor[0] if single else tensor
    return tensor.cpu().numpy() if as_numpy else tensor
