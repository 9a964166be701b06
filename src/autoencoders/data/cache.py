"""Decoded pictures on disk, memory-mapped: decoded once, in parallel, then as fast as memory.

A cache is a folder: `<split>.bin`, the bytes (C, H, W) of each picture one after the other, and `index.json`
with their names, labels and sizes. It takes its name when all is written, so it is whole or not there.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from autoencoders.data.pictures import Bytes, Unreadable, no_bomb_warnings
from autoencoders.errors import UserError, is_main_process, one_line

SPLITS = ("train", "val", "test")
AT_ONCE = 256  # pictures that are decoded before they are written
NAMED = 5  # unreadable ones in the terminal
VERSION = 2  # of the format, and of what is read


@dataclass(frozen=True)
class Item:
    """One picture to be decoded."""

    name: str
    label: int
    reads: tuple[Callable[[], Bytes], ...]  # the picture (C, H, W), and where x̃ was measured that


@dataclass
class Split:
    """The pictures of one split: names, labels, heights and widths, and all bytes of them in a row, one such
    row for each of `Item.reads`."""

    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    bytes: list[Tensor] = field(default_factory=list)


def key(settings: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    """A name for the cache of some files, by name, by their names, sizes and times, and the settings."""
    hashed = hashlib.sha256(json.dumps([VERSION, settings], sort_keys=True, default=str).encode())
    for name, file in files.items():
        status = file.stat() if file.exists() else file.lstat()  # of a link to nothing
        hashed.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    return hashed.hexdigest()[:20]


def prepare(
    folder: Path, splits: Callable[[], Mapping[str, Sequence[Item]]], what: str, strict: bool
) -> None:
    """Makes the cache if it isn't there; another process that makes it is waited for. Unreadable pictures are
    counted, named and left out.

    Args:
        splits: gives what is to be decoded, where it has to be.

    Raises:
        UserError: a picture is unreadable and `strict` says to refuse that, or there is no space.
    """
    if (folder / "index.json").is_file():
        return
    items = splits()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"another process is decoding {what}: waiting for it", flush=True)
        lock.acquire()
    with lock:
        if not (folder / "index.json").is_file():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            try:
                _write(unfinished, items, what, strict)
                unfinished.replace(folder)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(folder)) from error
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)


def _write(folder: Path, splits: Mapping[str, Sequence[Item]], what: str, strict: bool) -> None:
    index, bad = dict[str, Any](), list[tuple[str, str]]()
    with ExitStack() as stack:
        files = dict[str, list[BinaryIO]]()
        for split, items in splits.items():
            parts = max((len(item.reads) for item in items), default=1)
            index[split] = {"names": [], "labels": [], "sizes": [], "parts": parts}
            paths = [folder / _file(split, part) for part in range(parts)]
            files[split] = [stack.enter_context(path.open("wb")) for path in paths]
        for split, item, pictures in decoded(splits, what, strict, bad):
            for file, picture in zip(files[split], pictures, strict=True):
                file.write(picture.tobytes())
            index[split]["names"].append(item.name)
            index[split]["labels"].append(item.label)
            index[split]["sizes"].append(pictures[0].shape[1:])
    (folder / "index.json").write_text(json.dumps({"splits": index, "unreadable": bad}))


def decoded(
    splits: Mapping[str, Sequence[Item]], what: str, strict: bool, bad: list[tuple[str, str]]
) -> Iterator[tuple[str, Item, list[Bytes]]]:
    """The pictures of all splits, in their order, with the split and the item of each; decoded in parallel.

    Args:
        bad: gets the name of each unreadable one and what is wrong with it.

    Raises:
        UserError: one is unreadable and `strict` says to refuse that.
    """
    total = sum(map(len, splits.values()))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    with (
        ThreadPoolExecutor(max(1, cores)) as workers,
        no_bomb_warnings(),
        tqdm(total=total, desc=f"decoding {what}", disable=None) as progress,
    ):
        for split, items in splits.items():
            for first in range(0, len(items), AT_ONCE):
                some = items[first : first + AT_ONCE]
                for item, pictures in zip(some, workers.map(_decoded, some), strict=True):
                    if not isinstance(pictures, str):
                        yield split, item, pictures
                        continue
                    bad.append((item.name, pictures))
                    if strict:
                        raise UserError(f"{item.name} {pictures} (data.strict=false leaves it out)")
                progress.update(len(some))


def _decoded(item: Item) -> list[Bytes] | str:
    """The pictures of an item, or why there are none."""
    try:
        pictures = [read() for read in item.reads]
    except Unreadable as error:
        return str(error)
    except OSError as error:
        return f"can't be read: {one_line(str(error))}"
    if len({picture.shape[1:] for picture in pictures}) > 1:
        shapes = " and ".join(f"{picture.shape[2]} x {picture.shape[1]}" for picture in pictures)
        return f"is no pair: {shapes} pixels"
    return pictures


def open_split(folder: Path, split: str, channels: Sequence[int]) -> Split:
    """One split of a cache, its bytes memory-mapped.

    Args:
        channels: of each part.
    """
    content = _index(folder)["splits"][split]
    opened = Split(content["names"], content["labels"], [tuple(size) for size in content["sizes"]])
    pixels = sum(height * width for height, width in opened.sizes)
    for part, count in enumerate(channels):
        if not pixels:
            opened.bytes.append(torch.empty(0, dtype=torch.uint8))
            continue
        path = folder / _file(split, part)
        if path.stat().st_size != pixels * count:
            raise UserError(f"{folder} is damaged: remove it, and the pictures are decoded again")
        # Copied on writing: torch warns of memory that can't be written to.
        opened.bytes.append(torch.from_numpy(np.memmap(path, np.uint8, mode="c")))
    return opened


@cache  # once in a process
def say_what_there_is(folder: Path) -> None:
    """One line on how many pictures there are, and one on those that could not be read."""
    index = _index(folder)
    bad, counts = index["unreadable"], [len(index["splits"][name]["names"]) for name in SPLITS]
    if is_main_process():
        print("pictures: {:,} to train on, {:,} to validate, {:,} to test".format(*counts), flush=True)
    if bad and is_main_process():
        print(left_out(bad, f"all in {folder / 'index.json'}"))


def left_out(bad: Sequence[tuple[str, str]], where: str) -> str:
    """How many pictures are unreadable, of which `where` says more, and a line on each of the first."""
    some = [f"{name} {why}" for name, why in bad[:NAMED]]
    more = [f"and {len(bad) - NAMED} more"] if len(bad) > NAMED else []
    return "\n  ".join(map(one_line, [f"left out, as unreadable: {len(bad)} ({where})", *some, *more]))


@lru_cache(1)  # of 100,000 pictures it has some MB, and each split is opened from it
def _index(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "index.json").read_text())
    return content


def _file(split: str, part: int) -> str:
    return f"{split}.bin" if part == 0 else f"{split}.input.bin"
