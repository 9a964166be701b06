"""The LightningDataModules: a data set, what of it goes in and what should come out, and its corruption."""

from pathlib import Path
from typing import ClassVar, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as tv

from autoencoders.corruption import Corruption, Identity, Noise
from autoencoders.data import sources
from autoencoders.data.pairs import Batch, GlobalBatches, Images, RawBatch, corrupt_once, loader, to_float
from autoencoders.errors import UserError

# Streams of random numbers: what they are drawn for.
SPLIT_SEED, VALIDATION_NOISE, TEST_NOISE, TRAIN_NOISE, FLIPS, SHIFTS, BATCH_NOISE, LABELLED_NOISE, BITS = (
    range(9)
)

Colour = Literal["gray", "color"]


class ImageDataModule(LightningDataModule):
    """Pairs (x̃, x) of one image data set, as `Batch`.

    The official training split is parted, by a fixed seed, into training and validation images; the official
    test split is left for the end. Validation and test images are corrupted once and for good, training
    images afresh at every step (unless `corrupt_once`).

    Args:
        root: where the data set is, or will be put.
        batch_size: images a step, over all devices.
        eval_batch_size: images a step of validation and test, over all devices.
        validation_size: images parted from the training split.
        train_size: how many of the remaining images to train on; None for all.
        input: what the encoder reads, before corruption: the image in "color", or in "gray" (1 channel).
        target: what the decoder should give, likewise.
        flip: mirror half of the training images, other ones at every epoch.
        shift: move each training image by up to so many pixels, with reflected edges, likewise.
        binarize: make every pixel black or white, its value being the probability of white (Burda et al.
            2016): those of a training image afresh at every step, those of the others once and for good.
        corrupt_once: give each training image one corrupted version that never changes.
        seed: of the batches' order and of the training noise.
    """

    source: ClassVar[sources.Source]
    side: ClassVar[int] = 28
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")

    def __init__(
        self,
        root: str,
        batch_size: int,
        eval_batch_size: int = 1000,
        validation_size: int = 5000,
        train_size: int | None = None,
        input: Colour = "gray",
        target: Colour = "gray",
        flip: bool = False,
        shift: int = 0,
        binarize: bool = False,
        corrupt_once: bool = False,
        corruption: Corruption | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation_size, self.train_size = validation_size, train_size
        self.input, self.target = input, target
        self.flip, self.shift, self.binarize = flip, shift, binarize
        self.corrupt_once, self.seed = corrupt_once, seed
        self.corruption = corruption or Identity()
        self.fetched = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self._shape(self.input)

    @property
    def target_shape(self) -> tuple[int, int, int]:
        return self._shape(self.target)

    def _shape(self, colour: Colour) -> tuple[int, int, int]:
        return (3 if colour == "color" else 1, self.side, self.side)

    def prepare_data(self) -> None:
        if not self.fetched:  # Lightning asks before each of its stages, and verifying takes a while
            sources.fetch(self.source, self.root)
            self.fetched = True

    def setup(self, stage: str | None = None) -> None:
        """Reads the splits that `stage` needs: "fit" and "validate" train and val, "test" test, None all."""
        if stage in ("fit", "validate", None) and not hasattr(self, "val"):
            images, labels = self._read(train=True)
            order = torch.randperm(len(images), generator=Noise(SPLIT_SEED, rows=1).generator)
            train, val = order[self.validation_size :], order[: self.validation_size]
            if not len(train):
                raise UserError(f"data.validation_size={self.validation_size} leaves no image to train on")
            limit = len(train) if self.train_size is None else self.train_size
            if not self.batch_size <= limit <= len(train):
                raise UserError(
                    f"data.train_size={limit} must be at least data.batch_size={self.batch_size} "
                    f"and at most the {len(train)} images there are"
                )
            train = train[:limit]
            self.train = self._images(
                images[train], labels[train], TRAIN_NOISE if self.corrupt_once else None
            )
            if self.binarize:
                images = images.clone()
                images[val] = binarized(images[val], VALIDATION_NOISE)
            self.val = self._images(images[val], labels[val], VALIDATION_NOISE)
        if stage in ("test", None) and not hasattr(self, "test"):
            images, labels = self._read(train=False)
            images = binarized(images, TEST_NOISE) if self.binarize else images
            self.test = self._images(images, labels, TEST_NOISE)

    def train_dataloader(self) -> DataLoader[RawBatch]:
        return loader(self.train, self._batches(self.train, self.batch_size, shuffle=True))

    def val_dataloader(self) -> DataLoader[RawBatch]:
        return loader(self.val, self._batches(self.val, self.eval_batch_size, shuffle=False))

    def test_dataloader(self) -> DataLoader[RawBatch]:
        return loader(self.test, self._batches(self.test, self.eval_batch_size, shuffle=False))

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> Batch:
        return self.pair(batch, training=self.trainer is not None and self.trainer.training)

    def pair(self, batch: RawBatch, *, training: bool) -> Batch:
        """On the device: uint8 images to the pair (x̃, x), augmented and freshly corrupted for training."""
        rows = self.batch_size if training else self.eval_batch_size
        device = batch.images.device

        def noise(stream: int) -> Noise:
            return Noise(self.seed, stream, batch.step, rows=rows, device=device, **self._place())

        def augmented(pictures: Tensor) -> Tensor:  # the same way each time, so a fixed x̃ stays with its x
            if not self.flip and not self.shift:
                return pictures
            flips, shifts = noise(FLIPS) if self.flip else None, noise(SHIFTS)
            return flipped_and_shifted(pictures, flips, shifts, self.shift)

        # Pixels are moved while they are bytes.
        images = to_float(augmented(batch.images) if training else batch.images)
        corrupted = batch.corrupted
        if training:
            if self.binarize:
                images = (noise(BITS).uniform(*images.shape) < images).float()
            corrupted = None if corrupted is None else augmented(corrupted)
        if corrupted is None:
            corrupted = as_colour(images, self.input)
            if training:
                corrupted = self.corruption(corrupted, noise(TRAIN_NOISE))
        return Batch(corrupted, as_colour(images, self.target), batch.labels, noise(BATCH_NOISE))

    def labelled(self, count: int) -> Images:
        """The first `count` training images, each with one corrupted version, for probes of the code."""
        images = Images(self.train.images[:count], self.train.labels[:count])
        if self.train.corrupted is not None:
            return Images(images.images, images.labels, self.train.corrupted[:count])
        return self._images(images.images, images.labels, LABELLED_NOISE)

    def first(self, images: Images, count: int, device: torch.device) -> Batch:
        """The first `count` pairs of one of the splits with a fixed corruption, on `device`."""
        raw = images[0, torch.arange(min(count, len(images)))]
        corrupted = None if raw.corrupted is None else raw.corrupted.to(device)
        return self.pair(raw._replace(images=raw.images.to(device), corrupted=corrupted), training=False)

    def _read(self, *, train: bool) -> tuple[Tensor, Tensor]:
        images, labels = sources.read(self.source, self.root, train=train)
        return torch.from_numpy(images.copy()), torch.from_numpy(labels.copy()).long()

    def _images(self, images: Tensor, labels: Tensor, noise_stream: int | None) -> Images:
        """With a fixed corrupted version where there is a stream to draw it from and something to draw."""
        if noise_stream is None or isinstance(self.corruption, Identity):
            return Images(images, labels)
        inputs = as_colour(to_float(images), self.input)
        return Images(images, labels, corrupt_once(inputs, self.corruption, noise_stream))

    def _batches(self, images: Images, batch_size: int, *, shuffle: bool) -> GlobalBatches:
        return GlobalBatches(len(images), batch_size, shuffle=shuffle, seed=self.seed, **self._place())

    def _place(self) -> dict[str, int]:
        if self.trainer is None:
            return {}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}


def binarized(images: Tensor, stream: int) -> Tensor:
    """uint8 images (N, C, H, W) of 0 and 255, white with the probability that the pixel's value says."""
    noise = Noise(BITS, stream, rows=len(images))
    return (noise.uniform(*images.shape) * 255 < images).to(torch.uint8) * 255


def flipped_and_shifted(images: Tensor, flips: Noise | None, shifts: Noise, most: int) -> Tensor:
    """The images (B, C, H, W), half of them mirrored left to right if there are `flips`, then each moved by
    -most..most pixels both ways, with reflected edges: all by one gathering of pixels."""
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

    source = sources.MNIST


class NoisyMNIST(MNIST):
    """MNIST as a bad sensor would give it: each image has one noisy version, that never changes."""

    def __init__(self, root: str, batch_size: int, corrupt_once: bool = True, **kwargs: object) -> None:
        super().__init__(root, batch_size, corrupt_once=corrupt_once, **kwargs)  # type: ignore[arg-type]


class FashionMNIST(ImageDataModule):
    """Clothes (Xiao et al. 2017), in the format of MNIST."""

    source = sources.FASHION_MNIST
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


class CIFAR10(ImageDataModule):
    """Small photographs (Krizhevsky 2009): 50,000 + 10,000 colour images, 32 x 32."""

    source = sources.CIFAR10
    side = 32
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


class GrayCIFAR10(CIFAR10):
    """CIFAR-10 with a gray input (1 channel) and the colour image, or the gray one, as the target."""
