"""Picture files and arrays of pictures as bytes of one size and number of channels."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from autoencoders.errors import UserError, one_line

Bytes = NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
ARRAYS = (".npy", ".npz", ".pt")
MOST_PIXELS = 100_000_000  # of a picture: a small file may unpack to more than the memory holds
NARROWEST = 100  # how many times longer than wide a picture may be
GRAY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "LA", "La", "F")
FITS = ("crop", "resize", "pad", "patches")


class Unreadable(Exception):
    """A file that gives no picture; the message says why."""


def find(root: Path) -> list[Path]:
    """The picture files under a folder, relative to it, sorted by name; no links are followed to the outside,
    and hidden files and folders are left out."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append((Path(folder) / name).relative_to(root))
    return sorted(found, key=lambda path: path.parts)


def read(path: Path | BytesIO, channels: int, size: int | None, fit: str) -> Bytes:
    """A picture (C, H, W) as it is shown: upright (EXIF), the first of several frames, transparent parts on
    white, 16 bits as 8.

    Args:
        channels: 1 (luma) or 3 (RGB).
        size: of its sides after `fit`; None: as they are.
        fit: "crop" (the shorter side to `size`, then the middle), "resize" (squeezed to a square), "pad" (the
            longer side to `size`, on black), "patches" (as it is, and at least `size` wide and high).

    Raises:
        Unreadable: it is damaged, too large, or not a picture.
    """
    try:
        with Image.open(path) as opened:
            _check_size(opened.size)
            if size is not None and fit != "patches" and opened.format == "JPEG":
                opened.draft(None, (2 * size, 2 * size))  # decodes large ones at a half, a quarter ...
            picture = ImageOps.exif_transpose(opened)
            return fitted(_in_mode(picture, channels), size, fit)
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable("it has too many pixels") from error
    except Exception as error:  # of decoders of damaged files: of all kinds
        raise Unreadable(one_line(str(error) or type(error).__name__)) from error


def read_array(array: Any, channels: int, size: int | None, fit: str) -> Bytes:
    """One picture (H, W[, C]) of an array of them, uint8 or floats in [0, 1], as `read` gives it."""
    values = np.asarray(array)
    if np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise Unreadable("its numbers are not in [0, 1]")
        values = np.round(255 * values).astype(np.uint8)
    elif values.dtype == np.uint16:
        values = (values // 257).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise Unreadable(f"its numbers are {values.dtype}, not uint8, uint16 or floats in [0, 1]")
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise Unreadable(f"its shape {values.shape} is not (H, W) or (H, W, C) with 1, 3 or 4 channels")
    _check_size(values.shape[1::-1])
    return fitted(_in_mode(Image.fromarray(values), channels), size, fit)


def fitted(picture: Image.Image, size: int | None, fit: str) -> Bytes:
    """(C, H, W): see `read`."""
    if size is not None and fit == "patches":
        if min(picture.size) < size:
            raise Unreadable(f"{picture.width} x {picture.height} pixels are less than a patch of {size}")
    elif size is not None and picture.size != (size, size):
        square, method = (size, size), Image.Resampling.LANCZOS
        if fit == "crop":
            picture = ImageOps.fit(picture, square, method)
        elif fit == "pad":
            picture = ImageOps.pad(picture, square, method)
        else:
            picture = picture.resize(square, method)
    values = np.asarray(picture)
    return np.ascontiguousarray(values[None] if values.ndim == 2 else values.transpose(2, 0, 1))


def in_colour(paths: Sequence[Path]) -> bool:
    """Whether any of the pictures has colour, by the headers of some of them."""
    with no_bomb_warnings():
        for path in paths[:: max(1, len(paths) // 100)]:
            try:
                with Image.open(path) as picture:
                    mode = picture.mode
            except Exception:
                continue  # which reading it will explain
            if mode not in GRAY_MODES:
                return True
    return False


def load_arrays(path: Path) -> tuple[Any, NDArray[np.int64] | None]:
    """The pictures (N, H, W[, C]) of a file, not read into memory where its format allows that, and their
    labels (N,) if it has some: `.npy`, `.npz` (`images` or its only array, `labels`), or `.pt` (a tensor, or
    a dict of the two). Nothing in it is executed.

    Raises:
        UserError: it holds something else, or is damaged.
    """
    try:
        content = _LOADERS[path.suffix.lower()](path)
    except FileNotFoundError:
        raise
    except Exception as error:  # what is no array makes these raise all kinds
        raise UserError(f"{path} is damaged, or not a file of arrays: {one_line(str(error))[:200]}") from None
    named = dict(content) if isinstance(content, dict) else {"images": content}
    images = named.get("images", next(iter(named.values())) if len(named) == 1 else None)
    if images is None or getattr(images, "ndim", 0) not in (3, 4) or not len(images):
        held = ", ".join(f"{name} {tuple(getattr(value, 'shape', ()))}" for name, value in named.items())
        raise UserError(f"{path} must hold images (N, H, W[, C]), and labels (N,) or none: it has {held}")
    labels = named.get("labels")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"{path}: its labels must be {len(images)} whole numbers")
    return images, labels


def _load_pt(path: Path) -> Any:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    tensors = content if isinstance(content, dict) else {"images": content}
    return {str(name): value.numpy() for name, value in tensors.items()}


_LOADERS: dict[str, Callable[[Path], Any]] = {
    ".npy": lambda path: np.load(path, mmap_mode="r", allow_pickle=False),
    ".npz": lambda path: dict(np.load(path, allow_pickle=False)),
    ".pt": _load_pt,
}


@contextmanager
def no_bomb_warnings() -> Iterator[None]:
    """Pillow warns of large pictures; `read` refuses those that are too large."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_size(size: Sequence[int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise Unreadable(f"{width} x {height} pixels are more than {MOST_PIXELS:,}")
    if max(size) > NARROWEST * min(size):
        raise Unreadable(f"{width} x {height} pixels are too narrow")


def _in_mode(picture: Image.Image, channels: int) -> Image.Image:
    """As "L" or "RGB"."""
    if picture.mode.startswith("I"):  # 16 bits, some of them in 32
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable("its pixels have more than 16 bits")
        picture = Image.fromarray((values // 257).astype(np.uint8))
    if picture.mode == "F":
        raise Unreadable("its pixels are 32-bit floats")
    if "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    if picture.mode not in ("L", "RGB"):
        picture = picture.convert("RGB" if picture.mode not in GRAY_MODES else "L")
    return picture.convert("L" if channels == 1 else "RGB")
