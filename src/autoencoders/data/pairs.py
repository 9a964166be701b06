"""Pairs (x̃, x) in memory: uint8 images in one tensor, batched by index, corrupted on the device."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from autoencoders.corruption import Corruption, Noise


class Batch(NamedTuple):
    """What a model sees. Both images are floats, clean ones in [0, 1]."""

    corrupted: Tensor  # x̃ (B, C_in, H, W), what the encoder reads
    clean: Tensor  # x (B, C_out, H, W), what the decoder should give
    labels: Tensor  # (B,) int64, for figures and probes; no model trains on it
    noise: Noise  # the batch's own random numbers, for models that sample

    @property
    def unaided(self) -> Tensor:
        """x̃ taken for a reconstruction, as it is: (B, C_out, H, W), gray repeated in every channel."""
        return self.corrupted.expand_as(self.clean)


class RawBatch(NamedTuple):
    """What leaves the loader, before it is on the device."""

    step: int  # counts the batches of a whole run, so that every one has noise of its own
    images: Tensor  # (B, C, H, W) uint8
    labels: Tensor  # (B,)
    corrupted: Tensor | None  # (B, C_in, H, W) float, where the corruption was drawn once and for good


class Images(Dataset[RawBatch]):
    """Images, labels, and where it is fixed their one corrupted version; indexed by (step, indices)."""

    def __init__(self, images: Tensor, labels: Tensor, corrupted: Tensor | None = None) -> None:
        self.images, self.labels, self.corrupted = images, labels, corrupted

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, Tensor]) -> RawBatch:
        step, rows = key
        # index_select copies whole rows; indexing by [rows] copies byte by byte, thirty times slower.
        corrupted = None if self.corrupted is None else self.corrupted.index_select(0, rows)
        return RawBatch(step, self.images.index_select(0, rows), self.labels.index_select(0, rows), corrupted)


class GlobalBatches(Sampler[tuple[int, Tensor]]):
    """Cuts one permutation of the images, the same on every process, into batches of `batch_size` over all
    processes. Rank r takes the images r, r + W, ... of each, so that the k-th global batch is the same set of
    images for every number of processes W, and no image is repeated or left out.

    Shuffled batches are reseeded each epoch (Lightning calls `set_epoch`) and all full; the others keep the
    images' order and end with what is left. `skip` batches are left out of the next epoch: those that a run
    which is resumed has done.
    """

    def __init__(
        self, count: int, batch_size: int, *, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.count, self.batch_size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.batch_size if self.shuffle else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        order = torch.arange(self.count)
        if self.shuffle:
            order = torch.randperm(self.count, generator=Noise(self.seed, self.epoch, rows=1).generator)
        first, self.skip = self.skip, 0
        for batch in range(first, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self.epoch * len(self) + batch, rows[self.rank :: self.world_size]


def loader(dataset: Images, batches: GlobalBatches) -> DataLoader[RawBatch]:
    """A loader without workers: picking rows of one tensor takes less time than asking a process for them."""
    return DataLoader(dataset, sampler=batches, batch_size=None, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1]."""
    return images.float().div_(255)


def corrupt_once(images: Tensor, corruption: Corruption, seed: int, block: int = 1000) -> Tensor:
    """One corrupted version of each image, drawn on the CPU from `seed` alone, so that it is the same noisy
    image for every model, batch size, device and epoch. Takes and gives floats (N, C, H, W).
    """
    noise = Noise(seed, rows=block)
    return torch.cat([corruption(part, noise) for part in images.split(block)])
