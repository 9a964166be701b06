"""Pairs (x̃, x) in memory: uint8 images in one tensor, batched by index, corrupted on the device."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from torch import Tensor

from autoencoders.corruption import Corruption
from autoencoders.errors import UserError
from autoencoders.randomness import Randomness


class Batch(NamedTuple):
    """What a model sees. Both images are floats, clean ones in [0, 1]."""

    corrupted: Tensor  # x̃ (B, C_in, H, W), what the encoder reads
    clean: Tensor  # x (B, C_out, H, W), what the decoder should give
    labels: Tensor  # (B,) int64, for figures and probes; no model trains on it
    noise: Randomness  # the batch's own random numbers, for models that sample
    # What each pixel counts in the loss, (B, 1, H, W); (): all alike. In a None Lightning would look for the
    # batch's size, and warn that it finds none.
    weights: Tensor | tuple[()] = ()

    @property
    def input_as_output(self) -> Tensor:
        """x̃ taken for a reconstruction, as it is: (B, C_out, H, W), gray repeated in every channel."""
        return self.corrupted.expand_as(self.clean)


class RawBatch(NamedTuple):
    """What leaves the loader: images in memory, before they are on the device."""

    step: int  # counts the batches of a whole run, so that each has random numbers of its own
    images: Tensor  # (B, C, H, W) uint8
    labels: Tensor  # (B,) int64
    corrupted: Tensor | None  # (B, C_in, H, W) float, where the corruption is fixed; uint8, where measured

    def to(self, device: torch.device) -> "RawBatch":
        corrupted = None if self.corrupted is None else self.corrupted.to(device)
        return RawBatch(self.step, self.images.to(device), self.labels.to(device), corrupted)


class Images:
    """Images (N, C, H, W) uint8, labels (N,) int64 and, where the corruption is fixed, the corrupted version
    (N, C_in, H, W) of each."""

    def __init__(self, images: Tensor, labels: Tensor, corrupted: Tensor | None = None) -> None:
        self.images, self.labels, self.corrupted = images, labels, corrupted

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor, step: int = 0, part: slice = slice(None)) -> RawBatch:
        """The images at `rows` (B,), as the batch number `step`; only the `part` that is this process's."""
        rows = rows[part]
        # index_select copies whole rows; indexing by [rows] copies byte by byte, thirty times slower.
        corrupted = None if self.corrupted is None else self.corrupted.index_select(0, rows)
        return RawBatch(step, self.images.index_select(0, rows), self.labels.index_select(0, rows), corrupted)

    def order(self, randomness: Randomness) -> Tensor:
        """All rows (N,) in random order, the same on every process."""
        return randomness.permutation(len(self))


class GlobalBatches:
    """Loads one permutation of the images, the same on every process, in batches of `batch_size` over all
    processes. Rank r takes the images r, r + W, ... of each, so that the k-th global batch is the same set of
    images for every number of processes W, and no image is repeated or left out.

    It is an iterable, not a DataLoader: picking rows of one tensor takes less time than asking a process for
    them, and Lightning leaves an iterable as it is, where it would split these shares of a batch once more
    (`use_distributed_sampler`) or put another sampler in (`overfit_batches`).

    Args:
        images: one split.
        batch_size: images a batch, over all processes.
        shuffle: permute the images anew in every epoch, by `seed` and the epoch; else they keep their order.
        drop_last: leave out a last batch that is not full.
        rank: of this process.
        world_size: how many processes there are.
        trainer: tells the epoch, and where in it a resumed run continues. In a loop of one's own, `set_epoch`
            tells the epoch.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        trainer: Trainer | None = None,
    ) -> None:
        self.images, self.batch_size = images, batch_size
        self.shuffle, self.drop_last, self.seed = shuffle, drop_last, seed
        self.rank, self.world_size, self.trainer = rank, world_size, trainer
        self.epoch, self.begun = 0, False

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        count, size = len(self.images), self.batch_size
        return count // size if self.drop_last else -(-count // size)

    def __iter__(self) -> Iterator[RawBatch]:
        # This is a generator, so it starts with the first batch, when the trainer knows where it is.
        first = self._find_place()
        order = torch.arange(len(self.images))
        if self.shuffle:
            order = self.images.order(Randomness(self.seed, self.epoch, rows=1))
        for batch in range(first, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            part = slice(self.rank, None, self.world_size)
            yield self.images.take(rows, self.epoch * len(self) + batch, part)

    def _find_place(self) -> int:
        """Sets the epoch and returns its first batch: not 0 where a run is resumed within an epoch."""
        first_time, self.begun = not self.begun, True
        if self.trainer is None:
            return 0
        fit = self.trainer.fit_loop
        self.epoch = fit.epoch_progress.current.processed  # type: ignore[attr-defined]
        trains = self.trainer.training and self.trainer.train_dataloader is self
        return fit.epoch_loop.batch_progress.current.ready if trains and first_time else 0

    # Without these two, Lightning warns that resuming within an epoch is not exact. It is: the place is the
    # trainer's, which every checkpoint holds.

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1]."""
    return images.float().div_(255)


def corrupt(images: Tensor, corruption: Corruption, randomness: Randomness) -> Tensor:
    """Clean floats (B, C, H, W) to corrupted ones.

    Raises:
        UserError: the corruption gives another shape.
    """
    corrupted = corruption(images, randomness)
    if corrupted.shape != images.shape:
        function = getattr(corruption, "func", corruption)  # of a partial
        name = getattr(function, "__name__", type(function).__name__)
        raise UserError(
            f"the corruption {name} made {tuple(corrupted.shape)} of images {tuple(images.shape)}: "
            "it must keep their shape"
        )
    return corrupted


def corrupt_once(images: Tensor, corruption: Corruption, stream: int, block: int = 1000) -> Tensor:
    """One corrupted version of each image, drawn on the CPU from `stream` alone, so that it is the same for
    every model, batch size, device and epoch. Takes and returns floats (N, C, H, W)."""
    randomness = Randomness(stream, rows=block)
    return torch.cat([corrupt(part, corruption, randomness) for part in images.split(block)])
