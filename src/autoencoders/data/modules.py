"""The LightningDataModules: a data set, what of it goes in and what should come out, and its corruption."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from autoencoders import checks
from autoencoders.corruption import Corruption, Gaussian, Identity
from autoencoders.data import sources
from autoencoders.data.pairs import Batch, GlobalBatches, Images, RawBatch, corrupt, corrupt_once, to_float
from autoencoders.data.supervision import SUPERVISIONS, warn_of_bias, with_blind_spots
from autoencoders.errors import UserError
from autoencoders.randomness import Randomness, Stream

Colour = Literal["gray", "color"]
Shape = tuple[int, int, int]  # (C, H, W)
Array = Tensor | NDArray[Any]

BINARIZATIONS = ("dynamic", "static")
CLONE = Path(__file__).resolve().parents[3]


class ImageDataModule(LightningDataModule):
    """Pairs (x̃, x) of one image data set, as `Batch`.

    The official training split is divided, by a fixed seed, into training and validation images; the official
    test split is left for the end. Validation and test images have one fixed corrupted version each, training
    images get a new one at every step (unless `corrupt_once`).

    A data set of one's own is a subclass that says what its images are and reads them:

        class Squares(ImageDataModule):
            image_shape = (1, 20, 20)  # (C, H, W), C being 1 (gray) or 3 (RGB)
            classes = ("small", "large")  # the names of the labels 0, 1, ...; left out: there are no labels

            def read(self, train):
                return images, labels  # of the training or of the test split

    where `images` are (N, C, H, W) uint8 and `labels` (N,) whole numbers, or None; NumPy arrays or tensors.
    Data without an official test split needs one held out by `read`. Every process calls it, so it must
    return the same each time; what has to happen once before, such as a download, goes into `prepare_data`.
    It is then a data module like the others: `Trainer().fit(Autoencoder(input_shape=(1, 20, 20)), Squares())`
    in a script, `data._target_=squares.Squares` on the command line.

    Args:
        root: the folder of the data sets; None: `data` in the clone of this repository, or in the current
            directory if this package is installed without one.
        batch_size: images a training step, over all devices, 1 to 1e6.
        eval_batch_size: images a step of validation and test, over all devices, 1 to 1e6.
        validation_size: training images held out for validation, 1 to 1e6.
        train_size: how many of the remaining images to train on, 1 to 1e6; None: all.
        size: resize the images to `size` x `size` pixels, 1 to 4096, with antialiasing; None: leave them.
        input: what the encoder reads, before corruption: the image in "color" (3 channels), or in "gray" (1
            channel); None: as it is.
        target: what the decoder should give, likewise.
        flip: mirror a random half of the training images, other ones in every epoch.
        shift: move each training image by up to this many pixels, 0 to 16, with reflected edges, likewise.
        augment_until: the fraction of the training after which images are no longer mirrored or moved, 0..1,
            so that it ends on images as they are.
        binarize: make every pixel black or white, its value being the probability of white: True or
            "dynamic", in a training image anew at every step, in the others once (Burda et al. 2016);
            "static", in all images once, whatever the seed (Salakhutdinov & Murray 2008).
        corrupt_once: give each training image one fixed corrupted version.
        supervision: what the target of a training image is: "clean", the image; "noise2noise", a second
            corrupted version of it, drawn independently of the first (Lehtinen et al. 2018); "noise2void",
            the corrupted image itself, of which only pixels count that the encoder does not see (Krull et al.
            2019). Validation and test keep the image. Where that is what is noisy, without any corruption,
            "noise2void" validates at blind spots too: there its error is that of the clean image, which
            nobody has, plus the variance of the noise.
        blind_spots: the fraction of the pixels that "noise2void" hides, > 0 and ≤ 0.5. Fewer are
            nearer to whole images, and take longer to learn from.
        corruption: C(x̃|x), any callable (clean, randomness) → corrupted; None: x̃ = x.
        seed: of the batches' order and of all that is drawn in training, 0 to 2³² − 1.
        only: the labels of the classes to train and validate on; None: all. Test images are of all classes.
        without: the labels of classes to leave out, likewise.

    Raises:
        ValueError: an argument out of its range, or two that don't go together.
    """

    image_shape: ClassVar[Shape]
    classes: ClassVar[tuple[str, ...]] = ()
    source: ClassVar[sources.Source | None] = None  # of the data sets that this project fetches
    measured: bool = False  # whether there are corrupted images that no corruption made

    def __init__(
        self,
        root: str | Path | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        validation_size: int = 5000,
        train_size: int | None = None,
        size: int | None = None,
        input: Colour | None = None,
        target: Colour | None = None,
        flip: bool = False,
        shift: int = 0,
        augment_until: float = 1.0,
        binarize: bool | str = False,
        corrupt_once: bool = False,
        supervision: str = "clean",
        blind_spots: float = 0.1,
        corruption: Corruption | None = None,
        seed: int = 0,
        only: Sequence[int] | None = None,
        without: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        methods = {type(self).read, type(self).setup}
        if self.source is None and methods == {ImageDataModule.read, ImageDataModule.setup}:
            raise ValueError(f"{type(self).__name__} needs a method read(self, train)")
        if root is not None and (not isinstance(root, str | Path) or not str(root).strip()):
            raise ValueError(f"root={root} must be a folder")
        for name, value in {
            "batch_size": batch_size,
            "eval_batch_size": eval_batch_size,
            "validation_size": validation_size,
            **({} if train_size is None else {"train_size": train_size}),
        }.items():
            checks.integer(name, value, 1, 10**6)
        if size is not None:
            checks.integer("size", size, 1, 4096)
        checks.integer("shift", shift, 0, 16)
        checks.number("augment_until", augment_until, at_least=0, at_most=1)
        checks.integer("seed", seed, 0, 2**32 - 1)
        for name, value in {"flip": flip, "corrupt_once": corrupt_once}.items():
            checks.boolean(name, value)
        checks.choice("binarize", binarize, (False, True, *BINARIZATIONS))
        if corruption is not None and not callable(corruption):
            raise ValueError(f"corruption={corruption} must be a corruption")
        if corrupt_once and (corruption is None or isinstance(corruption, Identity)):
            raise ValueError("corrupt_once=True needs a corruption, such as corruption=gaussian")
        checks.choice("supervision", supervision, SUPERVISIONS)
        checks.number("blind_spots", blind_spots, above=0, at_most=0.5)
        self.root = Path(root) if root is not None else default_root()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation_size, self.train_size, self.size = validation_size, train_size, size
        self.input, self.target = self._colour("input", input), self._colour("target", target)
        if (self.input, self.target) == ("color", "gray"):
            raise ValueError("input=color with target=gray is not supported: swap them to colour gray images")
        self.flip, self.shift, self.binarize = flip, shift, "dynamic" if binarize is True else binarize
        self.augment_until = augment_until
        self.corrupt_once, self.seed = corrupt_once, seed
        self.only, self.without = self._labels("only", only), self._labels("without", without)
        self.corruption: Corruption = Identity() if corruption is None else corruption
        smallest = min(self.input_shape[1:])
        if shift and shift >= smallest:
            raise ValueError(f"shift={shift} must be < {smallest}, the side of the images")
        self.supervision, self.blind_spots = supervision, blind_spots
        if supervision != "clean":
            self._check_supervision()

    def _check_supervision(self) -> None:
        """Raises ValueError for images that don't go with a supervision without clean ones."""
        said, uncorrupted = f"supervision={self.supervision}", isinstance(self.corruption, Identity)
        if self.input != self.target:
            raise ValueError(f"{said} has x̃ for a target too, so input={self.input} must be the target's")
        if self.supervision == "noise2void":
            if max(self.input_shape[1:]) < 2:
                raise ValueError(f"{said} needs images of more than one pixel")
        elif self.measured:
            raise ValueError(
                f"{said} makes its targets, and input_root has measured images: two noisy pictures of each "
                "are root and input_root with supervision=clean"
            )
        elif uncorrupted:
            raise ValueError(
                f"{said} corrupts each image twice, and corruption=none does not: choose a corruption, such "
                "as corruption=gaussian, supervision=noise2void for images that are noisy themselves, or "
                "supervision=clean to evaluate without noise"
            )
        elif self.corrupt_once:
            raise ValueError(f"{said} corrupts each image twice at every step: leave out corrupt_once=True")

    def read(self, train: bool) -> tuple[Array, Array | None]:
        """The images (N, C, H, W) of one official split, uint8, and their labels (N,), or None for none."""
        assert self.source is not None
        return sources.read(self.source, self._files, train=train)

    @property
    def input_shape(self) -> Shape:
        """(C, H, W) of what the encoder reads; known before any file is read."""
        return self._shape(self.input)

    @property
    def target_shape(self) -> Shape:
        """(C, H, W) of what the decoder should give; known before any file is read."""
        return self._shape(self.target)

    def prepare_data(self) -> None:
        """Makes sure that the files are there and whole."""
        if self.source is not None:
            _ = self._files

    def setup(self, stage: str | None = None) -> None:
        """Reads the splits that `stage` needs: "fit" and "validate" train and val, "test" test, None all."""
        if stage in ("fit", "validate", None) and not hasattr(self, "val"):
            images, labels = self._read(train=True)
            order = Randomness(Stream.SPLIT, rows=1).permutation(len(images))
            if self.only or self.without:
                order = order[torch.tensor([self.is_trained_on(int(label)) for label in labels[order]])]
            train, val = order[self.validation_size :], order[: self.validation_size]
            if not len(train):
                raise UserError(
                    f"data.validation_size={self.validation_size} leaves none of the {len(order)} training "
                    "images to train on"
                )
            train = train[: self._count_to_train_on(len(train))]
            self.train = self._fixed(images[train], labels[train], Stream.TRAIN)
            self.val = self._fixed(images[val], labels[val], Stream.VALIDATION)
        if stage in ("test", None) and not hasattr(self, "test"):
            self.test = self._fixed(*self._read(train=False), Stream.TEST)

    def _count_to_train_on(self, there: int) -> int:
        """`train_size`, or all that are there.

        Raises:
            UserError: they are too few.
        """
        limit = there if self.train_size is None else self.train_size
        if limit > there:
            raise UserError(f"data.train_size={limit} must be at most the {there} images there are")
        if limit < self.batch_size:
            raise UserError(
                f"data.batch_size={self.batch_size} must be at most the {limit} images to train on, such as "
                f"data.batch_size={2 ** (limit.bit_length() - 1)}"
            )
        return limit

    def is_trained_on(self, label: int) -> bool:
        """Whether images of a class are for training and validation."""
        return (not self.only or label in self.only) and label not in self.without

    def _labels(self, name: str, chosen: Sequence[int] | None) -> tuple[int, ...]:
        if chosen is None:
            return ()
        checks.integers(name, chosen, 0)
        if wrong := [label for label in chosen if label >= len(self.classes)]:
            known = f"labels from 0 to {len(self.classes) - 1}" if self.classes else "no classes"
            raise ValueError(f"{name}={list(chosen)} names {wrong[0]}: the data set has {known}")
        return tuple(chosen)

    def train_dataloader(self) -> GlobalBatches:
        """Full batches, in a new order in every epoch; always the same first ones under `overfit_batches`."""
        processes = self._place().get("world_size", 1)
        if self.batch_size % processes:
            raise UserError(
                f"data.batch_size={self.batch_size} must be divisible by the {processes} processes "
                "(trainer.devices x trainer.num_nodes) that it is split over"
            )
        warn_of_bias(self.supervision, self.corruption)
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return self._batches(self.train, self.batch_size, shuffle=not overfit, drop_last=True)

    def val_dataloader(self) -> GlobalBatches:
        return self._batches(self.val, self.eval_batch_size)

    def test_dataloader(self) -> GlobalBatches:
        return self._batches(self.test, self.eval_batch_size)

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> Batch:
        trainer = self.trainer
        pair = self.pair(batch, training=trainer is not None and trainer.training)
        validates = trainer is not None and (trainer.validating or trainer.sanity_checking)
        unknown = isinstance(self.corruption, Identity) and not self.measured  # what is clean
        if self.supervision == "noise2void" and validates and unknown:
            # The same at each validation.
            rows, device = self.eval_batch_size, batch.images.device
            return self._blinded(
                pair, Randomness(Stream.BLIND_SPOTS, rows=rows, device=device, **self._place())
            )
        return pair

    def pair(self, batch: RawBatch, *, training: bool) -> Batch:
        """On the device: uint8 images to the pair (x̃, x), augmented and newly corrupted for training."""
        rows = self.batch_size if training else self.eval_batch_size
        device = batch.images.device

        def randomness(stream: Stream) -> Randomness:
            return Randomness(self.seed, stream, batch.step, rows=rows, device=device, **self._place())

        def augmented(pictures: Tensor) -> Tensor:  # the same way each time, so a fixed x̃ stays with its x
            if not self.flip and not self.shift:
                return pictures
            flips, shifts = randomness(Stream.FLIPS) if self.flip else None, randomness(Stream.SHIFTS)
            return flipped_and_shifted(pictures, flips, shifts, self.shift)

        # Pixels are moved while they are bytes.
        augments = training and self._augments(batch.step)
        images = to_float(augmented(batch.images) if augments else batch.images)
        corrupted = batch.corrupted
        if training:
            if self.binarize == "dynamic":
                images = (randomness(Stream.BITS).uniform(*images.shape) < images).float()
            corrupted = augmented(corrupted) if augments and corrupted is not None else corrupted
        if corrupted is not None and corrupted.dtype == torch.uint8:  # measured, not made
            corrupted = to_float(corrupted)
        if corrupted is None:
            corrupted = as_colour(images, self.input)
            if training:
                corrupted = corrupt(corrupted, self.corruption, randomness(Stream.TRAIN))
        pair = Batch(corrupted, as_colour(images, self.target), batch.labels, randomness(Stream.BATCH))
        if training and self.supervision == "noise2noise":
            return pair._replace(clean=corrupt(pair.clean, self.corruption, randomness(Stream.TARGET)))
        if training and self.supervision == "noise2void":
            return self._blinded(pair, randomness(Stream.BLIND_SPOTS))
        return pair

    def _augments(self, batch: int) -> bool:
        """Whether the images of a batch, counted from the first of the training, are mirrored or moved."""
        if self.augment_until == 1 or self.trainer is None:
            return True
        steps = self.trainer.estimated_stepping_batches * self.trainer.accumulate_grad_batches
        return batch < self.augment_until * steps

    def _blinded(self, pair: Batch, randomness: Randomness) -> Batch:
        """x̃ as the target, to be guessed at pixels that the encoder does not see."""
        corrupted, weights = with_blind_spots(pair.corrupted, self.blind_spots, randomness)
        return pair._replace(corrupted=corrupted, clean=pair.corrupted, weights=weights)

    def labelled(self, count: int) -> Images:
        """The first `count` training images, each with one corrupted version, for probes of the code."""
        images = Images(self.train.images[:count], self.train.labels[:count])
        if self.train.corrupted is not None:
            return Images(images.images, images.labels, self.train.corrupted[:count])
        return self._images(images.images, images.labels, Stream.LABELLED)

    def first(self, images: Images, count: int, device: torch.device) -> Batch:
        """The first `count` pairs of one of the splits with a fixed corruption, on `device`."""
        raw = images.take(torch.arange(min(count, len(images))))
        return self.pair(raw.to(device), training=False)

    def _colour(self, name: str, colour: Colour | None) -> Colour:
        """What `colour` means for the images of this data set."""
        kind, shape = type(self).__name__, getattr(self, "image_shape", None)
        if shape is None:
            raise ValueError(f"{kind} needs image_shape = (C, H, W)")
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise ValueError(f"{kind}.image_shape={tuple(shape)} must be (1, H, W) or (3, H, W)")
        if colour is None:
            return "color" if shape[0] == 3 else "gray"
        checks.choice(name, colour, ("gray", "color"))
        if colour == "color" and shape[0] == 1:
            raise ValueError(f"{name}=color is not what this data set has: its images are gray")
        return colour

    def _shape(self, colour: Colour) -> Shape:
        _, height, width = self.image_shape
        return (3 if colour == "color" else 1, self.size or height, self.size or width)

    @cached_property
    def _files(self) -> dict[str, Path]:
        """Once in a process: Lightning asks before each of its stages, and verifying takes a while."""
        assert self.source is not None
        return sources.fetch(self.source, self.root)

    def _read(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """What `read` gives, as tensors: (N, C, H, W) uint8, resized, and (N,) int64.

        Raises:
            UserError: it is not what the class says.
        """
        call = f"{type(self).__name__}.read(train={train})"
        given = self.read(train)
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise UserError(f"{call} must return (images, labels), not {type(given).__name__}")
        images, labels = _tensor(given[0], f"{call}: the images"), given[1]
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != tuple(self.image_shape):
            wanted = ", ".join(map(str, self.image_shape))
            raise UserError(
                f"{call} gave images of {_described(images)}, but they must be uint8 (N, {wanted})"
            )
        if not len(images):
            raise UserError(f"{call} gave no images")
        labels = torch.zeros(len(images)) if labels is None else _tensor(labels, f"{call}: the labels")
        if labels.shape != (len(images),) or (labels != labels.long()).any():
            raise UserError(
                f"{call} gave labels of {_described(labels)}, but they must be whole numbers ({len(images)},)"
            )
        labels = labels.long()
        if self.classes and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise UserError(
                f"{call} gave labels from {int(labels.min())} to {int(labels.max())}, "
                f"but it has {len(self.classes)} classes, from 0 on"
            )
        return self._resized(images), labels

    def _resized(self, images: Tensor) -> Tensor:
        if self.size is None or images.shape[2:] == (self.size, self.size):
            return images
        parts = images.split(1000)
        return torch.cat([tv.resize(part, [self.size, self.size], antialias=True) for part in parts])

    def _fixed(self, images: Tensor, labels: Tensor, stream: Stream) -> Images:
        """The images of one split, with all of their randomness that is drawn only once."""
        trains = stream is Stream.TRAIN
        if self.binarize == "static" or (self.binarize and not trains):
            images = binarized(images, stream)
        return self._images(images, labels, None if trains and not self.corrupt_once else stream)

    def _images(self, images: Tensor, labels: Tensor, stream: Stream | None) -> Images:
        """With a fixed corrupted version where there is a stream to draw it from and something to draw."""
        if stream is None or isinstance(self.corruption, Identity):
            return Images(images, labels)
        inputs = as_colour(to_float(images), self.input)
        return Images(images, labels, corrupt_once(inputs, self.corruption, stream))

    def _batches(
        self, images: Images, batch_size: int, *, shuffle: bool = False, drop_last: bool = False
    ) -> GlobalBatches:
        return GlobalBatches(
            images,
            batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=self.seed,
            trainer=self.trainer,
            **self._place(),
        )

    def _place(self) -> dict[str, int]:
        """Which of the run's processes this is; without a trainer there is one."""
        if self.trainer is None:
            return {}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}


def default_root() -> Path:
    """`data` in the clone that this file is in; of an installed package, in the current directory."""
    return CLONE / "data" if (CLONE / "conf" / "train.yaml").is_file() else Path("data")


def _tensor(array: Any, what: str) -> Tensor:
    if isinstance(array, Tensor):
        return array
    try:
        return torch.from_numpy(np.array(array))  # a copy: torch takes no negative strides
    except (TypeError, ValueError):
        raise UserError(f"{what} must be an array, not {type(array).__name__}") from None


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def binarized(images: Tensor, stream: Stream, block: int = 1000) -> Tensor:
    """uint8 images (N, C, H, W) of 0 and 255, white with the probability that the pixel's value says."""
    bits = Randomness(Stream.BITS, stream, rows=block)
    parts = [bits.uniform(*part.shape) * 255 < part for part in images.split(block)]
    return torch.cat(parts).to(torch.uint8) * 255


def flipped_and_shifted(images: Tensor, flips: Randomness | None, shifts: Randomness, most: int) -> Tensor:
    """The images (B, C, H, W), half of them mirrored left to right if there are `flips`, then each moved by
    -most..most pixels both ways, with reflected edges: all in one gather of pixels."""
    count, channels, height, width = images.shape
    start = (shifts.uniform(count, 2, 1) * (2 * most + 1)).long() - most  # (B, 2, 1): top and left
    rows = reflected(start[:, 0] + torch.arange(height, device=images.device), height)  # (B, H)
    columns = reflected(start[:, 1] + torch.arange(width, device=images.device), width)  # (B, W)
    if flips:
        columns = torch.where(flips.uniform(count, 1) < 0.5, width - 1 - columns, columns)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H W)
    return images.flatten(2).gather(2, pixels[:, None].expand(-1, channels, -1)).view_as(images)


def reflected(places: Tensor, size: int) -> Tensor:
    """Places in -size < p < 2 size - 1, those outside 0..size-1 as in a mirror at the edge's pixel."""
    last = size - 1
    return last - (last - places.abs()).abs()


def as_colour(images: Tensor, colour: Colour) -> Tensor:
    """The images (B, C, H, W) as they are, or as one channel of luma (ITU-R BT.601)."""
    if colour == "gray" and images.shape[1] == 3:
        return tv.rgb_to_grayscale(images, num_output_channels=1)
    return images


class MNIST(ImageDataModule):
    """Handwritten digits (LeCun et al. 1998): 60,000 + 10,000 gray images, 28 x 28."""

    image_shape = (1, 28, 28)
    classes = tuple("0123456789")
    source = sources.MNIST


class NoisyMNIST(MNIST):
    """MNIST from a bad sensor: each image has one fixed noisy version, by default of `Gaussian()`."""

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        corrupt_once: bool = True,
        corruption: Corruption | None = None,
        **options: Any,
    ) -> None:
        noisy = Gaussian() if corruption is None else corruption
        super().__init__(root, corrupt_once=corrupt_once, corruption=noisy, **options)


class FashionMNIST(ImageDataModule):
    """Clothes (Xiao et al. 2017), in the format of MNIST."""

    image_shape = (1, 28, 28)
    classes = (
        "T-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )  # fmt: skip
    source = sources.FASHION_MNIST


class CIFAR10(ImageDataModule):
    """Small photographs (Krizhevsky 2009): 50,000 + 10,000 colour images, 32 x 32."""

    image_shape = (3, 32, 32)
    classes = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )  # fmt: skip
    source = sources.CIFAR10


class GrayCIFAR10(CIFAR10):
    """CIFAR-10 with a gray input (1 channel) and the colour image as the target, or with `target="gray"` the
    gray one."""

    def __init__(
        self, root: str | Path | None = None, *, input: Colour | None = "gray", **options: Any
    ) -> None:
        super().__init__(root, input=input, **options)
