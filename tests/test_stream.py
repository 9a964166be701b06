"""Chunks: the same images as in memory, on any number of processes; what a stranger's chunks can't do."""

import gc
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from command import NO_WANDB, column, line_of, run, small, train, weights
from PIL import Image
from torch import Tensor

from autoencoders import runs
from autoencoders.corruption import Gaussian
from autoencoders.data import MNIST, Batch, ImageDataModule, ImageFolder, ImageStream, buckets, optimize
from autoencoders.data.pairs import GlobalBatches
from autoencoders.data.stream import StreamedImages
from autoencoders.errors import UserError
from autoencoders.randomness import Randomness

SIDE, COUNT = 8, 60  # of the pictures


def picture(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, C), like no other, and so smooth that JPEG hardly changes it."""
    ramp = np.linspace(0, 4 * seed, SIDE)[None, :, None] * np.ones((SIDE, 1, 3))
    ramp[:, :, seed % 3] = 4 * seed
    return ramp.astype(np.uint8)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes."""
    root = tmp_path_factory.mktemp("stream") / "my pictures"
    for seed in range(COUNT):
        path = root / ("cats" if seed % 2 else "dogs") / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed)).save(path)
    return root


@pytest.fixture(scope="session")
def chunks(pictures: Path) -> Path:
    """Chunks of them, of five pictures each."""
    out = pictures.parent / "my chunks"
    optimize.main([f"root={pictures}", f"out={out}", f"size={SIDE}", "chunk_mb=0.0012"])
    return out


def opened(root: str | Path, **options: Any) -> ImageStream:
    data = ImageStream(root, **{"batch_size": 8, "eval_batch_size": 4, **options})
    data.setup()
    return data


def made(folder: Path, items: list[Any], **options: Any) -> Path:
    """Chunks as litdata's own functions make them."""
    from litdata.streaming import Cache

    cache = Cache(str(folder), **{"chunk_size": 7, **options})
    for place, item in enumerate(items):
        cache[place] = item
    cache.done()
    cache.merge()
    return folder


def pairs(data: ImageDataModule, batches: GlobalBatches, *, training: bool) -> Iterator[Batch]:
    return (data.pair(raw, training=training) for raw in batches)


def test_the_same_pairs_as_of_the_pictures(pictures: Path, chunks: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "batch_size": 8, "eval_batch_size": 4, "corruption": Gaussian(0, 0.2), "flip": True, "shift": 1,
    }  # fmt: skip
    kept, streamed = ImageFolder(pictures, size=SIDE, cache=tmp_path, **options), opened(chunks, **options)
    kept.prepare_data()
    kept.setup()
    assert len(list((chunks / "train").glob("*.bin"))) > 5
    assert streamed.classes == kept.classes == ("cats", "dogs")
    assert (streamed.input_shape, streamed.target_shape) == (kept.input_shape, kept.target_shape)
    for loader, training in (
        ("train_dataloader", True),
        ("val_dataloader", False),
        ("test_dataloader", False),
    ):
        both = [list(pairs(data, getattr(data, loader)(), training=training)) for data in (kept, streamed)]
        assert len(both[0]) == len(both[1]) > 1
        for one, other in zip(*both, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
    for one, other in ((kept.labelled(9), streamed.labelled(9)), (kept.train, streamed.train)):
        assert torch.equal(one.images[2:7], other.images[2:7])
        assert torch.equal(one.labels[torch.tensor([5, 0])], other.labels[torch.tensor([5, 0])])


def epoch(data: ImageStream, epoch: int, rank: int = 0, world_size: int = 1) -> list[Tensor]:
    """The training images of each batch of one process."""
    batches = GlobalBatches(
        data.train, 8, shuffle=True, drop_last=True, seed=3, rank=rank, world_size=world_size
    )
    batches.set_epoch(epoch)
    return [raw.images for raw in batches]


def test_the_same_batches_on_any_number_of_processes(chunks: Path) -> None:
    data = opened(chunks, mixed_chunks=2)
    assert isinstance(data.train, StreamedImages)
    alone = epoch(data, 0)
    for processes in (2, 4):
        shares = zip(*(epoch(data, 0, rank, processes) for rank in range(processes)), strict=True)
        for whole, parts in zip(alone, shares, strict=True):
            assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)
    assert not torch.equal(torch.cat(alone), torch.cat(epoch(data, 1)))
    order = data.train.order(Randomness(0, rows=1))
    assert order.sort().values.tolist() == list(range(len(data.train)))
    read = data.train.chunks.of(data.train.places[order]).tolist()
    for window in data.train.windows:  # the images of two chunks, mixed, and then those of the next two
        count = sum(chunk in window for chunk in read)
        part, read = read[:count], read[count:]
        assert set(part) == set(window.tolist())
        assert part != sorted(part) != part[::-1]


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, "jpeg", quality=98, subsampling=0)
    return buffer.getvalue()


FORMS: dict[str, Callable[[int], Any]] = {
    "a tuple of a tensor and a number": lambda i: (torch.from_numpy(picture(i)).permute(2, 0, 1), i % 3),
    "an array with channels last": lambda i: {"image": picture(i), "label": i % 3},
    "floats": lambda i: {"label": torch.tensor(i % 3), "image": (picture(i) / 255).astype(np.float32)},
    "a PIL image": lambda i: {"image": Image.fromarray(picture(i)), "label": i % 3, "name": f"{i}"},
    "a JPEG": lambda i: {"image": Image.open(io.BytesIO(jpeg(i))), "label": i % 3},
    "beside a pickle, which is not read": lambda i: {"image": picture(i), "label": i % 3, "more": {1, i}},
}


@pytest.mark.parametrize("form", FORMS)
def test_what_litdata_makes_is_read(form: str, tmp_path: Path) -> None:
    data = opened(made(tmp_path / "chunks", [FORMS[form](seed) for seed in range(30)]))
    assert data.image_shape == (3, SIDE, SIDE)
    assert [len(split) for split in (data.train, data.val, data.test)] == [24, 3, 3]
    known = torch.stack([torch.from_numpy(picture(seed)).permute(2, 0, 1) for seed in range(30)]).float()
    found = torch.cat([split.images[:] for split in (data.train, data.val, data.test)]).float()
    labels = torch.cat([split.labels[:] for split in (data.train, data.val, data.test)])
    distance = (found[:, None] - known).abs().flatten(2).mean(2)  # (found, known)
    assert distance.min(1).values.max() < 3
    assert distance.argmin(1).sort().values.tolist() == list(range(30))
    assert torch.equal(labels, distance.argmin(1) % 3)


def test_images_of_other_sizes_and_colours(tmp_path: Path) -> None:
    rows = [np.full((9 + seed % 2, 12), seed, np.uint8) for seed in range(30)]
    folder = made(tmp_path / "chunks", [{"image": row} for row in rows])
    with pytest.raises(UserError, match=r"12 x 10, and the first 12 x 9 pixels: data.size=64 makes all"):
        opened(folder).train.take(torch.arange(24))
    data = opened(folder, size=6, channels=3)
    assert data.train.take(torch.arange(24)).images.shape == (24, 3, 6, 6)
    assert opened(folder, size=6).image_shape == (1, 6, 6)


class Executed:
    """What leaves a file behind where its pickle is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of litdata
def test_nothing_of_a_strangers_chunks_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from litdata.streaming import Cache

    executed, good = tmp_path / "executed", {"image": picture(1), "label": 0, "more": 0}
    for name in ("image", "label"):
        folder = made(tmp_path / name, [{**good, name: Executed(executed)}] * 30)
        with pytest.raises(UserError, match=f"each {name} is a pickle, which may run code, and is not read"):
            opened(folder)
    beside = made(tmp_path / "beside", [{**good, "more": Executed(executed)}] * 30)
    imported = made(tmp_path / "imported", [good] * 30)
    (tmp_path / "payload.py").write_text(
        f"from pathlib import Path\nPath({str(executed)!r}).touch()\nfactory = int\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = json.loads((imported / "index.json").read_text())["config"]["data_format"]
    context = {
        "default_factory_module": "payload",
        "default_factory_name": "factory",
        "dict_context": [*good],
    }
    leaf = {"type": None, "context": None, "children_spec": list[None]()}
    tree = {"type": "collections.defaultdict", "context": context, "children_spec": [leaf] * len(names)}
    configured(data_spec=json.dumps([1, tree]))(imported)
    for folder in (beside, imported):
        opened(folder).train.take(torch.arange(24))
        assert not executed.exists()
        _ = Cache(str(folder), chunk_size=7)[0]  # as litdata itself would have it
        gc.collect()
        assert executed.exists()
        executed.unlink()


def indexed(change: Callable[[Any], Any]) -> Callable[[Path], Any]:
    """Changes the index."""

    def changed(folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        change(index)
        (folder / "index.json").write_text(json.dumps(index))

    return changed


def configured(**config: Any) -> Callable[[Path], Any]:
    return indexed(lambda index: index["config"].update(config))


def named(name: str) -> Callable[[Path], Any]:
    return indexed(lambda index: index["chunks"][0].update(filename=name))


def first_file(folder: Path) -> Path:
    return folder / "chunk-0-0.bin"


def linked(folder: Path) -> None:
    first_file(folder).rename(folder.parent / "elsewhere.bin")
    first_file(folder).symlink_to(folder.parent / "elsewhere.bin")


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "is not valid JSON": lambda f: (f / "index.json").write_text((f / "index.json").read_text()[:-40]),
    "is damaged, or not of chunks that litdata made": lambda f: (f / "index.json").write_text("{}"),
    "is not the name of a file beside it": named("../chunk-0-0.bin"),
    "nowhere.bin is missing": named("nowhere.bin"),
    "leads out of": linked,
    "is too short for its 7 images": lambda f: first_file(f).write_bytes(b""),
    "or not a file of 7 images as its index.json says": lambda f: first_file(f).write_bytes(bytes(9999)),
    "or not a file of 7 images as": lambda f: first_file(f).write_bytes(first_file(f).read_bytes()[:-9]),
    "compression=zstd is not read here": configured(compression="zstd"),
    "item_loader=TokensLoader is not read here": configured(item_loader="TokensLoader"),
    "its items have no 'image', but a, b": configured(
        data_spec=json.dumps([1, {"type": "builtins.dict", "context": '["a", "b"]'}])
    ),
    "each image is a video and is not read": configured(data_format=["video", "int"]),
    "its labels must be from 0 to 9999": lambda f: first_file(f).write_bytes(
        first_file(f).read_bytes()[:-8] + b"\xff" * 8
    ),
}


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = [(torch.from_numpy(picture(seed)).permute(2, 0, 1), 1) for seed in range(28)]
    return made(tmp_path_factory.mktemp("plain") / "chunks", items)


@pytest.mark.parametrize("said", DAMAGE)
def test_damaged_chunks_are_named(said: str, plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "chunks"))
    DAMAGE[said](folder)
    with pytest.raises(UserError, match=said):
        opened(folder).train.take(torch.arange(22))


def test_bytes_at_random_end_in_one_line(plain: Path, tmp_path: Path) -> None:
    folder, rng = Path(shutil.copytree(plain, tmp_path / "chunks")), np.random.default_rng(0)
    whole, refused = bytearray(first_file(folder).read_bytes()), 0
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, 120, 2):  # where it says what is where
            content[place] = rng.integers(256)
        first_file(folder).write_bytes(content)
        try:
            opened(folder).train.take(torch.arange(22))
        except UserError:
            refused += 1
    assert refused > 20


def test_a_folder_that_is_none_is_named(tmp_path: Path, chunks: Path) -> None:
    for root, said in (
        (None, "data=stream needs data.root="),
        (
            tmp_path / "nowhere",
            "neither train/index.json nor index.json: python -m autoencoders.data.optimize",
        ),
    ):
        with pytest.raises(UserError, match=said):
            ImageStream(root)
    for options in (
        {"only": [0]},
        {"without": [1]},
        {"corrupt_once": True},
        {"binarize": "static"},
        {"mixed_chunks": 0},
        {"fit": "patches"},
    ):
        with pytest.raises(ValueError, match=f"^{next(iter(options))}="):
            ImageStream(chunks, **options)
    with pytest.raises(UserError, match="train_size=99 must be at most the 48 images"):
        opened(chunks, train_size=99)
    assert len(opened(chunks, train_size=20, validation_size=2, test_size=3).train) == 20


def test_a_bucket_is_read_through_a_cache(
    chunks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... by litdata's downloader, which has one for a folder that stands for a bucket."""
    monkeypatch.setattr(buckets, "SCHEMES", ("local:",))
    size = max(path.stat().st_size for path in (chunks / "train").glob("*.bin"))
    options: dict[str, Any] = {"mixed_chunks": 2, "cache": tmp_path / "cache", "cache_gb": 5 * size / 1e9}
    fetched, there = opened(f"local:{chunks}", **options), opened(chunks, mixed_chunks=2)
    assert fetched.classes == there.classes
    for number in (0, 1):
        both = epoch(fetched, number), epoch(there, number)
        assert all(torch.equal(one, other) for one, other in zip(*both, strict=True))
    sizes = {folder: len(list(folder.glob("*.bin"))) for folder in (tmp_path / "cache").iterdir()}
    assert max(sizes.values()) <= 6 < len(list((chunks / "train").glob("*.bin")))
    with pytest.raises(UserError, match=r"local:.*nowhere/train"):
        opened(f"local:{tmp_path}/nowhere", **options)


def test_a_strangers_run_fetches_nothing(data_root: Path, tmp_path: Path, chunks: Path) -> None:
    import folders

    run_ = folders.make(tmp_path / "run", data_root, "data=stream", f"data.root='{chunks}'")
    config = (run_ / runs.CONFIG).read_text()
    assert runs.read_run(run_, trust=False).data.root == str(chunks)
    (run_ / runs.CONFIG).write_text(config.replace(str(chunks), "s3://mine/chunks"))
    assert runs.read_run(run_, trust=False).data.root is None


def test_without_litdata_it_is_said(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("writer", "downloader"):
        monkeypatch.setitem(sys.modules, f"litdata.streaming.{module}", None)
    said = r"litdata, which is not installed: pip install 'autoencoders\[stream\]'"
    with pytest.raises(UserError, match=said):
        optimize.main([f"root={pictures}", f"out={tmp_path / 'out'}"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=said):
        ImageStream("s3://bucket/chunks")


def test_what_optimize_is_told(tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in {
        "out=a": "name the pictures and a new folder",
        "root=a out=b sise=3": "no key sise: did you mean 'size'",
        "root=a out=b fit=patches": "fit=patches needs whole pictures",
        "root=a out=b chunk_mb=none": "chunk_mb=none must be a number",
        "root=a out=b chunk_mb=0": "chunk_mb=0.0 must be > 0",
        f"root=nowhere out={tmp_path}/b": "data.root=nowhere is neither",
        f"root=nowhere out={data_root}": "exists: choose a new folder",
    }.items():
        assert said in str(line_of(lambda words=words: optimize.main(words.split())))  # type: ignore[misc]
    assert not list(tmp_path.iterdir())
    optimize.main(["--help"])
    usage = capsys.readouterr().out
    assert all(f"  {key}=" in usage for key in optimize.KEYS)
    (tmp_path / ".out.unfinished").mkdir()
    optimize.main(["data=mnist", f"root={data_root}", f"out={tmp_path / 'out'}", "validation_size=30"])
    assert "out was interrupted: it is made anew" in capsys.readouterr().out
    kept = MNIST(data_root, validation_size=30, batch_size=8)
    kept.setup()
    streamed = opened(tmp_path / "out")
    for one, other in ((kept.train, streamed.train), (kept.val, streamed.val), (kept.test, streamed.test)):
        assert torch.equal(one.images, other.images[:])
        assert torch.equal(one.labels, other.labels[:])


@pytest.mark.slow
def test_chunks_are_whole_after_kills(pictures: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "autoencoders.data.optimize",
        f"root={pictures}",
        f"out={tmp_path / 'out'}",
        "size=512",
    ]
    killed = 0
    for after in (3.5, 4.0, 4.5, 5.0, 6.0):
        process = subprocess.Popen(words, env={"PYTHONPATH": str(tiny.REPOSITORY / "src")})
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if (tmp_path / "out").exists():
            break
    assert killed
    if not (tmp_path / "out").exists():
        optimize.main(words[3:])
    assert [len(split) for split in (opened(tmp_path / "out").train,)] == [48]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".unfinished"] == []


@pytest.mark.slow
def test_two_processes_and_a_kill(chunks: Path, data_root: Path, tmp_path: Path) -> None:
    chosen = [
        "data=stream", f"data.root='{chunks}'", "data.mixed_chunks=2", "data.batch_size=8",
        "model=denoising", "corruption=gaussian", "network=mlp",
        "data.validation_size=null", "trainer.max_epochs=3", *NO_WANDB,
    ]  # fmt: skip
    for devices in (1, 2):
        train(data_root, tmp_path / str(devices), *chosen, f"trainer.devices={devices}")
    for metric in ("train/loss", "val/mse"):
        one, two = (column(tmp_path / devices, metric) for devices in ("1", "2"))
        assert len(one) >= 3
        assert one == pytest.approx(two, rel=1e-4)
    options = small(data_root, tmp_path / "killed", *chosen, "checkpoint.every_n_minutes=0")
    run("train.py", data_root, *options, fault="kill step 9", ok=False)
    run("train.py", data_root, f"resume={tmp_path / 'killed'}")
    assert column(tmp_path / "killed", "val/mse") == column(tmp_path / "1", "val/mse")
    before, after = weights(tmp_path / "1"), weights(tmp_path / "killed")
    assert all(torch.equal(before[name], after[name]) for name in before)
    run("evaluate.py", data_root, f"run={tmp_path / 'killed'}")
