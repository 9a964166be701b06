"""What images are made of: the pictures of a folder or of a file of arrays, and patches of them."""

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from autoencoders.data import pictures
from autoencoders.data.pairs import Images, RawBatch
from autoencoders.errors import UserError, one_line
from autoencoders.randomness import Randomness, Stream

NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}  # of their folders


class Folder:
    """A folder of pictures: their names, labels and splits.

    `refused` are pictures of kinds that are not read, and folders that are links, which one may take for its
    classes: they are named as unreadable.
    """

    def __init__(self, root: Path) -> None:
        found, refused = pictures.find(root)
        self.root, self.refused = root, tuple(map(str, refused))
        if not found:
            raise UserError(f"data.root={root} has no pictures: {', '.join(pictures.SUFFIXES)} are read")
        folders = {path.parts[0].lower(): path.parts[0] for path in found if len(path.parts) > 1}
        self._folders = {
            split: folders[name] for split, names in NAMES.items() for name in names if name in folders
        }
        if "train" in self._folders:
            found = [path for path in found if path.parts[0] in self._folders.values()]
        else:
            self._folders = {}
        self._paths, self.names = found, [str(path) for path in found]
        within = [path.parts[1:-1] if self._folders else path.parts[:-1] for path in found]
        named = sorted({parts[0] for parts in within if parts})
        self.classes = tuple(map(one_line, named)) if all(within) and len(named) > 1 else ()
        number = {name: label for label, name in enumerate(named)}
        self.labels = [number[parts[0]] if self.classes else 0 for parts in within]

    def files(self) -> dict[str, Path]:
        """By their names within the folder, and what is refused."""
        named = {name: self.root / path for name, path in zip(self.names, self._paths, strict=True)}
        return named | {name: self.root / name for name in self.refused}

    def in_colour(self) -> bool:
        return pictures.in_colour(list(self.files().values()), self.root)

    def splits(self) -> dict[str, list[int]]:
        """The places of the pictures of each split that has a folder; of training, if there are none."""
        if not self._folders:
            return {"train": list(range(len(self.names)))}
        return {
            split: [place for place, path in enumerate(self._paths) if path.parts[0] == folder]
            for split, folder in self._folders.items()
        }

    def reader(self, place: int, channels: int, size: int | None, fit: str) -> Callable[[], pictures.Bytes]:
        path = self.root / self._paths[place]
        return partial(pictures.read, path, channels, size, fit, self.root)


class Photos(Folder):
    """The sample photos, likewise."""

    SPLITS: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": (
            "astronaut.png", "flower.jpg", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png",
            "motorcycle_right.png", "brick.png", "coins.png", "grass.png", "gravel.png",
        ),
        "val": ("coffee.png", "moon.png"),
        "test": ("camera.png", "chelsea.png", "china.jpg", "rocket.jpg"),
    }  # fmt: skip

    def __init__(self) -> None:
        self._paths = [_photo(name) for names in self.SPLITS.values() for name in names]
        self.root, self.classes = Path(self._paths[0].anchor), ()
        self.refused = ()
        self.names, self.labels = [path.name for path in self._paths], [0] * len(self._paths)

    def splits(self) -> dict[str, list[int]]:
        return {split: [self.names.index(name) for name in names] for split, names in self.SPLITS.items()}


class Arrays:
    """A file of arrays, likewise."""

    refused: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images, labels = pictures.load_arrays(path)
        self.names = [f"{path.name}[{place}]" for place in range(len(self.images))]
        self.labels = [0] * len(self.images) if labels is None else labels.tolist()
        if min(self.labels) < 0 or max(self.labels) > 10_000:
            raise UserError(f"{path}: its labels must be from 0 to 10,000")
        self.classes = () if labels is None else tuple(str(label) for label in range(max(self.labels) + 1))
        self.size: tuple[int, int] = tuple(self.images.shape[1:3])

    def files(self) -> dict[str, Path]:
        return {self.path.name: self.path}

    def in_colour(self) -> bool:
        return self.images.ndim == 4 and self.images.shape[3] >= 3

    def splits(self) -> dict[str, list[int]]:
        return {"train": list(range(len(self.images)))}

    def reader(self, place: int, channels: int, size: int | None, fit: str) -> Callable[[], pictures.Bytes]:
        return lambda: pictures.read_array(self.images[place], channels, size, fit)


def _photo(name: str) -> Path:
    """Where its package holds it; the package itself, which takes long to import, is not asked."""
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        found = find_spec(package)
        for place in (found.submodule_search_locations or ()) if found else ():
            if (path := Path(place) / folder / name).is_file():
                return path
    raise UserError(f"data=sample_photos: scikit-image and scikit-learn no longer bring {name} with them")


class Patches:
    """The squares of a fixed grid over pictures whose bytes lie in a row: like a tensor (N, C, S, S) of which
    only what is asked for is in memory.

    Args:
        flat: the bytes (C, H, W) of each picture, one after the other.
        sizes: (H, W) of each.
    """

    def __init__(self, flat: Tensor, sizes: Sequence[tuple[int, int]], channels: int, side: int) -> None:
        self.flat, self.channels, self.side = flat, channels, side
        self.sizes = torch.tensor(sizes)
        pixels = self.sizes.prod(1) * channels
        self.offsets = pixels.cumsum(0) - pixels
        rows, columns = (self.sizes // side).unbind(1)
        counts = rows * columns
        self.picture = torch.repeat_interleave(torch.arange(len(sizes)), counts)  # (N,)
        place = torch.arange(len(self.picture)) - (counts.cumsum(0) - counts)[self.picture]
        columns = columns[self.picture]
        self.corner = side * torch.stack([place // columns, place % columns], 1)  # (N, 2): top and left

    def __len__(self) -> int:
        return len(self.picture)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), self.channels, self.side, self.side))

    def __getitem__(self, rows: Any) -> Tensor:
        """The patches (B, C, S, S) at some places."""
        return self.cut(self.picture[rows], self.corner[rows])

    def first(self, count: int) -> "Patches":
        """The first ones alone."""
        part = copy(self)
        part.picture, part.corner = self.picture[:count], self.corner[:count]
        return part

    def index_select(self, _: int, rows: Tensor) -> Tensor:
        return self.cut(self.picture[rows], self.corner[rows])

    def cut(self, picture: Tensor, corner: Tensor) -> Tensor:
        """The squares (B, C, S, S) at `corner` (B, 2) of the pictures (B,)."""
        out = torch.empty((len(picture), self.channels, self.side, self.side), dtype=torch.uint8)
        starts, places = self.offsets[picture].tolist(), corner.tolist()
        for row, ((height, width), start, (top, left)) in enumerate(
            zip(self.sizes[picture].tolist(), starts, places, strict=True)
        ):
            whole = self.flat[start : start + self.channels * height * width].view(-1, height, width)
            out[row] = whole[:, top : top + self.side, left : left + self.side]
        return out


class RandomPatches(Images):
    """Training patches: at each step a new place in the picture of each. Looked at otherwise, they are those
    of the grid."""

    def __init__(self, images: Patches, labels: Tensor, corrupted: Patches | None, seed: int) -> None:
        super().__init__(cast(Tensor, images), labels, cast(Tensor | None, corrupted))
        self.patches, self.measured, self.seed = images, corrupted, seed

    def take(self, rows: Tensor, step: int = 0, part: slice = slice(None)) -> RawBatch:
        """As for `Images`."""
        chance = Randomness(self.seed, Stream.CROPS, step, rows=len(rows)).uniform(len(rows), 2)[part]
        picture = self.patches.picture[rows[part]]
        free = self.patches.sizes[picture] - self.patches.side + 1
        corner = (chance * free).long()
        corrupted = None if self.measured is None else self.measured.cut(picture, corner)
        return RawBatch(step, self.patches.cut(picture, corner), self.labels[rows[part]], corrupted)
