"""The data module of the user's own images: a folder of pictures, a file of arrays, or a pair of them."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from autoencoders import checks
from autoencoders.corruption import Identity
from autoencoders.data import cache, pictures
from autoencoders.data.cache import SPLITS, Item
from autoencoders.data.collections import Arrays, Folder, Patches, Photos, RandomPatches
from autoencoders.data.modules import ImageDataModule, default_root
from autoencoders.data.pairs import Images
from autoencoders.errors import UserError
from autoencoders.randomness import Randomness, Stream

HELD_OUT = 0.1  # of the pictures, for a split that has no folder of its own
MOST_HELD_OUT = {"val": 5000, "test": 10_000}


class ImageFolder(ImageDataModule):
    """Pictures of the user's own, decoded once into a memory-mapped cache (`cache.py`).

    A folder holds PNG, JPEG, TIFF, WebP or BMP files. Its subfolders `train`, `val` and `test` are the splits
    where they are there; what is missing of the last two is held out of the training pictures, whole pictures
    by a fixed seed. Subfolders, within a split, are classes if all pictures are in one. A file is `.npy`,
    `.npz` or `.pt` with arrays (N, H, W[, C]).

    Args:
        root: the folder or the file.
        input_root: a folder or a file with the corrupted version of each picture, measured, by the same
            names (any suffix) or in the same order; None: the corruption makes them.
        size: of the sides of an image, 1 to 4096; None: as it is, for files of arrays.
        fit: how a picture gets that size: "crop", "resize", "pad", or "patches": random crops at each step of
            training, the squares of a fixed grid in validation and test. See `pictures.read`.
        channels: 1 (gray) or 3 (colour); None: 3 if the pictures have colour.
        validation_size, test_size: pictures that are held out for a split that isn't there; None: a tenth, at
            most 5,000 and 10,000.
        strict: refuse unreadable pictures, which are otherwise named and left out.
        cache: the folder of the caches; None: `cache` in `data` of this repository or the current directory.
        **options: as for `ImageDataModule`.

    Raises:
        ValueError: an argument out of its range, or two that don't go together.
        UserError: there is no such folder, or there are no pictures in it.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        input_root: str | Path | None = None,
        size: int | None = 64,
        fit: str = "crop",
        channels: int | None = None,
        validation_size: int | None = None,
        test_size: int | None = None,
        strict: bool = False,
        cache: str | Path | None = None,
        **options: Any,
    ) -> None:
        checks.choice("fit", fit, pictures.FITS)
        checks.boolean("strict", strict)
        if channels is not None:
            checks.choice("channels", channels, (1, 3))
        if size is not None:
            checks.integer("size", size, 1, 4096)
        for name, value in (("validation_size", validation_size), ("test_size", test_size)):
            if isinstance(value, float):
                raise ValueError(f"{name}={value} must be a number of pictures, not a share of them")
            if value is not None:
                checks.integer(name, value, 1, 10**6)
        self.fit, self.strict, self.held_out = fit, strict, {"val": validation_size, "test": test_size}
        self.cache = Path(cache) if cache is not None else default_root() / "cache"
        self.measured, self._roots = input_root is not None, (root, input_root)
        gone = root is None or not (Path(root).exists() or isinstance(self, SamplePhotos))
        if not (gone and channels and size):  # as of an exported run, whose shapes are known without pictures
            self._open()
        self.channels = channels or (3 if self._clean.in_colour() else 1)
        if size is not None:
            height = width = size
        elif isinstance(self._clean, Arrays):
            height, width = self._clean.size
        else:
            raise ValueError("size=None must be the side of the images, as pictures of a folder may differ")
        # Of each module its own, where others have one for all.
        self.image_shape = (self.channels, height, width)  # type: ignore[misc]
        self._side = size
        gray_input = self._measured is not None and not self._measured.in_colour()
        if gray_input and options.get("input") is None:
            options["input"] = "gray"
        if self.measured and options.get("corrupt_once"):
            raise ValueError("corrupt_once=True does not go with input_root, which has the corrupted images")
        super().__init__(root or "pictures", size=size, validation_size=validation_size or 1, **options)
        self._input_channels = self.input_shape[0]
        if fit == "patches" and self.corrupt_once:
            raise ValueError("corrupt_once=True does not go with fit=patches, whose patches are always new")
        if self.measured and not isinstance(self.corruption, Identity):
            raise ValueError("input_root has the corrupted images: choose corruption=none")
        if fit == "patches" and self.binarize == "static":
            raise ValueError("binarize=static does not go with fit=patches, whose patches are always new")
        if self.measured and self.binarize:
            raise ValueError(f"binarize={self.binarize} does not go with input_root")

    _clean: Folder | Arrays
    _measured: Folder | Arrays | None = None

    def prepare_data(self) -> None:
        """Decodes what is not in the cache yet."""
        _ = self._folder

    @cached_property
    def _folder(self) -> Path:
        """That of the cache, once it is there. Once in a process: Lightning asks before each of its stages,
        and looking at all files takes a while."""
        if not hasattr(self, "_clean"):
            self._open()
        files = self._clean.files()
        if self._measured:
            files |= {f"input {name}": path for name, path in self._measured.files().items()}
        settings = {
            "size": self._side, "fit": self.fit, "channels": self.channels, "splits": self.held_out,
            "input": self._input_channels if self._measured else None, "classes": self._classes_trained_on(),
            "strict": self.strict,
        }  # fmt: skip
        folder = self.cache / cache.key(settings, files)
        cache.prepare(folder, self._items, str(self.root), self.strict)
        cache.say_what_there_is(folder)
        return folder

    def setup(self, stage: str | None = None) -> None:
        """Opens the splits that `stage` needs."""
        if stage in ("fit", "validate", None) and not hasattr(self, "val"):
            self.train = self._split("train", Stream.TRAIN)
            self.val = self._split("val", Stream.VALIDATION)
        if stage in ("test", None) and not hasattr(self, "test"):
            self.test = self._split("test", Stream.TEST)

    def _open(self) -> None:
        """Looks at what there is."""
        root, input_root = self._roots
        if root is None:
            raise UserError("data=images needs data.root=<a folder of pictures, or a file of arrays>")
        self._clean = self._opened(Path(root), "root")
        self._measured = None if input_root is None else self._opened(Path(input_root), "input_root")
        self.classes = self._clean.classes  # type: ignore[misc]

    def _opened(self, root: Path, name: str) -> Folder | Arrays:
        if root.is_dir():
            return Folder(root)
        if root.suffix.lower() in pictures.ARRAYS and root.is_file():
            return Arrays(root)
        kinds = ", ".join(pictures.ARRAYS)
        where = "" if root.is_absolute() else f" in {Path.cwd()}"
        raise UserError(f"data.{name}={root} is neither a folder of pictures nor a file ({kinds}){where}")

    def _classes_trained_on(self) -> list[int]:
        return [label for label in range(len(self.classes)) if self.is_trained_on(label)]

    def _items(self) -> dict[str, list[Item]]:
        """What is to be decoded, by split; training pictures in random order, so that the first of them are
        as good as any.

        Raises:
            UserError: there are too few pictures.
        """
        there = self._clean.splits()
        train = there["train"]
        order = Randomness(Stream.SPLIT, rows=1).permutation(len(train)).tolist()
        train = [train[place] for place in order]
        for split in ("test", "val"):
            if split not in there:
                tenth = min(MOST_HELD_OUT[split], max(1, round(HELD_OUT * len(order))))
                count = self.held_out[split] or tenth
                there[split], train = train[:count], train[count:]
        there["train"] = train
        for split in ("train", "val"):
            there[split] = [place for place in there[split] if self.is_trained_on(self._clean.labels[place])]
        if few := [split for split in SPLITS if not there[split]]:
            count = len(self._clean.names)
            raise UserError(
                f"{self.root} has {count} picture{'s' * (count != 1)}, and none is left for {few[0]}: there "
                "must be some to train on, to validate and to test"
            )
        inputs = self._inputs()
        items = {split: [self._item(place, inputs) for place in there[split]] for split in SPLITS}
        for name in self._clean.refused:  # which reading refuses, so that they are named
            read = partial(pictures.read, self.root / name, self.channels, None, self.fit, self.root)
            items["train"].append(Item(name, 0, (read,)))
        return items

    def _item(self, place: int, inputs: Callable[[int], int] | None) -> Item:
        reads = [self._clean.reader(place, self.channels, self._side, self.fit)]
        if self._measured and inputs:
            reads.append(self._measured.reader(inputs(place), self._input_channels, self._side, self.fit))
        return Item(self._clean.names[place], self._clean.labels[place], tuple(reads))

    def _inputs(self) -> Callable[[int], int] | None:
        """Where the measured version of each picture is."""
        if self._measured is None:
            return None
        theirs = {_stem(name): place for place, name in enumerate(self._measured.names)}
        ours = [_stem(name) for name in self._clean.names]
        if isinstance(self._clean, Arrays) and len(self._measured.names) == len(ours):
            return lambda place: place
        if missing := [name for name in ours if name not in theirs]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"data.input_root={self._roots[1]} lacks pictures of data.root: {missing[0]}{more}"
            )
        return lambda place: theirs[ours[place]]

    def _split(self, name: str, stream: Stream) -> Images:
        channels = (self.channels, self._input_channels) if self._measured else (self.channels,)
        opened = cache.open_split(self._folder, name, channels)
        if not opened.names:
            key = {"val": "validation_size", "test": "test_size"}.get(name)
            more = f"; a larger data.{key} holds out more" if key and name not in self._clean.splits() else ""
            raise UserError(f"{self.root}: none of the pictures for {name} could be read{more}")
        labels = torch.tensor(opened.labels, dtype=torch.int64)
        if self.fit == "patches" and self._side is not None:
            side = self._side
            parts = [
                Patches(flat, opened.sizes, c, side) for flat, c in zip(opened.bytes, channels, strict=True)
            ]
            count = self._count_to_train_on(len(parts[0])) if name == "train" else len(parts[0])
            parts, labels = [part.first(count) for part in parts], labels[parts[0].picture[:count]]
            if name == "train":
                return RandomPatches(parts[0], labels, parts[1] if self._measured else None, self.seed)
            images = [part[:] for part in parts]
        else:
            shape = self.image_shape[1:]
            images = [flat.view(-1, c, *shape) for flat, c in zip(opened.bytes, channels, strict=True)]
            count = self._count_to_train_on(len(labels)) if name == "train" else len(labels)
            images, labels = [part[:count] for part in images], labels[:count]
        if self._measured:
            return Images(images[0], labels, images[1])
        return self._fixed(images[0], labels, stream)


class SamplePhotos(ImageFolder):
    """Photographs that scikit-image and scikit-learn bring with them, as patches; held out by picture. For
    docs and tests: 10 pictures to train on, 2 to validate, 4 to test."""

    def __init__(self, *, fit: str = "patches", channels: int = 3, **options: Any) -> None:
        super().__init__("sample photos", fit=fit, channels=channels, **options)

    def _opened(self, root: Path, name: str) -> Folder | Arrays:
        return Photos() if name == "root" else super()._opened(root, name)


def _stem(name: str) -> str:
    return str(Path(name).with_suffix(""))
