"""Picture files and arrays of pictures as bytes of one size and number of channels."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from autoencoders.errors import UserError, one_line

Bytes = NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
UNREAD = (".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl")  # pictures of other kinds, which are named
ARRAYS = (".npy", ".npz", ".pt")
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")  # Pillow's other readers are not for strangers' files
MOST_PIXELS = 100_000_000  # of a picture: a small file may unpack to more than the memory holds
TOO_LARGE = f"is too large: it has more than {MOST_PIXELS:,} pixels"
NARROWEST = 100  # how many times longer than wide a picture may be
GRAY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "LA", "La", "F")
FITS = ("crop", "resize", "pad", "patches")


class Unreadable(UserError):
    """A file that gives no picture; the message, after its name, says why."""


def find(root: Path) -> tuple[list[Path], list[Path]]:
    """The picture files under a folder, by their names; and what `refusal` refuses: pictures of other kinds,
    and folders that are links, which are not looked into. Relative to it, sorted, without what is hidden."""
    found, refused = list[Path](), list[Path]()
    for place, folders, files in os.walk(root):
        folder = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        refused += [(folder / name).relative_to(root) for name in folders if (folder / name).is_symlink()]
        for name in files:
            if name.lower().endswith((*SUFFIXES, *UNREAD)) and not name.startswith("."):
                some = found if name.lower().endswith(SUFFIXES) else refused
                some.append((folder / name).relative_to(root))
    return sorted(found, key=lambda path: path.parts), sorted(refused)


def refusal(path: Path, root: Path) -> str:
    """Why a file below `root` is not even opened; nothing if it may be."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return f"leads out of {root}"
    if not path.exists():
        return "is a link to nothing"
    if path.is_dir():
        return "is a folder that is a link or can't be read"
    if path.suffix.lower() in UNREAD:
        return f"is of a kind that is not read; {', '.join(SUFFIXES)} are"
    return "" if path.is_file() else "is not a file"  # opening a pipe would wait for ever


@contextmanager
def opened(path: Path | BytesIO) -> Iterator[Image.Image]:
    """A picture file, to be decoded within the block, whose errors count as the file's.

    Raises:
        Unreadable: it is no picture, damaged or too large.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            _check_pixels(picture.size)
            yield picture
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise Unreadable(TOO_LARGE) from None
    except UnidentifiedImageError:
        raise Unreadable("is not a picture of a format that is read here") from None
    except MemoryError:
        raise Unreadable("does not fit into the memory") from None
    except Exception as error:  # a damaged file makes Pillow raise all kinds
        if isinstance(error, OSError) and error.errno is not None:
            raise Unreadable(f"can't be read: {error.strerror}") from None
        raise Unreadable(f"is damaged: {one_line(str(error) or type(error).__name__)}") from None


def read(path: Path | BytesIO, channels: int, size: int | None, fit: str, root: Path | None = None) -> Bytes:
    """A picture (C, H, W) as it is shown: upright (EXIF), the first of several frames, transparent parts on
    white, 16 bits as 8.

    Args:
        channels: 1 (luma) or 3 (RGB).
        size: of its sides after `fit`; None: as they are.
        fit: "crop" (the shorter side to `size`, then the middle), "resize" (squeezed to a square), "pad" (the
            longer side to `size`, on black), "patches" (as it is, and at least `size` wide and high).
        root: the folder that the file must be in; None: it may be anywhere.

    Raises:
        Unreadable: it is no picture, damaged, too large or elsewhere.
    """
    if root is not None and isinstance(path, Path) and (why := refusal(path, root)):
        raise Unreadable(why)
    with opened(path) as picture:
        _check_sides(picture.size)
        if size is not None and fit != "patches" and picture.format == "JPEG":
            picture.draft(None, (2 * size, 2 * size))  # decodes large ones at a half, a quarter ...
        return fitted(_in_mode(upright(picture), channels), size, fit)


def read_array(array: Any, channels: int, size: int | None, fit: str) -> Bytes:
    """One picture (H, W[, C]) of an array of them, uint8 or floats in [0, 1], as `read` gives it."""
    values = np.asarray(array)
    if np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise Unreadable("has numbers that are not in [0, 1]")
        values = np.round(255 * values).astype(np.uint8)
    elif values.dtype == np.uint16:
        values = (values // 257).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise Unreadable(f"has numbers of type {values.dtype}, not uint8, uint16 or floats in [0, 1]")
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise Unreadable(f"has the shape {values.shape}, not (H, W) or (H, W, C) with 1, 3 or 4 channels")
    _check_pixels(values.shape[1::-1])
    _check_sides(values.shape[1::-1])
    return fitted(_in_mode(Image.fromarray(values), channels), size, fit)


def fitted(picture: Image.Image, size: int | None, fit: str) -> Bytes:
    """(C, H, W): see `read`."""
    if size is not None and fit == "patches":
        if min(picture.size) < size:
            raise Unreadable(f"has {picture.width} x {picture.height} pixels, less than a patch of {size}")
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


def in_colour(paths: Sequence[Path], root: Path) -> bool:
    """Whether any of the pictures below `root` has colour, by the headers of some of them."""
    with no_bomb_warnings():
        for path in paths[:: max(1, len(paths) // 100)]:
            if refusal(path, root):
                continue
            with suppress(Unreadable), opened(path) as picture:  # which reading it will explain
                if picture.mode not in GRAY_MODES:
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


def _check_pixels(size: Sequence[int]) -> None:
    if size[0] * size[1] > MOST_PIXELS:
        raise Unreadable(TOO_LARGE)


def _check_sides(size: Sequence[int]) -> None:
    if max(size) > NARROWEST * min(size):
        raise Unreadable(f"is too narrow: it has {size[0]} x {size[1]} pixels")


def upright(picture: Image.Image) -> Image.Image:
    """Decoded, and turned as its EXIF data says; damaged ones count as none."""
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # of all kinds
        return picture


def _in_mode(picture: Image.Image, channels: int) -> Image.Image:
    """As "L" or "RGB"."""
    if picture.mode.startswith("I"):  # 16 bits, some of them in 32
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable("has more than 16 bits a pixel")
        picture = Image.fromarray((values // 257).astype(np.uint8))
    if picture.mode == "F":
        raise Unreadable("has floats of 32 bits as its pixels")
    if "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    if picture.mode not in ("L", "RGB"):
        picture = picture.convert("RGB" if picture.mode not in GRAY_MODES else "L")
    return picture.convert("L" if channels == 1 else "RGB")
