"""Pictures of one's own: formats, splits, classes, fits, pairs, the cache, and what is wrong with files."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from command import NO_WANDB, column, run, small, train
from conftest import Compose
from omegaconf import OmegaConf
from PIL import Image

from autoencoders import training
from autoencoders.corruption import Gaussian
from autoencoders.data import ImageFolder, SamplePhotos, cache, pictures
from autoencoders.errors import UserError
from autoencoders.evaluation import evaluate_run
from autoencoders.export.folder import portable

SIDE = 16
Make = Callable[..., ImageFolder]


def gradient(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture like no other: a ramp from left to right, and a colour."""
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    ramp[:, :, seed % 3] = seed % 256
    return Image.fromarray(ramp.astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 pictures of two classes."""
    for seed in range(40):
        path = tmp_path / "pictures" / ("cats" if seed < 20 else "dogs") / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        gradient(20 + seed, 24, seed).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A data module, set up, with a cache of its own."""

    def make_(root: Path, **options: Any) -> ImageFolder:
        options = {"size": SIDE, "batch_size": 4, "cache": tmp_path / "cache", **options}
        data = ImageFolder(root, **options)
        data.prepare_data()
        data.setup()
        return data

    return make_


def names(data: ImageFolder, split: str) -> list[str]:
    return cache.open_split(data._folder, split, ()).names


@pytest.mark.parametrize("suffix", pictures.SUFFIXES)
def test_every_format_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{suffix}"
    gradient(30, 20).save(path)
    read = pictures.read(path, 3, None, "crop")
    exact = np.asarray(gradient(30, 20)).transpose(2, 0, 1)
    assert read.shape == (3, 20, 30)
    assert np.abs(read.astype(int) - exact).mean() < 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_gray_or_colour(mode: str, channels: int, tmp_path: Path) -> None:
    gray = np.full((8, 9), 200, np.uint8)
    picture = Image.fromarray(gray)
    picture = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(path)
    read = pictures.read(path, channels, None, "crop")
    assert read.shape == (channels, 8, 9)
    assert read.dtype == np.uint8
    if mode == "1":  # dithered
        assert set(np.unique(read)) <= {0, 255}
    else:
        assert np.abs(read.astype(int) - 200).max() <= 1


def test_pictures_are_upright_and_transparent_ones_on_white(tmp_path: Path) -> None:
    picture, exif = gradient(30, 20), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    assert pictures.read(tmp_path / "turned.png", 3, None, "crop").shape == (3, 30, 20)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (pictures.read(tmp_path / "clear.png", 3, None, "crop") == 255).all()


def test_how_a_picture_gets_its_size() -> None:
    picture = Image.fromarray(np.repeat(np.array([[0] * 10 + [200] * 20 + [0] * 10], np.uint8), 20, 0))
    shapes = {fit: pictures.fitted(picture, SIDE, fit) for fit in ("crop", "resize", "pad")}
    assert {read.shape for read in shapes.values()} == {(1, SIDE, SIDE)}
    assert shapes["crop"][0, 8].min() > 150  # the middle 20 columns
    assert shapes["resize"][0, 8, 0] == 0
    assert shapes["pad"][0, 0].max() == 0
    assert shapes["pad"][0, 8, 8] > 150
    assert pictures.fitted(picture, SIDE, "patches").shape == (1, 20, 40)


def test_classes_and_held_out_pictures(folder: Path, make: Make) -> None:
    data = make(folder)
    assert data.classes == ("cats", "dogs")
    assert data.image_shape == (3, SIDE, SIDE)
    splits = {split: set(names(data, split)) for split in ("train", "val", "test")}
    assert [len(split) for split in splits.values()] == [32, 4, 4]
    assert len(set.union(*splits.values())) == 40
    for name, label in zip(names(data, "train"), data.train.labels.tolist(), strict=True):
        assert name.startswith(data.classes[label])
    assert splits["test"] == set(names(make(folder, batch_size=8, seed=5), "test"))
    assert len(make(folder, test_size=9, validation_size=7).train) == 24


def test_folders_are_splits_where_they_are_there(folder: Path, make: Make) -> None:
    for split, chosen in (("train", range(0, 12)), ("valid", range(12, 16)), ("test", range(16, 20))):
        (folder.parent / "parted" / split).mkdir(parents=True)
        for seed in chosen:
            shutil.copy(folder / "cats" / f"{seed}.png", folder.parent / "parted" / split)
    data = make(folder.parent / "parted")
    assert [len(s) for s in (data.train, data.val, data.test)] == [12, 4, 4]
    assert all(name.startswith("valid") for name in names(data, "val"))
    assert data.classes == ()
    shutil.rmtree(folder.parent / "parted" / "valid")
    assert [len(s) for s in (make(folder.parent / "parted").train, data.test)] == [11, 4]


def test_classes_to_train_on(folder: Path, make: Make) -> None:
    for options in ({"only": [1]}, {"without": [0]}):
        data = make(folder, **options)
        assert set(data.train.labels.tolist()) == set(data.val.labels.tolist()) == {1}
        assert set(data.test.labels.tolist()) == {0, 1}
    with pytest.raises(ValueError, match=r"only=\[7\] names 7: the data set has labels from 0 to 1"):
        make(folder, only=[7])


def test_patches_are_random_in_training_and_a_grid_in_test(folder: Path, make: Make) -> None:
    data = make(folder, fit="patches", corruption=Gaussian(0, 0.1))
    pictures_of = {split: len(names(data, split)) for split in ("train", "test")}
    assert len(data.test) >= pictures_of["test"]
    assert not set(names(data, "train")) & set(names(data, "test"))
    widths = [pictures.read(folder / name, 1, None, "crop").shape[2] // SIDE for name in names(data, "test")]
    assert len(data.test) == sum(widths)  # the pictures are one patch high
    first = pictures.read(folder / names(data, "test")[0], 3, None, "crop")[:, :SIDE, :SIDE]
    assert np.array_equal(data.test.images[0], first)
    rows = torch.arange(4)
    one, again, other = (data.train.take(rows, step).images for step in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    halves = [data.train.take(rows, 1, slice(rank, None, 2)).images for rank in (0, 1)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), one)


@pytest.mark.parametrize("fit", ["crop", "patches"])
def test_measured_pairs(fit: str, folder: Path, make: Make) -> None:
    measured = folder.parent / "measured"
    for path in folder.rglob("*.png"):
        target = measured / path.relative_to(folder).with_suffix(".bmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - pictures.read(path, 3, None, "crop").transpose(1, 2, 0)).save(target)
    data = make(folder, input_root=measured, fit=fit)
    for training_, loader in ((True, data.train_dataloader()), (False, data.test_dataloader())):
        batch = data.pair(next(iter(loader)), training=training_)
        assert torch.allclose(batch.corrupted, 1 - batch.clean, atol=0.02)
    with pytest.raises(ValueError, match="input_root has the corrupted images: choose corruption=none"):
        make(folder, input_root=measured, corruption=Gaussian())
    with pytest.raises(ValueError, match="corrupt_once=True does not go with input_root, which has"):
        make(folder, input_root=measured, corrupt_once=True)
    with pytest.raises(ValueError, match="binarize=static does not go with input_root"):
        make(folder, input_root=measured, binarize="static", fit="crop")
    if fit == "patches":
        with pytest.raises(ValueError, match="binarize=static does not go with fit=patches"):
            make(folder, fit=fit, binarize="static")
    (measured / "cats" / "3.bmp").unlink()
    with pytest.raises(UserError, match=r"lacks pictures of data.root: cats/3"):
        make(folder, input_root=measured)


@pytest.mark.parametrize("suffix", pictures.ARRAYS)
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_files_of_arrays(suffix: str, kind: str, tmp_path: Path, make: Make) -> None:
    images = (np.arange(30)[:, None, None] * np.ones((30, 12, 14)) * 8).astype(np.uint8)
    given, labels = images.astype(kind) / (255 if kind == "float32" else 1), np.arange(30) % 3
    given, path = given.astype(kind), tmp_path / f"images{suffix}"
    if suffix == ".npy":
        np.save(path, given)
    elif suffix == ".npz":
        np.savez(path, images=given, labels=labels)
    else:
        torch.save({"images": torch.from_numpy(given), "labels": torch.from_numpy(labels)}, path)
    data = make(path, size=None)
    assert data.image_shape == (1, 12, 14)
    assert data.classes == (() if suffix == ".npy" else ("0", "1", "2"))
    order = [int(name.partition("[")[2][:-1]) for name in names(data, "train")]
    assert torch.equal(data.train.images[:, 0], torch.from_numpy(images)[order])


def damaged(folder: Path) -> dict[str, str]:
    """Files that are no pictures, by what is said of them."""
    (folder / "empty.png").write_bytes(b"")
    whole = (folder / "cats" / "1.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (20_000, 20_000)).save(folder / "bomb.png", compress_level=9)
    Image.new("L", (5000, 2)).save(folder / "narrow.png")
    Image.fromarray(np.zeros((9, 9), np.float32)).save(folder / "floats.tif")
    (folder.parent / "outside").mkdir()
    shutil.copy(folder / "cats" / "1.png", folder.parent / "outside")
    (folder / "link.png").symlink_to(folder.parent / "outside" / "1.png")
    (folder / "linked").symlink_to(folder.parent / "outside")
    (folder / "lost.png").symlink_to("nothing.png")
    Image.new("L", (9, 9)).save(folder / "moving.gif")
    os.mkfifo(folder / "pipe.png")
    return {
        "empty.png": "is not a picture", "cut.png": "is damaged: ", "narrow.png": "too narrow",
        "bomb.png": "more than 100,000,000 pixels", "floats.tif": "floats", "link.png": "leads out of",
        "linked": "leads out of", "lost.png": "is a link to nothing", "pipe.png": "is not a file",
        "moving.gif": "is of a kind that is not read; .png, .jpg,",
    }  # fmt: skip


def test_unreadable_pictures_are_named_and_left_out(
    folder: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = damaged(folder)
    data = make(folder)
    assert sum(len(names(data, split)) for split in ("train", "val", "test")) == 40
    said = dict(json.loads((data._folder / "index.json").read_text())["unreadable"])
    assert said.keys() == expected.keys()
    assert all(why in said[name] for name, why in expected.items()), said
    assert "left out, as unreadable: 10 (all in" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"data.strict=false leaves it out"):
        make(folder, strict=True)


def test_a_split_of_unreadable_pictures_is_said_with_the_way_out(folder: Path, make: Make) -> None:
    (name,) = names(make(folder, validation_size=1), "val")
    (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"for val could be read; a larger data.validation_size"):
        make(folder, validation_size=1)
    assert len(names(make(folder, validation_size=2), "val")) == 1


def test_any_name_will_do(tmp_path: Path, make: Make) -> None:
    """... of a picture and of a class, also one that can't be shown."""
    for name in ("one\n\x1b[31m", "two\udcff"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for seed in range(20):
            gradient(20, 20, seed).save(tmp_path / "in" / name / f"{seed}\udcfe\n.png")
    data = make(tmp_path / "in")
    assert data.classes == ("one �[31m", "two�")
    assert sum(len(names(data, split)) for split in ("train", "val", "test")) == 40


def test_a_file_of_arrays_that_is_none_is_named(tmp_path: Path, make: Make) -> None:
    for name, content in (("a.npy", b"nothing"), ("a.npz", b"PK"), ("a.pt", b"\x80")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="is damaged, or not a file of arrays"):
            make(tmp_path / name)
    np.save(tmp_path / "object.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(UserError, match="is damaged, or not a file of arrays"):
        make(tmp_path / "object.npy")
    np.save(tmp_path / "flat.npy", np.zeros((3, 4)))
    with pytest.raises(UserError, match=r"must hold images \(N, H, W\[, C\]\)"):
        make(tmp_path / "flat.npy")


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, folder: Path, make: Make) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no pictures: \.png"):
        make(tmp_path / "empty")
    with pytest.raises(UserError, match="is neither a folder of pictures nor a file"):
        make(tmp_path / "nowhere")
    shutil.copy(folder / "cats" / "1.png", tmp_path / "empty")
    with pytest.raises(UserError, match="has 1 picture, and none is left for train: "):
        make(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"validation_size=0.9 must be a number of pictures, not a share"):
        make(folder, validation_size=0.9)
    with pytest.raises(ValueError, match="fit=stretch must be crop or resize"):
        make(folder, fit="stretch")


def test_the_cache_is_used_again_and_follows_the_files(folder: Path, make: Make) -> None:
    first = make(folder)
    index = first._folder / "index.json"
    made = index.stat().st_mtime_ns
    assert make(folder, batch_size=8)._folder == first._folder
    assert index.stat().st_mtime_ns == made
    gradient(33, 33, 99).save(folder / "cats" / "new.png")
    assert make(folder)._folder != first._folder
    (first._folder / "train.bin").write_bytes(b"short")
    (folder / "cats" / "new.png").unlink()
    with pytest.raises(UserError, match="is damaged: remove it"):
        make(folder)


def test_a_cache_is_whole_after_kills_and_is_made_once_by_two(folder: Path, tmp_path: Path) -> None:
    """... also where the process that makes it is killed at any moment."""
    where = tmp_path / "cache"
    script = f"""
import threading, time
from multiprocessing import get_context
from pathlib import Path
from tqdm import tqdm
from autoencoders.data import ImageFolder

def decode():
    tqdm.set_lock(threading.RLock())  # forks share tqdm's own, which a killed one may hold for ever
    ImageFolder(Path({str(folder)!r}), size={SIDE}, cache=Path({str(where)!r})).prepare_data()

def start():
    process = get_context("fork").Process(target=decode)
    process.start()
    return process

for after in (0.0, 0.005, 0.02, 0.05):
    process = start()
    time.sleep(after)
    process.kill()
    process.join()
both = [start() for _ in range(2)]
for process in both:
    process.join(60)
assert [process.exitcode for process in both] == [0, 0]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    (made,) = where.glob("*/index.json")
    assert not list(where.glob("*.unfinished"))
    assert made.parent.joinpath("train.bin").stat().st_size == 32 * 3 * SIDE**2


def test_sample_photos_are_held_out_by_picture(tmp_path: Path) -> None:
    data = SamplePhotos(cache=tmp_path, size=128)
    data.prepare_data()
    data.setup()
    assert names(data, "test") == ["camera.png", "chelsea.png", "china.jpg", "rocket.jpg"]
    assert not set(names(data, "train")) & {*names(data, "val"), *names(data, "test")}
    assert data.test.images.shape[1:] == (3, 128, 128)


def test_a_model_is_trained_on_pictures(composed: Compose, folder: Path, tmp_path: Path) -> None:
    chosen = ["data=images", f"data.root={folder}", f"data.cache={tmp_path / 'cache'}", "data.size=16"]
    cfg = composed(
        "model=denoising", "corruption=gaussian", "network=mlp", *chosen, "data.validation_size=null"
    )
    training.train(cfg, tmp_path / "run")
    cfg.data.only = [0]
    assert evaluate_run(tmp_path / "run", cfg).keys() == {"reconstruction", "anomalies", "latent space"}
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test/mse"] > 0


def test_shapes_are_known_without_pictures(folder: Path, make: Make) -> None:
    """... where they are told, as in a run that others have."""
    data = ImageFolder(None, size=SIDE, channels=3, input_root="measured", input="gray")
    assert (data.input_shape, data.target_shape) == ((1, SIDE, SIDE), (3, SIDE, SIDE))
    with pytest.raises(UserError, match=r"data=images needs data.root="):
        data.prepare_data()
    assert portable(
        OmegaConf.create({"data": {"root": str(folder), "cache": "x", "channels": None, "input": None}}), data
    ) == {"data": {"root": None, "cache": None, "channels": 3, "input": "gray"}}


@pytest.mark.slow
def test_pictures_on_two_devices_in_a_sweep_and_resumed(
    folder: Path, data_root: Path, tmp_path: Path
) -> None:
    chosen = [
        "data=images", "data.fit=patches", "data.size=16", "model=denoising", "corruption=gaussian",
        "network=mlp", "data.validation_size=null", f"data.cache={tmp_path / 'cache'}", *NO_WANDB,
    ]  # fmt: skip
    for devices in (1, 2):
        options = [*chosen, f"trainer.devices={devices}", "trainer.max_epochs=2"]
        train(folder, tmp_path / str(devices), *options)
    one, two = (column(tmp_path / devices, "val/mse") for devices in ("1", "2"))
    assert one == pytest.approx(two, rel=1e-4)
    options = small(
        folder, tmp_path / "killed", *chosen, "trainer.max_epochs=2", "checkpoint.every_n_minutes=0"
    )
    run("train.py", folder, *options, fault="kill step 6", ok=False)
    run("train.py", folder, f"resume={tmp_path / 'killed'}", f"data.cache={tmp_path / 'cache'}")
    assert column(tmp_path / "killed", "val/mse") == one
    run("evaluate.py", folder, f"run={tmp_path / 'killed'}", f"data.cache={tmp_path / 'cache'}")


def test_help_names_the_groups(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(tiny.REPOSITORY / "train.py"), "data=images"],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "data=images needs data.root=<a folder of pictures" in done.stderr
