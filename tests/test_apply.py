"""Trained models on pictures of one's own: what is kept, what is refused, what is measured."""

import csv
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command
import numpy as np
import pytest
import tiny
import torch
from conftest import Compose
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import autoencoders
from autoencoders import training
from autoencoders.apply import anomalies, codes, motion, pictures, tiles
from autoencoders.apply.__main__ import main
from autoencoders.apply.command import KEYS, usage
from autoencoders.apply.pictures import Entry, Picture
from autoencoders.apply.restore import Restore, names_apart, restored
from autoencoders.corruption import Masking
from autoencoders.errors import UserError
from autoencoders.export import folder as exporting
from autoencoders.randomness import Randomness

SCRIPT = "src/autoencoders/apply/__main__.py"
RNG = np.random.default_rng(0)


class Same:
    """A model of 8 x 8 images that gives back what it reads."""

    device = torch.device("cpu")

    def __init__(self, channels: int = 1, any_size: Any = False) -> None:
        self.input_shape = self.target_shape = (channels, 8, 8)
        self.any_size, self.shapes = any_size, list[tuple[int, ...]]()

    def __call__(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        return images


@pytest.fixture(scope="module")
def run(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser's, of 28 x 28 gray images, which has learnt a little."""
    folder = tmp_path_factory.mktemp("runs") / "denoising"
    training.train(
        composed("model=denoising", "network=mlp", "model.code_dim=4", "trainer.max_epochs=12"), folder
    )
    return folder


@pytest.fixture(scope="module")
def colorizer(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "colorization"
    options = ("model=colorization", "data=cifar10_gray", "network=mlp", "network.hidden=[8]")
    training.train(composed(*options, "model.code_dim=4"), folder)
    return folder


def noise(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of several sizes, in subfolders."""
    folder = tmp_path / "pictures"
    for name, shape in {
        "a.png": (28, 28),
        "one/b.png": (30, 71),
        "one/c.png": (9, 50, 3),
        "d.jpg": (40, 40, 3),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(*shape)).save(folder / name)
    return folder


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def export(run: Path, folder: Path) -> Path:
    """What of an exported folder is read again."""
    trained = autoencoders.load(run)
    folder.mkdir()
    exporting.write(folder, trained.model, trained.config, {}, ())
    return folder


def line(*words: object) -> str:
    said = command.line_of(lambda: main([str(word) for word in words]))
    assert said is not None
    return said


# ---- tiles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (1, 300), (3, 5), (9, 8), (61, 97)])
@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.9])
def test_an_identity_gives_back_what_it_gets(size: tuple[int, int], overlap: float) -> None:
    images = torch.rand(2, 3, *size)
    made = tiles.blended(lambda tile: tile, images, (8, 8), overlap, batch=7)
    assert made.shape == images.shape
    assert (made - images).abs().max() < 1e-6


@pytest.mark.parametrize("size", [8, 9, 20, 101])
def test_weights_add_up_to_one(size: int) -> None:
    first = tiles.starts(size, 8, 0.5)
    assert (int(first[0]), int(first[-1])) == (0, size - 8)
    assert ((first[1:] - first[:-1]) <= 4).all()
    total = torch.zeros(size, dtype=torch.float64)
    for start, weight in zip(first.tolist(), tiles.weights(first, 8), strict=True):
        total[start : start + 8] += weight
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-15)


def check_seams(made: Tensor, tile: int) -> None:
    """Across the edges of tiles nothing changes faster than elsewhere in a picture (C, H, W)."""
    assert made.std() > 0.01  # there is something to see
    for axis in (1, 2):
        steps = made.diff(dim=axis).abs().movedim(axis, 0).flatten(1).mean(1)
        first = tiles.starts(made.shape[axis], tile, 0.5)
        edges = torch.cat([first[1:] - 1, first[:-1] + tile - 1])
        elsewhere = torch.ones(len(steps), dtype=torch.bool)
        elsewhere[edges] = False
        assert steps[edges].max() <= steps[elsewhere].max()


def test_tiles_that_have_nothing_in_common_leave_no_seams() -> None:
    """Each becomes its mean, so that all there is to see comes from the edges."""
    images = torch.rand(1, 1, 97, 150)

    def made() -> Tensor:
        return tiles.blended(lambda tile: tile.mean((2, 3), True).expand_as(tile), images, (8, 8), 0.5, 99)[0]

    check_seams(made(), 8)
    with pytest.MonkeyPatch.context() as patch:  # the test itself would see them
        patch.setattr(tiles, "weights", lambda first, tile: torch.full((len(first), tile), 0.5))
        with pytest.raises(AssertionError):
            check_seams(made(), 8)


def test_a_real_model_leaves_no_seams(run: Path) -> None:
    blobs = torch.from_numpy(tiny.blobs(35, 1, 28, seed=3)).float() / 255
    picture = 0.4 + 0.6 * blobs.view(5, 7, 28, 28).transpose(1, 2).reshape(1, 140, 196)[:, :100, :150]
    check_seams(restored(autoencoders.load(run).model, picture, 0.5, 256, None, Randomness(0, rows=3))[1], 28)


def test_a_model_of_any_size_is_applied_whole() -> None:
    for said in (True, lambda: True):
        model = Same(any_size=said)
        restored(model, torch.rand(1, 30, 50), 0.5, 256, None, Randomness(0, rows=3))
        assert model.shapes == [(1, 1, 30, 50)]


# ---- what is kept ------------------------------------------------------------------------------------------


def through(tmp_path: Path, image: Image.Image, name: str, **options: Any) -> tuple[Image.Image, list[str]]:
    """What an identity makes of a picture file, and what is noted."""
    source = tmp_path / name
    image.save(source, **options)
    picture = pictures.read(source)
    task = Restore(tmp_path / "out", 0.5, 256, None, sheets=False)
    task(Same(), Entry(source, name), picture)
    (made,) = (tmp_path / "out").iterdir()
    assert made.name == name or picture.notes
    return opened(made), picture.notes


@pytest.mark.parametrize("name", ["p.png", "p.tif", "p.webp", "p.bmp", "p.jpg"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16", "CMYK"])
def test_a_picture_keeps_its_format_depth_colour_and_alpha(tmp_path: Path, name: str, mode: str) -> None:
    deep = mode == "I;16"
    image = Image.fromarray(noise(20, 31, dtype=np.uint16) if deep else noise(20, 31, 4))
    if mode in ("P", "CMYK"):
        image = image.convert("RGB")  # made of RGBA, a palette would have an alpha
    image = image if deep else image.convert(mode)
    try:
        image.save(tmp_path / name)
    except (OSError, ValueError, KeyError):
        pytest.skip("Pillow has no such file")
    known = opened(tmp_path / name)
    made, notes = through(tmp_path, image, name)
    assert made.size == (31, 20)
    kept = {"1": "L", "P": "RGB", "CMYK": "RGB"}.get(known.mode, known.mode)
    assert (made.format, made.mode) == (known.format, kept)
    before, after = np.asarray(known.convert(kept)), np.asarray(made)
    if name == "p.jpg":
        assert np.abs(before.astype(int) - after).mean() < 4
    else:
        assert (before == after).all()
    assert bool(notes) == (mode == "CMYK" and known.mode == "CMYK")


def test_what_a_format_cannot_hold_becomes_a_png_and_that_is_said(tmp_path: Path) -> None:
    picture = Picture(noise(9, 9, 3), noise(9, 9), "BMP")
    assert pictures.write(picture, tmp_path / "a.bmp").name == "a.bmp.png"
    assert "saved as a.bmp.png" in picture.notes[0]
    again = pictures.read(tmp_path / "a.bmp.png")
    assert (again.values == picture.values).all()
    assert again.alpha is not None
    assert (again.alpha == picture.alpha).all()


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.webp", "p.tif"])
def test_exif_turns_a_picture_once(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    values = np.zeros((16, 24), np.uint8)
    values[:, :8] = 255  # left in the file; on top as it is shown
    made, _ = through(tmp_path, Image.fromarray(values).convert("RGB"), name, exif=exif)
    assert made.size == (16, 24)
    assert made.getexif().get(0x0112, 1) == 1
    assert np.asarray(made)[:7].min() > 200
    assert np.asarray(made)[9:].max() < 50
    if name != "p.tif":
        assert made.getexif()[0x010E] == "a description"


def test_channels_go_one_by_one_or_together() -> None:
    """A gray model reads three gray images of a colour picture; a colour model three equal channels of a gray
    one, which is gray again; alpha is nobody's."""
    gray, colour = Same(1), Same(3)
    picture = torch.rand(3, 8, 8)
    assert torch.equal(restored(gray, picture, 0.5, 99, None, Randomness(0, rows=3))[1], picture)
    assert gray.shapes == [(3, 1, 8, 8)]
    made = restored(colour, picture[:1], 0.5, 99, None, Randomness(0, rows=3))[1]
    assert colour.shapes == [(1, 3, 8, 8)]
    torch.testing.assert_close(made, picture[:1], rtol=0, atol=1e-3)  # the weights of luma add up to 0.9999


def test_a_colorizer_reads_luma_and_gives_colour(colorizer: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(noise(40, 33, dtype=np.uint16)).save(source / "deep.png")
    Image.fromarray(noise(33, 40, 3)).save(source / "colour.tif")
    Image.fromarray(noise(33, 40, 3)).convert("LA").save(source / "alpha.png")
    main([f"run={colorizer}", f"images={source}", f"out={tmp_path / 'out'}", "side_by_side=true"])
    made = {path.name: opened(path) for path in (tmp_path / "out").glob("*.[pt]*")}
    assert {name: image.mode for name, image in made.items() if "sheet" not in name} == {
        "deep.png": "RGB", "colour.tif": "RGB", "alpha.png": "RGBA",
    }  # fmt: skip
    assert made["deep.png"].size == (33, 40)
    assert made["colour.tif.sheet.png"].size == (3 * 40 + 8, 33)  # the picture, its luma, its new colours


# ---- a folder ----------------------------------------------------------------------------------------------


def test_a_folder_is_taken_up_again(run: Path, folder: Path, tmp_path: Path, capsys: Any) -> None:
    before, out = {name: (folder / name).read_bytes() for name in names(folder)}, tmp_path / "new" / "out"
    words = [f"run={run}", f"images={folder}", f"out={out}"]
    main([*words, "corrupt=true", "side_by_side=true"])
    assert names(out) == {"apply.json", *before, *(f"{name}.sheet.png" for name in before)}
    for name in before:
        sheet, picture, made = map(opened, (out / f"{name}.sheet.png", folder / name, out / name))
        assert (made.size, made.mode, made.format) == (picture.size, picture.mode, picture.format)
        assert sheet.size == (3 * made.width + 8, made.height)
    assert "4 pictures written" in capsys.readouterr().out

    (out / "one" / "b.png").unlink()
    (out / ".a.png.123.tmp").touch()  # of a process that was killed
    os.utime(folder / "a.png")
    os.utime(out / "a.png", ns=(0, 0))
    kept = (out / "d.jpg").stat().st_mtime_ns
    main([*words, "corrupt=true", "side_by_side=true"])
    assert "2 pictures written" in (said := capsys.readouterr().out)
    assert "2 were there already" in said
    assert not list(out.rglob("*.tmp"))
    assert (out / "d.jpg").stat().st_mtime_ns == kept
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert "results of another corruption" in line(*words)
    assert "results of another overlap" in line(*words, "corrupt=true", "overlap=0.75")


def test_one_tile_is_what_the_model_makes_of_it(run: Path, folder: Path, tmp_path: Path) -> None:
    main([f"run={run}", f"images={folder / 'a.png'}", f"out={tmp_path / 'out'}"])
    trained = autoencoders.load(run)
    image = np.asarray(opened(folder / "a.png"))
    made = np.asarray(opened(tmp_path / "out" / "a.png"))
    assert (made == (trained.reconstruct(image)[0] * 255).round()).all()


def test_an_exported_folder_does_what_its_run_does(
    run: Path, folder: Path, data_root: Path, tmp_path: Path
) -> None:
    exported = export(run, tmp_path / "ex port")
    made = dict[str, list[bytes]]()
    for source in (run, exported):
        out = tmp_path / f"of {source.name}"
        main([f"run={source}", f"images={folder}", f"out={out}", "corrupt=true"])
        main(
            [f"run={source}", f"images={folder}", f"anomalies={out / 'ranked.csv'}", f"data.root={data_root}"]
        )
        made[source.name] = [(out / name).read_bytes() for name in sorted(names(out) - {"apply.json"})]
    assert made[run.name] == made[exported.name]
    assert "results of another checkpoint" in line(
        f"run={exported}", f"images={folder}", f"out={tmp_path / 'of denoising'}", "corrupt=true"
    )


def test_what_an_exported_folder_lacks_is_asked_for(composed: Compose, folder: Path, tmp_path: Path) -> None:
    """Pictures of one's own stay at home: it knows how to find the validation images among them again."""
    own = [f"data.root={folder}", f"data.cache={tmp_path / 'cache'}", "data.size=8"]
    cfg = composed("data=images", *own, "data.validation_size=null", "data.batch_size=1", "network=mlp")
    training.train(cfg, tmp_path / "run")
    exported = export(tmp_path / "run", tmp_path / "exported")
    words = [f"run={exported}", f"images={folder}", f"anomalies={tmp_path / 'ranked.csv'}"]
    asked = "anomalies= needs the validation images of the run: data=images needs data.root=<a folder"
    assert asked in line(*words)
    main([*words, *own[:2]])
    assert (tmp_path / "ranked.csv").read_text().count("\n") == 5


def test_globs_and_their_subfolders(run: Path, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)
    main([f"run={run}", "images=one/*.png", "out=out"])
    assert names(folder / "out") == {"apply.json", "b.png", "c.png"}
    assert "out=out is in" in line(f"run={run}", "images=**/*.png", "out=out")


def test_no_picture_is_overwritten(run: Path, folder: Path, tmp_path: Path) -> None:
    words = [f"run={run}", f"images={folder}"]
    assert "choose another" in line(*words, f"out={folder}")
    assert "choose another" in line(*words, f"out={folder / 'one' / 'out'}")
    assert "is not empty" in line(f"run={run}", f"images={folder / 'one'}", f"out={folder}")
    assert "would overwrite" in line(f"run={run}", f"images={folder / 'a.png'}", f"out={folder}")
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert "choose another" in line(*words, f"out={link / 'out'}")
    entries = [Entry(folder / name, name) for name in ("a.bmp", "a.bmp.png", "b.png")]
    assert [bool(entry.refused) for entry in names_apart(tmp_path / "x", entries)] == [False, True, False]
    assert names(folder) == {"a.png", "d.jpg", "one/b.png", "one/c.png"}


def test_a_run_of_foreign_classes_needs_trust(run: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "foreign")
    config = tmp_path / "foreign" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("autoencoders.models.DenoisingAutoencoder", "mine.Model"))
    said = line(f"run={tmp_path / 'foreign'}", f"images={folder}")
    assert "python -m autoencoders.apply run=" in said
    assert said.endswith("trust=true")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_pictures_of_strangers(run: Path, folder: Path, tmp_path: Path, capsys: Any) -> None:
    """Each that does not work is named in one line; the others do."""
    whole = (folder / "one" / "b.png").read_bytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0))
    bad = {
        "bomb.png": whole[:8] + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""),
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": (folder / "d.jpg").read_bytes()[:300],
        "empty.png": b"",
        "text.tif": b"no picture",
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "new\nline.png": whole,
        "\x1b[31mred.png": whole,
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(whole)
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    (folder / "lost.png").symlink_to(folder / "nothing.png")
    os.mkfifo(folder / "pipe.png")
    Image.new("F", (9, 9)).save(folder / "float.tif")
    Image.fromarray(noise(1, 20_000)).save(folder / "long.png")
    Image.new("L", (9, 9)).save(folder / "moving.gif")
    count = len(bad) + 6
    main([f"run={run}", f"images={folder}", f"out={tmp_path / 'out'}"])
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("left out: ")]
    assert len(lines) == count
    assert all(line.isprintable() for line in lines)
    for words in (
        "bomb.png is too large: it has more than 100,000,000 pixels",
        "cut.png is damaged",
        "text.tif is not a picture",
        "pipe.png is not a file",
        "link.png leads out of",
        "linked leads out of",
        "lost.png is a link to nothing",
        "float.tif has 32 bits",
        "moving.gif is of a kind that is not read; .png, ",
    ):
        assert any(words in line for line in lines), words
    assert f"{count} of {count + 5} pictures left out" in said.out
    good = {"a.png", "d.jpg", "one/b.png", "one/c.png", "long.png"}
    assert names(tmp_path / "out") == {"apply.json", *good}
    assert opened(tmp_path / "out" / "long.png").size == (20_000, 1)
    for out in (tmp_path / "made" / "for it", tmp_path / "there"):
        (tmp_path / "there").mkdir(exist_ok=True)
        said = line(f"run={run}", f"images={folder}/cut*", f"out={out}")
        assert "none of the pictures worked" in said
    assert not (tmp_path / "made").exists()
    assert names(tmp_path / "there") == set()


# ---- codes -------------------------------------------------------------------------------------------------


def test_codes_are_those_of_the_model(run: Path, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "codes.npz"
    words = [f"run={run}", f"images={folder}", f"codes={file}", f"similar={folder / 'a.png'}"]
    main([*words, f"out={tmp_path / 'out'}"])
    with np.load(file) as found:
        assert found["name"].tolist() == ["a.png", "d.jpg", "one/b.png", "one/c.png"]
        assert found["class"].tolist() == ["", "", "one", "one"]
        assert found["code"].shape == (4, 4)
        code = autoencoders.load(run).encode(opened(folder / "a.png"))
        np.testing.assert_allclose(found["code"][0], code, rtol=1e-4, atol=1e-5)
    assert names(tmp_path / "out") == {"similar.png"}


def test_the_nearest_come_first() -> None:
    points = np.array([[0, 0], [3, 4], [1, 0]], np.float32)
    assert codes.nearest(points[0], points, 2) == [(0, 0.0), (2, 1.0)]


def test_libraries_that_are_missing_are_named(run: Path, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        codes.check_format(Path("a.parquet"))
    with pytest.raises(UserError, match="pip install imageio-ffmpeg"):
        motion.check_format("mp4")


# ---- anomalies ---------------------------------------------------------------------------------------------


def test_a_threshold_keeps_its_rate_of_false_alarms() -> None:
    scores = np.arange(1, 100, dtype=np.float64)  # 99 of them: the next is the largest with 1 %
    assert anomalies.threshold(scores, 0.05) == 95
    assert anomalies.threshold(scores, 0.01) == 99
    rng = np.random.default_rng(0)
    alarms = [(rng.random(200) > anomalies.threshold(rng.random(99), 0.1)).mean() for _ in range(300)]
    assert np.mean(alarms) == pytest.approx(0.1, abs=0.01)


def test_anomalies_are_ranked(run: Path, tmp_path: Path, capsys: Any) -> None:
    for index, image in enumerate(tiny.blobs(12, 1, 28, seed=9)[:, 0]):
        for label, values in (("good", image), ("=bad", noise(40, 40))):
            (tmp_path / "in" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / "in" / label / f"{index}.png")
    words = [f"run={run}", f"images={tmp_path / 'in'}", f"anomalies={tmp_path / 'ranked.csv'}"]
    main([*words, "normal=good", "false_alarms=0.1"])
    said = capsys.readouterr().out
    assert f"at most 0.1 false alarms, by the {tiny.VALIDATION} validation images" in said
    assert "ROC-AUC 1.0000, PR-AUC 1.0000" in said
    with (tmp_path / "ranked.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row["class"] for row in rows[:12]} == {"./=bad"}  # which no spreadsheet computes
    assert {row["anomalous"] for row in rows[:12]} == {"true"}
    assert "needs 999 validation images" in line(*words, "false_alarms=0.001")
    assert "did you mean 'good'" in line(*words, "normal=god")


def test_few_validation_images_have_a_rate_of_their_own() -> None:
    assert anomalies.checked_rate(None, 1000) == 0.05
    assert anomalies.checked_rate(None, 4) == 0.2
    assert anomalies.threshold(np.arange(4.0), 0.2) == 3  # the largest of them
    assert anomalies.checked_rate(0.3, 4) == 0.3
    with pytest.raises(UserError, match=r"false_alarms=0.1 needs 9 validation images, and this run has 4"):
        anomalies.checked_rate(0.1, 4)


# ---- animations --------------------------------------------------------------------------------------------


def test_a_walk_and_traversals_move(run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    walk = ",".join(str(folder / name) for name in ("a.png", "one/b.png", "d.jpg"))
    main([f"run={run}", f"walk={walk}", f"out={out}", "steps=3"])
    with Image.open(out / "walk.gif") as walked:
        assert walked.size == (168, 168)
        assert 2 < walked.n_frames <= 12  # type: ignore[attr-defined]  # equal ones are one
    main([f"run={run}", "traverse=true", f"out={out}", "steps=3"])
    main([f"run={run}", "traverse=true", f"images={folder}", f"out={tmp_path / 'of pictures'}", "steps=3"])
    assert names(out) == {"walk.gif", *(f"traverse-{i}.gif" for i in range(1, 5))}
    assert "traverse-1.gif" in names(tmp_path / "of pictures")
    assert "nothing.png is not there" in line(f"run={run}", f"walk={folder / 'a.png'},nothing.png")


def test_a_walk_starts_and_ends_at_its_pictures() -> None:
    path = motion.walk([torch.zeros(2), torch.ones(2), torch.full((2,), 3.0)], 2)
    assert path[:, 0].tolist() == [0, 0.5, 1, 2, 3, 2, 1, 0.5]


# ---- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["image=x"], "no key image: did you mean 'images'?"),
        (["images"], "images is not key=value"),
        (["images=x"], "name one run folder: python -m autoencoders.apply run="),
        (["run=x", "images=x", "batch=0"], "batch=0 must be ≥ 1"),
        (["run=x", "images=x", "overlap=1"], "overlap=1.0 must be ≥ 0.25 and ≤ 0.9"),
        (["run=x", "images=x", "corrupt=maybe"], "corrupt=maybe must be true or false"),
        (["run=x", "images=x", "codes=c.txt"], "codes=c.txt must end in .npz or .parquet"),
        (["run=x", "images=x", "codes=none/c.npz"], "there is no folder none"),
        (["run=x", "images=x", "normal=a"], "normal= is for anomalies=, not for restored pictures"),
        (["run=x", "images=x", "codes=c.npz", "walk=a,b"], "one at a time"),
        (["run=x"], "name the pictures"),
        (["run=nowhere", "images=x"], "no run folder nowhere"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line(words: list[str], said: str) -> None:
    assert said in line(*words)


def test_mistakes_that_need_a_run(run: Path, colorizer: Path, folder: Path, tmp_path: Path) -> None:
    words = [f"run={run}", f"images={folder}", f"out={tmp_path / 'out'}"]
    assert "did you mean 'devices'" in line(*words, "trainer.devces=1")
    assert "there is no such picture" in line(f"run={run}", f"images={tmp_path / 'nothing'}")
    assert "there are no pictures" in line(f"run={run}", f"images={run}/*.json")
    assert "this run has no corruption" in line(f"run={colorizer}", *words[1:], "corrupt=true")
    assert not (tmp_path / "out").exists()


def test_help_names_every_key(capsys: Any) -> None:
    main(["--help"])
    assert capsys.readouterr().out == usage() + "\n"
    assert all(f"  {key}=" in usage() for key in KEYS)
    assert max(map(len, usage().splitlines())) < 110


def test_a_corruption_is_the_same_each_time(tmp_path: Path) -> None:
    picture: Callable[[], Picture] = lambda: Picture(np.full((20, 30, 1), 255, np.uint8))  # noqa: E731
    for out in ("a", "b"):
        task = Restore(tmp_path / out, 0.5, 256, Masking(), sheets=False)
        task(Same(), Entry(tmp_path / "x.png", "x.png"), picture())
    assert (tmp_path / "a" / "x.png").read_bytes() == (tmp_path / "b" / "x.png").read_bytes()
    assert 0.4 < np.asarray(opened(tmp_path / "a" / "x.png")).mean() / 255 < 0.6


@pytest.mark.slow
def test_two_processes_do_what_one_does(run: Path, folder: Path, data_root: Path, tmp_path: Path) -> None:
    for task in ([f"images={folder}", "out=OUT", "side_by_side=true"],
                 [f"images={folder}", "codes=OUT/codes.npz"],
                 [f"images={folder}", "anomalies=OUT/ranked.csv", "false_alarms=0.1"]):  # fmt: skip
        said, made = list[str](), list[dict[str, bytes]]()
        for devices in (1, 2):
            out = tmp_path / f"{task[1].partition('=')[0]}-{devices}"
            if not task[1].startswith("out"):
                out.mkdir()
            words = [word.replace("OUT", str(out)) for word in task]
            both = ["trainer.accelerator=cpu", f"trainer.devices={devices}"]
            said.append(
                command.run(SCRIPT, data_root, f"run={run}", *words, *both).stdout.replace(str(out), "")
            )
            made.append({name: (out / name).read_bytes() for name in names(out)})
        assert said[0] == said[1]
        assert set(made[0]) == set(made[1])
        for name in set(made[0]) - {"codes.npz", "ranked.csv"}:
            assert made[0][name] == made[1][name]


@pytest.mark.slow
def test_an_interrupted_command_goes_on(run: Path, data_root: Path, tmp_path: Path) -> None:
    """Also after kill -9."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index in range(12):
        Image.fromarray(noise(700, 700)).save(source / f"{index}.png")
    words = [f"run={run}", f"images={source}", f"out={out}", "trainer.accelerator=cpu"]
    for signal, code in ((15, 75), (9, -9)):
        before = len(names(out)) if out.exists() else 0
        process = command.start(SCRIPT, data_root, *words)
        while len(list(out.glob("*.png"))) <= before:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal)
        process.communicate(timeout=60)
        assert process.returncode == code
    assert 2 <= len(list(out.glob("*.png"))) < 12
    assert "were there already" in command.run(SCRIPT, data_root, *words).stdout
    assert names(out) == {"apply.json", *(f"{index}.png" for index in range(12))}
