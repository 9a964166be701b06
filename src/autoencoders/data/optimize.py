"""Chunks of pictures, for data=stream: python -m autoencoders.data.optimize root=<pictures> out=<folder>.

The pictures are read, held out and ordered as by data=images, so a model is trained, validated and tested on
the same ones. The folder takes its name when all is written, so it is whole or not there.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from autoencoders import checks, errors
from autoencoders.config import compose_conf
from autoencoders.data.buckets import EXTRA
from autoencoders.data.cache import SPLITS, decoded, left_out
from autoencoders.data.folders import ImageFolder
from autoencoders.data.modules import ImageDataModule
from autoencoders.data.stream import CLASSES
from autoencoders.errors import UserError, one_line, suggest
from autoencoders.overrides import quoted
from autoencoders.runs import to_paste
from autoencoders.training import build_data

PROGRAM = "python -m autoencoders.data.optimize"
KEYS = {
    "root": "a folder of images, or a file of arrays",
    "out": "the folder for the chunks, which must be new or empty",
    "data": "instead of your own images: mnist, cifar10, ... (images)",
    "size": "side of an image in pixels (64)",
    "fit": "crop, resize or pad: how images are brought to that size (crop)",
    "channels": "1 (gray) or 3 (colour); default: as the images are",
    "validation_size": "images held out if there is no val/ (a tenth)",
    "test_size": "likewise for test/",
    "only": "the classes to train on, by index: only=[0]",
    "without": "the classes to leave out",
    "strict": "true: refuse unreadable images",
    "chunk_mb": "megabytes per chunk (64)",
}
OWN = ("out", "data", "chunk_mb")  # the others are those of data=images


@dataclass(frozen=True)
class Options:
    data: tuple[str, ...]  # overrides of conf/
    out: Path
    chunk_mb: float


def main(words: Sequence[str]) -> None:
    if {"--help", "-h"} & set(words):
        print(usage())
        return
    options = parse(words)
    with _put_in_place(options.out) as folder:
        data = build_data(compose_conf(list(options.data)))
        counts = write(data, folder, int(options.chunk_mb * 1e6))
    said = "{:,} images to train on, {:,} to validate, {:,} to test".format(*counts)
    print(f"chunks: {said}, in {options.out}\n")
    plain = options.out if re.fullmatch(r"[\w./-]+", str(options.out)) else quoted(options.out)
    print("  " + to_paste("python", "train.py", "data=stream", f"data.root={plain}") + "\n")


def parse(words: Sequence[str]) -> Options:
    """
    Raises:
        UserError: a word is not key=value, or a key or value is none.
    """
    given = dict[str, str]()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or word.startswith("-"):
            raise UserError(f"{word} is not key=value; --help shows the keys")
        if key not in KEYS:
            raise UserError(f"no key {key}: {suggest(key, KEYS)}")
        if not value:
            raise UserError(f"{key}= has no value")
        given[key] = value
    kind = given.get("data", "images")
    if "out" not in given or (kind == "images" and "root" not in given):
        raise UserError(f"name the pictures and a new folder: {PROGRAM} root=pictures out=chunks")
    if kind == "stream":
        raise UserError("data=stream is made of chunks already")
    if given.get("fit") == "patches":
        raise UserError("fit=patches needs whole pictures: choose crop, resize or pad")
    try:
        megabytes = float(given.get("chunk_mb", 64))
    except ValueError:
        raise UserError(f"chunk_mb={given['chunk_mb']} must be a number") from None
    checks.number("chunk_mb", megabytes, above=0, at_most=2000)
    overrides = [
        f"data.{key}={quoted(given[key]) if key == 'root' else given[key]}" for key in given if key not in OWN
    ]
    if kind != "images":
        overrides.append("data.batch_size=1")  # that few images are no mistake here
    return Options((f"data={kind}", *overrides), Path(given["out"]), megabytes)


def usage() -> str:
    """What --help shows."""
    width = max(map(len, KEYS)) + 1
    lines = [
        f"Makes chunks of images: {PROGRAM} root=<folder> out=<folder>",
        "",
        "To train on them, from a folder or a bucket: python train.py data=stream data.root=<out>",
        "",
        *(f"  {key + '=':{width}}  {about}" for key, about in KEYS.items()),
        "",
        "More: docs/stream.md",
    ]
    return "\n".join(lines)


def write(data: ImageDataModule, folder: Path, chunk_bytes: int) -> list[int]:
    """Writes the chunks of each split, and returns how many images each has.

    Raises:
        UserError: litdata is not installed, or there are no images for a split.
    """
    try:
        from litdata.streaming.writer import BinaryWriter
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "litdata":
            raise UserError(EXTRA) from None
        raise
    counts = dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        (folder / split).mkdir()
    writers = {split: BinaryWriter(str(folder / split), chunk_bytes=chunk_bytes) for split in SPLITS}
    for split, image, label in _images(data):
        writers[split][counts[split]] = {"image": image, "label": label}
        counts[split] += 1
    if few := [split for split in SPLITS if not counts[split]]:
        raise UserError(f"{data.root}: no picture for {few[0]} could be read")
    for writer in writers.values():
        writer.done()
        writer.merge()
    (folder / CLASSES).write_text(json.dumps({"classes": list(data.classes)}) + "\n")
    return list(counts.values())


def _images(data: ImageDataModule) -> Iterator[tuple[str, Tensor, int]]:
    """The images (C, H, W) uint8 and labels of all splits; pictures without the cache of data=images."""
    if isinstance(data, ImageFolder):
        if data.fit == "patches":
            raise UserError("fit=patches needs whole pictures: choose crop, resize or pad")
        bad = list[tuple[str, str]]()
        for split, item, pictures in decoded(data._items(), str(data.root), data.strict, bad):
            yield split, torch.from_numpy(pictures[0]), item.label
        if bad:
            print(left_out(bad, "strict=true refuses them"))
        return
    data.prepare_data()
    data.setup()
    for split, images in zip(SPLITS, (data.train, data.val, data.test), strict=True):
        for row in tqdm(range(len(images)), desc=split, disable=None):
            yield split, images.images[row], int(images.labels[row])


@contextmanager
def _put_in_place(out: Path) -> Iterator[Path]:
    """Gives a new folder beside `out`, which becomes `out` once all is written, and is removed otherwise."""
    if out.is_symlink() or (out.exists() and not out.is_dir()) or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"out={out} exists: choose a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished, lock = (out.with_name(f".{out.name}.{what}") for what in ("unfinished", "lock"))
    try:
        with FileLock(lock, blocking=False):
            if unfinished.exists():
                print(f"{out} was interrupted: it is made anew", flush=True)
                shutil.rmtree(unfinished)
            try:
                unfinished.mkdir()
                yield unfinished
                unfinished.replace(out)
            except OSError as error:
                raise OSError(error.errno, error.strerror or one_line(str(error)), str(out)) from error
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except Timeout:
        raise UserError(f"out={out}: another process is making it") from None


if __name__ == "__main__":
    with errors.one_line_errors():
        main(sys.argv[1:])
