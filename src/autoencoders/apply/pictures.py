"""Pictures that anyone may have made: found, read and written, each at its own size, depth and colour."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from autoencoders.data.pictures import (
    SUFFIXES,
    UNREAD,
    Unreadable,
    no_bomb_warnings,
    opened,
    refusal,
    upright,
)
from autoencoders.errors import UserError
from autoencoders.files import atomic_write

SAVING: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "TIFF": {"compression": "tiff_deflate"},
    "WEBP": {"lossless": True, "exact": True},  # exact: also under alpha = 0
    "BMP": {},
}
CANNOT_HOLD = {"JPEG": ("LA", "RGBA", "I;16"), "BMP": ("LA", "RGBA", "I;16"), "WEBP": ("I;16",)}
ORIENTATION = 0x0112  # of EXIF
DEEP = {"I;16", "I;16L", "I;16B", "I;16N"}
Array = NDArray[Any]


class Entry(NamedTuple):
    """A picture among those that were named."""

    path: Path
    name: str  # within the folder that was named, with /
    refused: str = ""  # why it is not even opened

    @property
    def label(self) -> str:
        """The subfolder that it is in."""
        parent = str(PurePosixPath(self.name).parent)
        return "" if parent == "." else parent


@dataclass
class Picture:
    """Gray or RGB; upright, as its EXIF data wants it to be shown."""

    values: Array  # (H, W, C) uint8, or uint16 if it is gray
    alpha: Array | None = None  # (H, W) uint8
    format: str = "PNG"
    exif: bytes = b""  # without the orientation
    icc: bytes | None = None
    notes: list[str] = field(default_factory=list)  # what is not as one may think

    @property
    def pixels(self) -> Tensor:
        """(C, H, W), floats in [0, 1]."""
        whole = torch.from_numpy(self.values.astype(np.float32)).permute(2, 0, 1)
        return whole.div_(float(np.iinfo(self.values.dtype).max))

    def with_pixels(self, pixels: Tensor) -> "Picture":
        """The same with other pixels (C, H, W), which are clipped to [0, 1]."""
        depth, notes = self.values.dtype, list(self.notes)
        if depth == np.uint16 and len(pixels) == 3:
            depth, notes = np.dtype(np.uint8), [*notes, "saved with 8 bits a channel: it is in colour now"]
        scaled = pixels.clamp(0, 1) * float(np.iinfo(depth).max)
        values = scaled.round().permute(1, 2, 0).cpu().numpy().astype(depth)
        icc = self.icc if len(pixels) == self.values.shape[2] else None  # it is of gray or of colour
        return replace(self, values=values, notes=notes, icc=icc)


# ---- finding -----------------------------------------------------------------------------------------------


def find(images: str) -> tuple[list[Entry], Path | None]:
    """The pictures that a path or a pattern names, by name, and the folder whose subfolders were searched.

    Raises:
        UserError: there are none.
    """
    path, recursive = Path(images), "**" in images
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"images={images} is not one of {', '.join(SUFFIXES)}")
        return [Entry(path, path.name, _unprintable(path.name))], None
    if path.is_dir():
        base, found, recursive = path, list(_walk(path)), True
    elif glob.has_magic(images):
        parts = Path(images).parts
        fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        base = Path(*parts[:fixed])
        found = [Path(name) for name in glob.iglob(images, recursive=True)]  # noqa: PTH207
        found = [path for path in found if not path.is_dir()]
    else:
        raise UserError(f"images={images}: there is no such picture or folder")
    known = (*SUFFIXES, *UNREAD)
    entries = [_entry(path, base) for path in found if path.suffix.lower() in known or path.is_dir()]
    if not entries:
        raise UserError(f"images={images}: there are no pictures ({', '.join(SUFFIXES)})")
    return sorted(entries, key=lambda entry: entry.name), base if recursive else None


def _walk(folder: Path) -> Iterator[Path]:
    """All files; and the folders that are links, or can't be read, which are not looked into."""
    unread = list[Path]()
    for place, folders, files in os.walk(folder, onerror=lambda error: unread.append(Path(error.filename))):
        yield from (Path(place, name) for name in files)
        yield from (path for name in folders if (path := Path(place, name)).is_symlink())
    yield from unread


def _entry(path: Path, base: Path) -> Entry:
    name = path.relative_to(base).as_posix()
    above = f"leads out of {base}" if ".." in name.split("/") else ""
    return Entry(path, name, _unprintable(name) or above or refusal(path, base))


def _unprintable(name: str) -> str:
    return "" if name.isprintable() else "has characters in its name that can't be shown"


# ---- reading -----------------------------------------------------------------------------------------------


def read(path: Path) -> Picture:
    """
    Raises:
        Unreadable: it is no picture, damaged, too large or of a kind that is not known.
    """
    with no_bomb_warnings(), opened(path) as image:
        return _read(image)


def _read(image: Any) -> Picture:
    notes = list[str]()
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # whose others are previews
        notes.append(f"has {image.n_frames} frames, of which the first is taken")
    deep = image.mode not in DEEP and ";16" in str(image.tile)
    kind, icc = str(image.format).replace("MPO", "JPEG"), image.info.get("icc_profile")
    image = upright(image)
    exif = _exif(image) if kind != "TIFF" else b""  # of which they are its own tags, that Pillow writes anew
    if deep:
        notes.append("has 16 bits a channel, of which Pillow reads 8")
    if image.mode in ("I", "F"):
        raise Unreadable("has 32 bits a pixel: gray ones of 8 and 16 bits and colour are read")
    if image.mode in DEEP:
        return Picture(np.asarray(image).astype(np.uint16)[..., None], None, kind, exif, icc, notes)
    mode = _mode(image)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"is {image.mode}, taken as RGB")
        icc = None
    values = np.array(image.convert(mode))
    if mode in ("L", "RGB"):
        return Picture(values.reshape(*values.shape[:2], -1), None, kind, exif, icc, notes)
    return Picture(values[..., :-1], values[..., -1].copy(), kind, exif, icc, notes)


def _mode(image: Any) -> str:
    """L, LA, RGB or RGBA: what holds the picture."""
    gray = image.mode in ("1", "L", "LA", "La")
    alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    return ("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB")


def _exif(image: Any) -> bytes:
    """Without the orientation, which it has been turned by; damaged ones count as none."""
    try:
        exif = image.getexif()
        exif.pop(ORIENTATION, None)
        return exif.tobytes() if len(exif) else b""
    except Exception:  # of all kinds
        return b""


# ---- writing -----------------------------------------------------------------------------------------------


def candidates(path: Path) -> tuple[Path, Path]:
    """Where `write` puts a picture: at its own name, or beside it as PNG."""
    return path, path.with_name(f"{path.name}.png")


def write(picture: Picture, path: Path) -> Path:
    """Writes it in its own format, or as PNG with ".png" after its name if that can't hold it; says where."""
    image = _image(picture)
    kind, (own, as_png) = picture.format, candidates(path)
    if image.mode in CANNOT_HOLD.get(kind, ()):
        kind, path = "PNG", as_png
        picture.notes.append(f"saved as {as_png.name}: {picture.format} can't hold it")
    else:
        path = own
    metadata: dict[str, Any] = {"icc_profile": picture.icc} if picture.icc else {}
    if picture.exif and kind in ("PNG", "JPEG", "WEBP"):
        metadata["exif"] = picture.exif
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        image.save(temporary, format=kind, **SAVING[kind], **metadata)
    return path


def _image(picture: Picture) -> Image.Image:
    values = picture.values
    if picture.alpha is not None:
        values = np.concatenate([values, picture.alpha[..., None]], axis=2)
    return Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values))


def clear_unfinished(path: Path) -> None:
    """Removes what a process that was killed had not finished writing in place of `path`."""
    for name in candidates(path):
        for temporary in path.parent.glob(f".{glob.escape(name.name)}.*.tmp"):
            if re.fullmatch(r"\.\d+\.tmp", temporary.name.removeprefix(f".{name.name}")):
                temporary.unlink(missing_ok=True)
