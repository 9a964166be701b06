"""Chunks made by litdata (Lightning's streaming engine), read as plain data.

A folder of chunks holds `index.json` and binary files. Of n items, a file has (little-endian uint32)

    n | offsets (n + 1) | items:   sizes of the leaves | bytes of the leaves

and `index.json` says what the leaves are: the image and its label, as a tensor, an array, a JPEG and so on.

litdata's own reader is not used: it imports a module that `index.json` names and unpickles what it calls a
pickle, both of which a stranger may have written. This one takes rows of a file that is mapped into memory.
"""

import json
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from autoencoders import untrusted
from autoencoders.data import pictures
from autoencoders.data.pictures import Bytes, Unreadable
from autoencoders.errors import UserError

INDEX = "index.json"
NAME = re.compile(r"\w[\w.-]*")  # of a file: in the folder of chunks and nowhere else
OPEN = 2000  # files that are mapped at once, at most
MOST_CLASSES = 10_000
UINT8 = np.dtype("u1")
# litdata's numbers for the types of the elements, of tensors and of arrays.
OF_TENSORS = {
    number: np.dtype(name)
    for names, name in {
        (0, 1): "f4", (2, 3): "f8", (8, 9): "f2", (11,): "u1", (12,): "i1", (13, 14): "i2", (15, 16): "i4",
        (17, 18): "i8", (20,): "u2",
    }.items()
    for number in names
}  # fmt: skip
OF_ARRAYS = dict(enumerate(map(np.dtype, ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))))
RAW = ("tensor", "numpy")  # pixels as they are, after a header
ENCODED = ("jpeg", "image", "bytes")  # a file in itself
KINDS = (*RAW, *ENCODED, "pil")  # of an image
LABELS = ("int", *RAW)
MODES = {"L": 1, "RGB": 3, "RGBA": 4}  # of a "pil": bytes a pixel


class Files(Protocol):
    """Where the files of one split are."""

    name: str  # for messages

    def file(self, name: str) -> Path:
        """A file in it, once it is on this machine."""
        ...

    def fetch(self, names: Iterable[str]) -> None:
        """Announces the files that are needed next."""
        ...


@dataclass(frozen=True)
class Leaves:
    """What of an item is what."""

    kinds: tuple[str, ...]  # of each leaf
    image: int
    label: int | None


class Chunks:
    """The images of one split and their labels, by their places.

    Args:
        files: where they are.
        channels: 1 (gray) or 3 (colour); None: as the first image has.
        size: of the sides, after `fit`; None: as the first image has, and all must.
        fit: as for `pictures.read`.
        classes: how many there are; 0: that is not known.

    Raises:
        UserError: it is damaged, or has something else than plain images.
    """

    def __init__(
        self, files: Files, channels: int | None, size: int | None, fit: str, classes: int = 0
    ) -> None:
        self.most_labels = classes or MOST_CLASSES
        self.files, self.size, self.fit = files, size, fit
        self.names, counts, self.leaves = read_index(files.file(INDEX))
        self.starts = torch.tensor([0, *counts]).cumsum(0)  # (chunks + 1,): the first place in each
        self._counts, self._opened = counts, dict[int, Chunk]()
        first, kind = self._chunk(0), self.leaves.kinds[self.leaves.image]
        try:
            leaf = first.leaf(0, self.leaves, self.leaves.image)
            picture = decoded(kind, leaf, 3, None, "crop")
            self.channels = channels or (1 if _is_gray(kind, leaf) else 3)
        except Unreadable as error:
            raise UserError(f"{first.path}: its first image: {error}") from None
        height, width = (size, size) if size else picture.shape[1:]
        self.shape = (self.channels, height, width)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def announce(self, numbers: Sequence[int]) -> None:
        """Has the files of some chunks fetched, which are needed next, and lets go of all others."""
        self._opened = {number: self._opened[number] for number in self._opened.keys() & set(numbers)}
        self.files.fetch([self.names[number] for number in numbers])

    def _chunk(self, number: int) -> "Chunk":
        if number not in self._opened:
            if len(self._opened) >= OPEN:
                self._opened.pop(next(iter(self._opened)))  # the one that was opened first
            self._opened[number] = Chunk(self.files.file(self.names[number]), self._counts[number])
        return self._opened[number]

    def of(self, places: Tensor) -> Tensor:
        """The number of the chunk of each place."""
        return torch.searchsorted(self.starts, places, right=True) - 1

    def read(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """The images (B, C, H, W) uint8 at `places` (B,) and their labels (B,) int64, 0 if they have none.

        Raises:
            UserError: one of them is damaged.
        """
        images, labels = np.empty((len(places), *self.shape), np.uint8), np.zeros(len(places), np.int64)
        numbers = self.of(places)
        for number in numbers.unique().tolist():
            here = (numbers == number).numpy()
            chunk, within = self._chunk(number), (places.numpy()[here] - int(self.starts[number]))
            images[here], labels[here] = self._alike(chunk, within) or self._one_by_one(chunk, within)
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.most_labels:
            raise UserError(f"{self.files.name}: its labels must be from 0 to {self.most_labels - 1}")
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _alike(self, chunk: "Chunk", places: NDArray[np.int64]) -> tuple[Bytes, NDArray[np.int64]] | None:
        """Where all items are alike but for pixels and label, they are rows of a matrix: a hundred times as
        fast as one by one. None where they are not, or not of the wanted shape."""
        image, label, kinds = self.leaves.image, self.leaves.label, self.leaves.kinds
        if chunk.rows is None or kinds[image] not in RAW or (label is not None and kinds[label] != "int"):
            return None
        try:
            sizes = chunk.sizes(0, len(kinds))
            starts = 4 * len(kinds) + np.cumsum([0, *sizes])
            dtype, shape, header = _header(kinds[image], chunk.item(0)[starts[image] : starts[image + 1]])
        except (Unreadable, struct.error):
            return None
        order = _order(shape)
        if dtype != UINT8 or order is None or (1, *(shape[axis] for axis in order))[-3:] != self.shape:
            return None
        pixels = int(starts[image]) + header
        if pixels + int(np.prod(shape)) != starts[image + 1]:
            return None
        rows, same = chunk.rows[places], [slice(0, 4 * len(kinds)), slice(int(starts[image]), pixels)]
        if any((rows[:, part] != chunk.rows[0, part]).any() for part in same):
            return None
        images = rows[:, pixels : starts[image + 1]].reshape(len(rows), *shape)
        images = images.transpose(0, *(1 + axis for axis in order)).reshape(len(rows), *self.shape)
        if label is None:
            return images, np.zeros(len(rows), np.int64)
        return images, np.frombuffer(rows[:, starts[label] : starts[label + 1]].tobytes(), "<i8")

    def _one_by_one(self, chunk: "Chunk", places: NDArray[np.int64]) -> tuple[Bytes, NDArray[np.int64]]:
        image, label, kinds = self.leaves.image, self.leaves.label, self.leaves.kinds
        images, labels = np.empty((len(places), *self.shape), np.uint8), np.zeros(len(places), np.int64)
        for row, place in enumerate(places.tolist()):
            try:
                found = decoded(
                    kinds[image], chunk.leaf(place, self.leaves, image), self.channels, self.size, self.fit
                )
                if found.shape != self.shape:
                    raise Unreadable(
                        f"it is {found.shape[2]} x {found.shape[1]}, and the first {self.shape[2]} x "
                        f"{self.shape[1]} pixels: data.size=64 makes all of one size"
                    )
                images[row] = found
                if label is not None:
                    labels[row] = _whole(kinds[label], chunk.leaf(place, self.leaves, label))
            except Unreadable as error:
                raise UserError(f"{chunk.path}: its image {place}: {error}") from None
        return images, labels


class Chunk:
    """A file of items, mapped into memory.

    Args:
        count: how many there should be.

    Raises:
        UserError: it is damaged.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        if (size := path.stat().st_size) < 4 * (count + 2):
            raise UserError(f"{path} is damaged: it is too short for its {count} images")
        self.bytes = cast(Bytes, np.memmap(path, np.uint8, mode="r"))
        self.offsets = self.bytes[4 : 4 * (count + 2)].view("<u4").astype(np.int64)
        lengths = np.diff(self.offsets)
        first = int(self.bytes[:4].view("<u4")[0])
        if (
            first != count
            or self.offsets[0] != 4 * (count + 2)
            or self.offsets[-1] > size
            or lengths.min() < 4
        ):
            raise UserError(f"{path} is damaged, or not a file of {count} images as its {INDEX} says")
        self.rows: Bytes | None = None  # the items as a matrix, where all are as long
        if (lengths == lengths[0]).all():
            self.rows = self.bytes[self.offsets[0] : self.offsets[-1]].reshape(count, lengths[0])

    def item(self, place: int) -> Bytes:
        return self.bytes[self.offsets[place] : self.offsets[place + 1]]

    def sizes(self, place: int, leaves: int) -> list[int]:
        """Of the leaves of an item, in bytes."""
        item = self.item(place)
        sizes = item[: 4 * leaves].tobytes()
        if len(sizes) < 4 * leaves or 4 * leaves + sum(found := struct.unpack(f"<{leaves}I", sizes)) != len(
            item
        ):
            raise Unreadable("it is damaged")
        return list(found)

    def leaf(self, place: int, leaves: Leaves, number: int) -> Bytes:
        """The bytes of one of them."""
        sizes = self.sizes(place, len(leaves.kinds))
        start = 4 * len(sizes) + sum(sizes[:number])
        return self.item(place)[start : start + sizes[number]]


# ---- the index ---------------------------------------------------------------------------------------------


def read_index(path: Path) -> tuple[list[str], list[int], Leaves]:
    """The names of the files, how many items each has, and what the items are.

    Raises:
        UserError: it is damaged, or says that they are not plain images.
    """
    content = untrusted.read_json(path)
    chunks, config = content.get("chunks"), content.get("config")
    if not isinstance(chunks, list) or not chunks or not isinstance(config, dict):
        raise UserError(f"{path} is damaged, or not of chunks that litdata made")
    names, counts = list[str](), list[int]()
    for chunk in chunks:
        chunk = chunk if isinstance(chunk, dict) else {}
        name, count = chunk.get("filename"), chunk.get("chunk_size")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{path} is damaged: {name} is not the name of a file beside it")
        if isinstance(count, bool) or not isinstance(count, int) or not 0 < count < 2**30:
            raise UserError(f"{path} is damaged: {name} has chunk_size={count}")
        names.append(name)
        counts.append(count)
    for key, allowed in {"compression": None, "encryption": None, "item_loader": "PyTreeLoader"}.items():
        if config.get(key) not in (None, allowed):
            raise UserError(f"{path}: {key}={config[key]} is not read here: make the chunks without it")
    return names, counts, _leaves(path, config)


def _leaves(path: Path, config: dict[str, Any]) -> Leaves:
    formats = config.get("data_format")
    if not isinstance(formats, list) or not all(isinstance(name, str) for name in formats):
        raise UserError(f"{path} is damaged, or not of chunks that litdata made: data_format={formats}")
    kinds = tuple(name.partition(":")[0] for name in formats)
    names = _names(config.get("data_spec"))
    names = (
        names
        if len(names) == len(kinds)
        else ["image", "label", *map(str, range(2, len(kinds)))][: len(kinds)]
    )
    if "image" not in names:
        raise UserError(f"{path}: its items have no 'image', but {', '.join(names)}")
    leaves = Leaves(kinds, names.index("image"), names.index("label") if "label" in names else None)
    for name, place, known in (("image", leaves.image, KINDS), ("label", leaves.label, LABELS)):
        if place is not None and kinds[place] not in known:
            why = ", which may run code, and" if kinds[place] == "pickle" else " and"
            raise UserError(
                f"{path}: each {name} is a {kinds[place]}{why} is not read: make the chunks of "
                "{'image': uint8 array or tensor, or PIL image, 'label': int}"
            )
    return leaves


def _names(spec: Any) -> list[str]:
    """Of the leaves, where the items are dicts."""
    try:
        _, tree = json.loads(spec)
        names = json.loads(tree["context"]) if tree["type"] == "builtins.dict" else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


# ---- leaves ------------------------------------------------------------------------------------------------


def decoded(kind: str, leaf: Bytes, channels: int, size: int | None, fit: str) -> Bytes:
    """An image (C, H, W) of a leaf's bytes.

    Raises:
        Unreadable: it is damaged.
    """
    if kind in ENCODED:
        return pictures.read(BytesIO(leaf.tobytes()), channels, size, fit)
    if kind == "pil":
        return pictures.read_array(_pixels_of_pil(leaf), channels, size, fit)
    array = _array(kind, leaf)
    if (order := _order(array.shape)) is None:
        raise Unreadable(f"its shape {array.shape} is not that of an image")
    planes = array.transpose(order)  # (C, H, W) or (H, W)
    return pictures.read_array(planes if array.ndim == 2 else planes.transpose(1, 2, 0), channels, size, fit)


def _is_gray(kind: str, leaf: Bytes) -> bool:
    if kind in RAW:
        _, shape, _ = _header(kind, leaf)
        return len(shape) == 2 or 1 in (shape[0], shape[2])
    if kind == "pil":
        return _pixels_of_pil(leaf).ndim == 2
    with Image.open(BytesIO(leaf.tobytes())) as picture:
        return picture.mode in pictures.GRAY_MODES


def _header(kind: str, leaf: Bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """The type and shape of a tensor or array, and how long what says so is."""
    order, types = (">", OF_TENSORS) if kind == "tensor" else ("<", OF_ARRAYS)
    start = leaf[:24].tobytes()
    try:
        number, rank = struct.unpack_from(f"{order}2I", start)
        if rank > 4:
            raise KeyError(rank)
        return types[number], struct.unpack_from(f"{order}{rank}I", start, 8), 8 + 4 * rank
    except (struct.error, KeyError):
        raise Unreadable("it is damaged, or of a type that images don't have") from None


def _array(kind: str, leaf: Bytes) -> NDArray[Any]:
    dtype, shape, header = _header(kind, leaf)
    if (len(leaf) - header) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise Unreadable("it is damaged: its bytes are not as many as its shape says")
    return np.frombuffer(leaf[header:].tobytes(), dtype).reshape(shape)


def _order(shape: Sequence[int]) -> tuple[int, ...] | None:
    """How to transpose an array to (C, H, W), or (H, W); channels are first, or else last."""
    if len(shape) == 2:
        return (0, 1)
    if len(shape) == 3 and shape[0] in (1, 3):
        return (0, 1, 2)
    return (2, 0, 1) if len(shape) == 3 and shape[2] in (1, 3, 4) else None


def _pixels_of_pil(leaf: Bytes) -> Bytes:
    """(H, W[, C]) of what PIL's `tobytes` gave."""
    if len(leaf) < 12:
        raise Unreadable("it is damaged")
    width, height, letters = struct.unpack("<3I", leaf[:12].tobytes())
    mode = leaf[12 : 12 + letters].tobytes().decode("ascii", "replace")
    if mode not in MODES:
        raise Unreadable(f"its mode is not {', '.join(MODES)}")
    pixels = leaf[12 + letters :]
    if len(pixels) != width * height * MODES[mode]:
        raise Unreadable("it is damaged: its bytes are not as many as its size says")
    return pixels.reshape((height, width) if mode == "L" else (height, width, MODES[mode]))


def _whole(kind: str, leaf: Bytes) -> int:
    """A label."""
    array = np.frombuffer(leaf.tobytes(), "<i8") if kind == "int" and len(leaf) == 8 else None
    array = _array(kind, leaf) if array is None and kind in RAW else array
    if array is None or array.size != 1 or not np.issubdtype(array.dtype, np.integer):
        raise Unreadable("its label is not one whole number")
    return int(array.reshape(-1)[0])
