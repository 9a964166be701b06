"""Images that need not fit on the disk: chunks, by `optimize.py` or by litdata, read as they are needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from autoencoders import checks, untrusted
from autoencoders.data import pictures
from autoencoders.data.buckets import Bucket, Folder, is_bucket
from autoencoders.data.cache import SPLITS
from autoencoders.data.chunks import INDEX, Chunks
from autoencoders.data.folders import HELD_OUT, MOST_HELD_OUT
from autoencoders.data.modules import ImageDataModule, default_root
from autoencoders.data.pairs import Images, RawBatch
from autoencoders.errors import UserError, is_main_process, one_line
from autoencoders.randomness import Randomness, Stream

CLASSES = "classes.json"  # beside the splits: the names of the labels


class ImageStream(ImageDataModule):
    """Images in litdata's chunks, in a folder or a bucket.

    The folder has `train`, `val` and `test` with the chunks of each. In a folder, but not in a bucket, where
    it would fetch all chunks, images are held out of `train`, or of chunks in the folder itself, for what is
    missing, as `ImageFolder` holds out pictures. Training images are read as they are needed; those of
    validation and test are held in memory.

    Args:
        root: the folder, or the URL of one in a bucket: s3://..., gs://....
        size: of the sides of an image, 1 to 4096; None: as they are.
        fit: how an image of another size gets that size: "crop", "resize" or "pad". See `pictures.read`.
        channels: 1 (gray) or 3 (colour); None: as the first image.
        validation_size, test_size: images of validation and test, the first ones; None: all, and where they
            are held out a tenth, at most 5,000 and 10,000.
        mixed_chunks: how many chunks are read at a time, their images being mixed: 1 to 1000.
        cache: the folder of fetched chunks; None: `cache` in `data` of this repository or of the current
            directory.
        cache_gb: the gigabytes of fetched chunks to keep, > 0; None: all.
        **options: as for `ImageDataModule`.

    Raises:
        ValueError: an argument out of its range, or two that don't go together.
        UserError: there are no chunks, or they are not of plain images.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        size: int | None = None,
        fit: str = "crop",
        channels: int | None = None,
        validation_size: int | None = None,
        test_size: int | None = None,
        mixed_chunks: int = 16,
        cache: str | Path | None = None,
        cache_gb: float | None = None,
        **options: Any,
    ) -> None:
        checks.choice("fit", fit, [fit for fit in pictures.FITS if fit != "patches"])
        if channels is not None:
            checks.choice("channels", channels, (1, 3))
        if size is not None:
            checks.integer("size", size, 1, 4096)
        for name, value in (("validation_size", validation_size), ("test_size", test_size)):
            if value is not None:
                checks.integer(name, value, 1, 10**6)
        checks.integer("mixed_chunks", mixed_chunks, 1, 1000)
        if cache_gb is not None:
            checks.number("cache_gb", cache_gb, above=0)
        for name in ("only", "without"):
            if options.get(name) is not None:
                raise ValueError(f"{name}={options[name]}: choose the classes when the chunks are made")
        if options.get("corrupt_once"):
            raise ValueError("corrupt_once=True does not go with a stream, whose noise is always new")
        if options.get("binarize") == "static":
            raise ValueError(
                "binarize=static does not go with a stream, whose images are read anew each time"
            )
        self.fit, self.mixed_chunks, self.most = (
            fit,
            mixed_chunks,
            {"val": validation_size, "test": test_size},
        )
        self._cache = Path(cache) if cache is not None else default_root() / "cache"
        self._cache_bytes = None if cache_gb is None else int(cache_gb * 1e9)
        self._url = None if root is None else str(root)
        gone = root is None or not (is_bucket(root) or Path(root).exists())
        if gone and channels and size:  # as of an exported run, whose shapes are known without images
            self.image_shape = (channels, size, size)  # type: ignore[misc]
        else:
            self._open(channels, size)
            self.image_shape = self._chunks["train"].shape  # type: ignore[misc]
        super().__init__(root or "chunks", size=size, validation_size=validation_size or 1, **options)

    _chunks: dict[str, Chunks]

    def setup(self, stage: str | None = None) -> None:
        """Opens the training images and reads the others, of the splits that `stage` needs."""
        if not hasattr(self, "_chunks"):
            self._open(self.image_shape[0], self.size)
        places = self._places()
        if stage in ("fit", "validate", None) and not hasattr(self, "val"):
            if is_main_process():
                print(
                    "chunks: {:,} images to train on, {:,} to validate, {:,} to test".format(
                        *map(len, places)
                    )
                )
            train = places[0][: self._count_to_train_on(len(places[0]))]
            self.train = StreamedImages(self._chunks["train"], train, self.mixed_chunks)
            self.val = self._in_memory("val", places[1], Stream.VALIDATION)
        if stage in ("test", None) and not hasattr(self, "test"):
            self.test = self._in_memory("test", places[2], Stream.TEST)

    def _open(self, channels: int | None, size: int | None) -> None:
        """Reads the indexes of all splits and the first image of each."""
        if self._url is None:
            raise UserError("data=stream needs data.root=<a folder of chunks, or its URL in a bucket>")
        root = self._split_files("")
        if isinstance(root, Folder) and not any(
            (root.path / part / INDEX).is_file() for part in ("train", "")
        ):
            raise UserError(
                f"data.root={self._url} has neither train/{INDEX} nor {INDEX}: "
                "python -m autoencoders.data.optimize makes chunks of pictures"
            )
        self.classes = read_classes(root)  # type: ignore[misc]
        folders = {
            split: self._split_files(split)
            for split in SPLITS
            if isinstance(root, Bucket) or (root.path / split / INDEX).is_file()
        }
        self._chunks = {}
        for split, files in (folders if "train" in folders else {"train": root}).items():
            chunks = Chunks(files, channels, size, self.fit, len(self.classes))
            train = self._chunks.setdefault("train", chunks)
            channels, self._chunks[split] = train.channels, chunks
            if chunks.shape != train.shape:
                raise UserError(
                    f"{files.name} has images of {chunks.shape}, and those to train on {train.shape}"
                )

    def _split_files(self, split: str) -> Bucket | Folder:
        assert self._url is not None
        if is_bucket(self._url):
            return Bucket(f"{self._url.rstrip('/')}/{split}", self._cache, self._cache_bytes)
        return Folder(Path(self._url) / split)

    def _places(self) -> list[Tensor]:
        """Which images of the chunks are for training, validation and test.

        Raises:
            UserError: they are too few.
        """
        there = {split: torch.arange(len(chunks)) for split, chunks in self._chunks.items()}
        order = Randomness(Stream.SPLIT, rows=1).permutation(len(there["train"]))
        for split in ("test", "val"):
            if split in there:
                there[split] = there[split][: self.most[split]]
                continue
            tenth = min(MOST_HELD_OUT[split], max(1, round(HELD_OUT * len(there["train"]))))
            count = self.most[split] or tenth
            there[split], order = order[:count], order[count:]
        there["train"] = order.sort().values  # in the order that they are read in
        if few := [split for split in SPLITS if not len(there[split])]:
            raise UserError(f"data.root={self._url} leaves no images for {few[0]}")
        return [there[split] for split in SPLITS]

    def _in_memory(self, split: str, places: Tensor, stream: Stream) -> Images:
        images, labels = self._chunks.get(split, self._chunks["train"]).read(places)
        return self._fixed(images, labels, stream)


class StreamedImages(Images):
    """Training images in chunks, of which those that are asked for are read.

    In an epoch the chunks come in random order, `mixed_chunks` at a time, and the images of these in random
    order: a few files are read at a time, and the order is the same on any number of processes. Of no more
    chunks than that, it is the order of the same images in memory.
    """

    def __init__(self, chunks: Chunks, places: Tensor, mixed_chunks: int) -> None:
        images = Lazy(places, chunks.shape, lambda places: chunks.read(places)[0])
        labels = Lazy(places, (), lambda places: chunks.read(places)[1])
        super().__init__(cast(Tensor, images), cast(Tensor, labels))
        self.chunks, self.places, self.mixed_chunks = chunks, places, mixed_chunks
        self.edges = torch.searchsorted(places, chunks.starts).tolist()  # the first of each chunk's images
        self.windows = list[Tensor]()  # the chunks that are mixed, in the epoch's order
        self.window_of = torch.empty(0, dtype=torch.int64)  # the window of each chunk
        self.read = (-1, -1)  # the first and the last window of the last batch

    def take(self, rows: Tensor, step: int = 0, part: slice = slice(None)) -> RawBatch:
        """As for `Images`."""
        places = self.places[rows[part]]
        self._announce(places)
        return RawBatch(step, *self.chunks.read(places), None)

    def order(self, randomness: Randomness) -> Tensor:
        """As for `Images`."""
        count = len(self.edges) - 1
        alone = count <= self.mixed_chunks
        chunks = torch.arange(count) if alone else randomness.permutation(count)
        self.windows, self.read = list(chunks.split(self.mixed_chunks)), (-1, -1)
        self.window_of = torch.empty_like(chunks)
        self.window_of[chunks] = torch.arange(count) // self.mixed_chunks
        order = []
        for window in self.windows:
            rows = torch.cat([torch.arange(self.edges[chunk], self.edges[chunk + 1]) for chunk in window])
            order.append(rows[randomness.permutation(len(rows))])
        return torch.cat(order)

    def _announce(self, places: Tensor) -> None:
        """Has the files of the next chunks fetched while those of these are read."""
        if not self.windows or not len(places):
            return
        windows = self.window_of[self.chunks.of(places)]
        if (read := (int(windows.min()), int(windows.max()))) != self.read:
            self.read = read
            self.chunks.announce(torch.cat(self.windows[read[0] : read[1] + 2]).tolist())


class Lazy:
    """Like a tensor (N, *shape) of which only what is asked for is read."""

    def __init__(self, places: Tensor, shape: tuple[int, ...], read: Callable[[Tensor], Tensor]) -> None:
        self.places, self.shape, self._read = places, torch.Size((len(places), *shape)), read

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: Any) -> Tensor:
        places = self.places[rows]
        return self._read(places.reshape(-1)).reshape(*places.shape, *self.shape[1:])

    def index_select(self, _: int, rows: Tensor) -> Tensor:
        return self[rows]


def read_classes(files: Bucket | Folder) -> tuple[str, ...]:
    """The names of the labels; none where nobody wrote them down."""
    if isinstance(files, Folder) and not (files.path / CLASSES).exists():
        return ()
    try:
        path = files.file(CLASSES)
    except UserError:
        if isinstance(files, Bucket):
            return ()  # litdata's own chunks have no such file, which each bucket says in its own way
        raise
    names = untrusted.read_json(path).get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} does not hold the names of classes")
    return tuple(one_line(name) for name in names)
