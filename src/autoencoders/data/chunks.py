"""Chunks made by litdata (Lightning's streaming engine), read as plain data.

A folder of chunks holds `index.json` and binary files. Of n items, a file has (little-endian uint32)

    n | offsets (n + 1) | items:   sizes of the leaves | bytes of the leaves

and `index.json` says what the leaves are: the image and its label, as a tensor, an array, a JPEG and so on.

litdata's own reader is not used: it imports a module that `index.json` names and unpickles what it calls a
pickle, both of which a stranger may have written. This one takes rows of a file that is mapped into memory.
"""

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
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
            leaf = first.leaf(0, self.leaves.image)
            picture = decoded(kind, leaf, 3, None, "crop")
            self.channels = channels or (1 if _is_gray(kind, leaf) else 3)
        except Unreadable as error:
            raise UserError(f"{first.path}: its first image {error}") from None
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
            self._opened[number] = Chunk(
                self.files.file(self.names[number]), self._counts[number], self.leaves
            )
        return self._opened[number]

    def of(self, places: Tensor) -> Tensor:
        """The number of the chunk of each place."""
        return torch.searchsorted(self.starts, places, right=True) - 1

    def read(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """The images (B, C, H, W) uint8 at `places` (B,) and their labels (B,) int64, 0 if they have none.

        Raises:
            UserError: one of them is damaged.
        """
        numbers = self.of(places)
        chunks = {number: self._chunk(number) for number in numbers.unique().tolist()}
        within = places - self.starts[numbers]
        images, labels = self._alike(chunks, numbers, within) or self._one_by_one(chunks, numbers, within)
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.most_labels:
            raise UserError(f"{self.files.name}: its labels must be from 0 to {self.most_labels - 1}")
        return images, labels

    def _alike(
        self, chunks: Mapping[int, "Chunk"], numbers: Tensor, within: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Where all items are alike but for pixels and label, they are rows of matrices, which is fast. None
        where they are not, or not of the wanted shape."""
        layouts = {chunk.layout for chunk in chunks.values()}
        layout = layouts.pop() if len(layouts) == 1 else None
        if layout is None or (1, *(layout.shape[axis] for axis in layout.order))[-3:] != self.shape:
            return None
        order, counts = numbers.argsort(stable=True), numbers.bincount()
        items, start = torch.empty((len(order), layout.length), dtype=torch.uint8), 0
        for number in sorted(chunks):
            rows = slice(start, start := start + int(counts[number]))
            torch.index_select(chunks[number].rows, 0, within[order[rows]], out=items[rows])
        for place, known in layout.same:
            if (items[:, place : place + len(known)] != torch.tensor(list(known), dtype=torch.uint8)).any():
                return None
        back = order.argsort()
        images = items[:, layout.pixels : layout.end].index_select(0, back)
        images = images.view(-1, *layout.shape).permute(0, *(1 + axis for axis in layout.order))
        labels = torch.zeros(len(back), dtype=torch.int64)
        if layout.label is not None:
            labels = items[:, layout.label : layout.label + 8].index_select(0, back).view(torch.int64)[:, 0]
        return images.reshape(-1, *self.shape), labels

    def _one_by_one(
        self, chunks: Mapping[int, "Chunk"], numbers: Tensor, within: Tensor
    ) -> tuple[Tensor, Tensor]:
        image, label, kinds = self.leaves.image, self.leaves.label, self.leaves.kinds
        images = torch.empty((len(numbers), *self.shape), dtype=torch.uint8)
        labels = torch.zeros(len(numbers), dtype=torch.int64)
        for row, (number, place) in enumerate(zip(numbers.tolist(), within.tolist(), strict=True)):
            chunk = chunks[number]
            try:
                leaf = chunk.leaf(place, image)
                found = decoded(kinds[image], leaf, self.channels, self.size, self.fit)
                if found.shape != self.shape:
                    raise Unreadable(
                        f"is {found.shape[2]} x {found.shape[1]}, and the first {self.shape[2]} x "
                        f"{self.shape[1]} pixels: data.size=64 makes all of one size"
                    )
                images[row] = torch.from_numpy(found.copy())
                if label is not None:
                    labels[row] = _whole(kinds[label], chunk.leaf(place, label))
            except Unreadable as error:
                raise UserError(f"{chunk.path}: its image {place} {error}") from None
        return images, labels


@dataclass(frozen=True)
class Layout:
    """Where in the items of a file, all as long, the pixels and the label are."""

    length: int  # of an item
    pixels: int  # from here
    end: int  # to here
    shape: tuple[int, ...]  # of the image
    order: tuple[int, ...]  # of its axes, to make it (C, H, W)
    label: int | None  # eight bytes
    same: tuple[tuple[int, bytes], ...]  # what must be the same in all, and from where on


class Chunk:
    """A file of items, mapped into memory.

    Args:
        count: how many there should be.

    Raises:
        UserError: it is damaged.
    """

    def __init__(self, path: Path, count: int, leaves: Leaves) -> None:
        self.path, self.leaves = path, leaves
        if (size := path.stat().st_size) < 4 * (count + 2):
            raise UserError(f"{path} is damaged: it is too short for its {count} images")
        # Copied on writing, which nobody does: torch warns of memory that can't be written to.
        self.bytes = cast(Bytes, np.memmap(path, np.uint8, mode="c"))
        self.offsets = self.bytes[4 : 4 * (count + 2)].view("<u4").astype(np.int64)
        lengths = np.diff(self.offsets)
        first, start, end = int(self.bytes[:4].view("<u4")[0]), self.offsets[0], self.offsets[-1]
        if first != count or start != 4 * (count + 2) or end > size or lengths.min() < 4:
            raise UserError(f"{path} is damaged, or not a file of {count} images as its {INDEX} says")
        self.layout = self._layout() if (lengths == lengths[0]).all() else None
        if self.layout is not None:
            self.rows = torch.from_numpy(self.bytes[start:end]).view(count, -1)

    def item(self, place: int) -> Bytes:
        return self.bytes[self.offsets[place] : self.offsets[place + 1]]

    def sizes(self, place: int) -> list[int]:
        """Of the leaves of an item, in bytes."""
        item, leaves = self.item(place), len(self.leaves.kinds)
        sizes = item[: 4 * leaves].tobytes()
        if len(sizes) < 4 * leaves or 4 * leaves + sum(found := struct.unpack(f"<{leaves}I", sizes)) != len(
            item
        ):
            raise Unreadable("is damaged")
        return list(found)

    def leaf(self, place: int, number: int) -> Bytes:
        """The bytes of one of them."""
        sizes = self.sizes(place)
        start = 4 * len(sizes) + sum(sizes[:number])
        return self.item(place)[start : start + sizes[number]]

    def _layout(self) -> Layout | None:
        """That of the first item, if it is one of raw pixels."""
        image, label, kinds = self.leaves.image, self.leaves.label, self.leaves.kinds
        if kinds[image] not in RAW or (label is not None and kinds[label] != "int"):
            return None
        try:
            sizes = self.sizes(0)
            dtype, shape, header = _header(kinds[image], self.leaf(0, image))
        except Unreadable:
            return None  # which reading it one by one explains
        starts = [4 * len(sizes) + sum(sizes[:number]) for number in range(len(sizes) + 1)]
        order, pixels = _order(shape), starts[image] + header
        if dtype != UINT8 or order is None or pixels + math.prod(shape) != starts[image + 1]:
            return None
        if label is not None and sizes[label] != 8:
            return None
        item = self.item(0).tobytes()
        same = ((0, item[: 4 * len(sizes)]), (starts[image], item[starts[image] : pixels]))
        place = None if label is None else starts[label]
        return Layout(len(item), pixels, starts[image + 1], shape, order, place, same)


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
        raise Unreadable(f"has the shape {array.shape}, which is not that of an image")
    planes = array.transpose(order)  # (C, H, W) or (H, W)
    return pictures.read_array(planes if array.ndim == 2 else planes.transpose(1, 2, 0), channels, size, fit)


def _is_gray(kind: str, leaf: Bytes) -> bool:
    if kind in RAW:
        _, shape, _ = _header(kind, leaf)
        return len(shape) == 2 or 1 in (shape[0], shape[2])
    if kind == "pil":
        return _pixels_of_pil(leaf).ndim == 2
    with pictures.opened(BytesIO(leaf.tobytes())) as picture:
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
        raise Unreadable("is damaged, or of a type that images don't have") from None


def _array(kind: str, leaf: Bytes) -> NDArray[Any]:
    dtype, shape, header = _header(kind, leaf)
    if (len(leaf) - header) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise Unreadable("is damaged: its bytes are not as many as its shape says")
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
        raise Unreadable("is damaged")
    width, height, letters = struct.unpack("<3I", leaf[:12].tobytes())
    mode = leaf[12 : 12 + letters].tobytes().decode("ascii", "replace")
    if mode not in MODES:
        raise Unreadable(f"has a mode that is not {', '.join(MODES)}")
    pixels = leaf[12 + letters :]
    if len(pixels) != width * height * MODES[mode]:
        raise Unreadable("is damaged: its bytes are not as many as its size says")
    return pixels.reshape((height, width) if mode == "L" else (height, width, MODES[mode]))


def _whole(kind: str, leaf: Bytes) -> int:
    """A label."""
    array = np.frombuffer(leaf.tobytes(), "<i8") if kind == "int" and len(leaf) == 8 else None
    array = _array(kind, leaf) if array is None and kind in RAW else array
    if array is None or array.size != 1 or not np.issubdtype(array.dtype, np.integer):
        raise Unreadable("has a label that is not one whole number")
    return int(array.reshape(-1)[0])
