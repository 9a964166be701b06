"""Random numbers that depend on a key and on nothing else, and so are the same on any number of devices."""

from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


class Stream(IntEnum):
    """What numbers are drawn for: part of the key of every `Randomness` that the data draws from."""

    SPLIT = 0  # which training images are held out for validation
    VALIDATION = 1  # the fixed corruption of the validation images
    TEST = 2  # that of the test images
    TRAIN = 3  # the corruption of a training step, or the fixed one of all training images
    FLIPS = 4
    SHIFTS = 5
    BATCH = 6  # whatever a model draws: its samples of the code
    LABELLED = 7  # the fixed corruption of the training images that probes of the code are fitted to
    BITS = 8  # binarised pixels
    CROPS = 9  # where a patch is cut out of its picture
    TARGET = 10  # the second corruption of a training image, which is its target
    BLIND_SPOTS = 11  # which pixels are replaced, and by which


class Randomness:
    """The random numbers of one global batch of `rows` images, for a generator seeded with `key`.

    Every process draws the numbers of the whole batch and keeps those of its own images, rank,
    rank + world_size, ..., so a batch gets the same numbers whatever the number of devices.

    Args:
        key: whole numbers ≥ 0, such as the run's seed, the stream and the step.
        rows: images in the global batch.
        device: where the numbers are drawn.
        rank: of this process.
        world_size: how many processes share the batch.
    """

    def __init__(
        self, *key: int, rows: int, device: torch.device | str = "cpu", rank: int = 0, world_size: int = 1
    ) -> None:
        self.key, self.device = key, device
        self.rows, self.rank, self.world_size = rows, rank, world_size

    @cached_property
    def generator(self) -> torch.Generator:
        """Created with the first number drawn: many batches need none."""
        # SeedSequence mixes the key, so that (seed 0, step 1) and (seed 1, step 0) share nothing.
        seed = int(np.random.SeedSequence(self.key).generate_state(1, np.uint64)[0])
        return torch.Generator(self.device).manual_seed(seed)

    def normal(self, count: int, *shape: int) -> Tensor:
        """Standard normal numbers (count, *shape), for `count` ≤ `rows` images."""
        return self._draw(torch.randn, count, shape)

    def uniform(self, count: int, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) (count, *shape), for `count` ≤ `rows` images."""
        return self._draw(torch.rand, count, shape)

    def permutation(self, count: int) -> Tensor:
        """The numbers 0 to count − 1 (count,) in random order, the same for every process."""
        return torch.randperm(count, generator=self.generator, device=self.device)

    def __iter__(self) -> Iterator[Tensor]:
        """Nothing: Lightning looks for the batch's size in each of its parts, and finds none in this one."""
        return iter(())

    def _draw(self, draw: Callable[..., Tensor], count: int, shape: tuple[int, ...]) -> Tensor:
        drawn = draw((self.rows, *shape), generator=self.generator, device=self.device, dtype=torch.float32)
        return drawn[self.rank :: self.world_size][:count]
