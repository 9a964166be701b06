"""Lightning's predict loop over pictures: on any number of devices, each with pictures of its own."""

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from lightning import LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torchvision.transforms.v2 import functional as tv
from tqdm import tqdm

from autoencoders import devices, training
from autoencoders.apply import pictures
from autoencoders.apply.pictures import Entry, Picture
from autoencoders.data import ImageDataModule
from autoencoders.data.modules import as_colour
from autoencoders.data.pairs import Images
from autoencoders.errors import UserError, one_line
from autoencoders.processes import Ranks
from autoencoders.randomness import Randomness, Stream


class Task(Protocol):
    """What is done with each picture."""

    def done(self, entry: Entry) -> bool:
        """Whether that has happened before."""
        ...

    def __call__(self, model: Any, entry: Entry, picture: Picture) -> Any:
        """Its result, which is sent to the first process."""
        ...


class Outcome(NamedTuple):
    """What became of a picture."""

    place: int  # among the pictures
    name: str
    result: Any = None
    wrong: str = ""
    skipped: bool = False


class Item:
    """A picture as the loader gives it, or why it can't be given. Lightning looks into dataclasses and tuples
    for tensors to move; not into this."""

    def __init__(self, index: int, entry: Entry, picture: Picture | None = None, wrong: str = "") -> None:
        self.index, self.entry, self.picture, self.wrong = index, entry, picture, wrong


class Pictures:
    """Reads the pictures of one process: every `world_size`-th of them, those that are done left out.

    Which ones they are depends on their order alone: what another process has done meanwhile changes nothing.
    It has no length, which Lightning would want to be above zero for each process.
    """

    def __init__(self, entries: Sequence[Entry], task: Task, rank: int, world_size: int) -> None:
        self.entries, self.task = entries, task
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[Item]:
        mine = range(self.rank, len(self.entries), self.world_size)
        for index in tqdm(mine, desc="pictures", disable=None if self.rank == 0 else True, leave=False):
            entry = self.entries[index]
            if entry.refused:
                yield Item(index, entry, wrong=entry.refused)
                continue
            try:
                item = Item(index, entry, None if self.task.done(entry) else pictures.read(entry.path))
            except (OSError, UserError) as error:
                item = Item(index, entry, wrong=str(error))
            yield item


class Predictor(LightningModule):
    """Applies a task with a trained model; what fails is said at once and does not end the others."""

    def __init__(self, model: Any, entries: Sequence[Entry], task: Task) -> None:
        super().__init__()
        self.model, self.entries, self.task = model, entries, task
        self.outcomes: list[Outcome] = []

    def predict_dataloader(self) -> Pictures:
        return Pictures(self.entries, self.task, self.trainer.global_rank, self.trainer.world_size)

    def transfer_batch_to_device(self, batch: Item, device: torch.device, dataloader_idx: int) -> Item:
        return batch  # its pixels are moved tile by tile

    def predict_step(self, item: Item, batch_idx: int) -> bool:
        name = item.entry.name
        if item.wrong:
            outcome = Outcome(item.index, name, wrong=item.wrong)
        elif item.picture is None:
            outcome = Outcome(item.index, name, skipped=True)
        else:
            try:
                outcome = Outcome(item.index, name, self.task(self.model, item.entry, item.picture))
            except (OSError, MemoryError, RuntimeError, UserError) as error:
                if type(error) is RuntimeError and "allocate" not in str(error):  # torch's, of CPU memory
                    raise
                outcome = Outcome(item.index, name, wrong=str(error) or type(error).__name__)
            for note in item.picture.notes:
                say(f"note: {name} {note}")
        if outcome.wrong:
            say(f"left out: {name} {outcome.wrong}")
        self.outcomes.append(outcome)
        return True


def validation_images(data: Any, task: str) -> Images:
    """The run's validation images, for a task that says what it needs them for.

    Raises:
        UserError: they are not to be had.
    """
    try:
        if not isinstance(data, ImageDataModule):
            raise UserError(f"{type(data).__name__} is not an ImageDataModule")
        data.prepare_data()
        data.setup("validate")
    except UserError as error:
        raise UserError(f"{task} needs the validation images of the run: {error}") from None
    return data.val


def counted(number: int) -> str:
    return f"{number} picture" if number == 1 else f"{number} pictures"


def say(text: str) -> None:
    tqdm.write(one_line(text), file=sys.stderr)


def predict(
    trainer: Trainer,
    model: Any,
    entries: Sequence[Entry],
    task: Task,
    gathered: Callable[[list[Outcome]], None],
) -> None:
    """Does the task with every picture, and hands the outcomes of all processes to `gathered`, in order, on
    the first one.

    Raises:
        UserError: none of the pictures worked.
    """
    predictor = Predictor(model, entries, task)
    ranks = Ranks(trainer.strategy.launcher)
    try:
        trainer.predict(predictor, return_predictions=False)
        parts: list[list[Outcome]] = [predictor.outcomes]
        if trainer.world_size > 1:
            parts *= trainer.world_size
            torch.distributed.all_gather_object(parts, predictor.outcomes)
    except Exception as error:
        raise ranks.explain(error) from error
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if not trainer.is_global_zero:
        return
    outcomes = sorted(outcome for part in parts for outcome in part)
    failed = sum(bool(outcome.wrong) for outcome in outcomes)
    model.to(trainer.strategy.root_device)  # the end of the loop has moved it to the CPU
    if failed < len(outcomes):
        gathered(outcomes)
    if failed:
        print(f"{failed} of {counted(len(outcomes))} left out", flush=True)
    if failed == len(outcomes):
        raise UserError("none of the pictures worked")


def build_trainer(chosen: DictConfig, folder: Path) -> Trainer:
    """The Trainer of a `trainer` node, without what is for training alone."""
    cfg = OmegaConf.create({"trainer": chosen, "callbacks": {}, "data": {}})
    devices.check_devices(cfg)
    return training.build_trainer(cfg, folder, [])


# ---- pictures and models -----------------------------------------------------------------------------------


def channels(model: Any) -> tuple[int, int]:
    """How many channels a model reads and gives.

    Raises:
        UserError: they are not those of pictures.
    """
    read, given = (tuple(getattr(model, f"{name}_shape", ())) for name in ("input", "target"))
    if len(read) != 3 or len(given) != 3:
        raise UserError("this model has no input_shape and target_shape (C, H, W)")
    if read[1:] != given[1:] or (read[0], given[0]) not in ((1, 1), (1, 3), (3, 3)):
        raise UserError(f"this model maps {read} to {given} (C, H, W), and not gray or RGB to the same size")
    return read[0], given[0]


def any_size(model: Any) -> bool:
    """Whether it takes images of other sizes than it was trained on."""
    said = getattr(model, "any_size", False)
    return bool(said() if callable(said) else said)


def noise_of(entry: Entry) -> Randomness:
    """What a picture is corrupted with: the same each time."""
    return Randomness(Stream.TEST, zlib.crc32(entry.name.encode(errors="replace")), rows=3)


def as_input(pixels: Tensor, size: tuple[int, int], count: int) -> Tensor:
    """One picture (C, H, W) as a model reads it: (count, *size)."""
    small = pixels
    if pixels.shape[1:] != size:
        small = tv.resize(pixels, list(size), antialias=True).clamp(0, 1)
    return in_channels(small[None], count)[0]


def in_channels(images: Tensor, count: int) -> Tensor:
    """Images (B, C, H, W) in one channel of luma, or in three, which are the same for gray ones."""
    images = as_colour(images, "gray" if count == 1 else "color")
    return images.expand(-1, count, -1, -1)
