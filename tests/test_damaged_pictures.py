"""300 damaged, odd or hostile files beside 40 good pictures: a run names them, and trains on the rest."""

import io
import json
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import NO_WANDB, run, small, train
from PIL import Image, PngImagePlugin

SIDE = 16
FORMATS = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP"}
Maker = Callable[[Path, np.random.Generator], bool | None]  # whether it can be read; None: as chance wants


def picture(rng: np.random.Generator, mode: str = "RGB") -> Image.Image:
    values = rng.integers(0, 256, (24, 30, 3), np.uint8, endpoint=False)
    return Image.fromarray(values).convert(mode)


def encoded(image: Image.Image, suffix: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, FORMATS[suffix], **options)
    return file.getvalue()


def some(path: Path, rng: np.random.Generator) -> tuple[Path, bytes]:
    """A whole picture in one of the formats, and its name."""
    suffix = str(rng.choice(list(FORMATS)))
    return path.with_suffix(f".{suffix}"), encoded(picture(rng), suffix)


def truncated(path: Path, rng: np.random.Generator) -> bool | None:
    path, content = some(path, rng)
    path.write_bytes(content[: int(rng.integers(1, len(content) - 40))])
    return None if path.suffix == ".tif" else False  # a TIFF's directory may stand first


def flipped(path: Path, rng: np.random.Generator) -> None:
    path, content = some(path, rng)
    flips = bytearray(content)
    for place in rng.integers(0, len(flips), 1 + int(rng.integers(20))):
        flips[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(flips)


def of_another_format(path: Path, rng: np.random.Generator) -> bool:
    """Its content says what it is; what none of the five formats is, is not read."""
    _, content = some(path, rng)
    foreign = io.BytesIO()
    picture(rng).save(foreign, str(rng.choice(["GIF", "PPM", "TGA", "PCX", "ICNS", "PDF", "EPS"])))
    known = bool(rng.integers(2))
    path.with_suffix(str(rng.choice([".png", ".jpeg", ".tiff"]))).write_bytes(
        content if known else foreign.getvalue()
    )
    return known


def nothing(path: Path, rng: np.random.Generator) -> bool:
    path.with_suffix(".png").write_bytes(bytes(int(rng.choice([0, 1, 5000]))))
    return False


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(path: Path, rng: np.random.Generator) -> bool:
    side = int(rng.choice([10_001, 14_000, 60_000, 2**31 - 1]))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    return False


def narrow(path: Path, rng: np.random.Generator) -> bool:
    size = (100_000, 1) if rng.integers(2) else (1, 100_000)
    Image.new("L", size).save(path.with_suffix(".png"))
    return False


def odd_mode(path: Path, rng: np.random.Generator) -> bool:
    """Floats, or whole numbers of 32 bits that are too large for 16."""
    kind = str(rng.choice(["float32", "int32"]))
    Image.fromarray(np.full((20, 20), 70_000).astype(kind)).save(path.with_suffix(".tif"))
    return False


def deep(path: Path, rng: np.random.Generator) -> bool:
    values = rng.integers(0, 2**16, (20, 25), np.uint16, endpoint=False)
    Image.fromarray(values).save(path.with_suffix(str(rng.choice([".png", ".tif"]))))
    return True


def cmyk(path: Path, rng: np.random.Generator) -> bool:
    picture(rng, "CMYK").save(path.with_suffix(str(rng.choice([".jpg", ".tif"]))))
    return True


def palette(path: Path, rng: np.random.Generator) -> bool:
    """With a transparent colour, or alpha for each."""
    alpha = 0 if rng.integers(2) else bytes(rng.integers(0, 256, 256, np.uint8).tolist())
    picture(rng, "P").save(path.with_suffix(".png"), transparency=alpha)
    return True


def metadata(path: Path, rng: np.random.Generator) -> bool | None:
    """Huge EXIF data, damaged ones, or a text that unpacks to more than it should."""
    kind = int(rng.integers(3))
    if kind == 2:
        info = PngImagePlugin.PngInfo()
        info.add_text("comment", "x" * 70_000_000, zip=True)
        picture(rng).save(path.with_suffix(".png"), pnginfo=info)
        return False
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "x" * 60_000, int(rng.integers(1, 9))
    content = exif.tobytes()
    if kind == 1:
        content = content[:6] + bytes(rng.integers(0, 256, 500, np.uint8).tolist())
    path.with_suffix(".jpg").write_bytes(encoded(picture(rng), "jpg", exif=content))
    return True


def odd_name(path: Path, rng: np.random.Generator) -> bool:
    added = str(rng.choice(["\n", "\x1b[31m", "\x07", "\u202e", "\t", " ", "'", "\udcff"]))
    (path.parent / f"{path.name}{added}.png").write_bytes(encoded(picture(rng), "png"))
    return True


def link(path: Path, rng: np.random.Generator) -> bool:
    targets = [path.parents[1] / "outside.png", Path("nothing.png"), Path("/etc/hostname"), path.parents[1]]
    path.with_suffix(".png").symlink_to(targets[int(rng.integers(len(targets)))])
    return False


def no_file(path: Path, rng: np.random.Generator) -> bool | None:
    """A pipe, which nobody writes to, or a folder with the name of a picture, which has none."""
    if rng.integers(2):
        os.mkfifo(path.with_suffix(".png"))
        return False
    path.with_suffix(".png").mkdir()
    return None


MAKERS: tuple[Maker, ...] = (
    truncated, flipped, of_another_format, nothing, bomb, narrow, odd_mode, deep, cmyk, palette, metadata,
    odd_name, link, no_file,
)  # fmt: skip


@pytest.mark.slow
def test_300_damaged_pictures_beside_40_good_ones(tmp_path: Path) -> None:
    rng, root = np.random.default_rng(20), tmp_path / "my pictures"
    root.mkdir()
    picture(rng).save(tmp_path / "outside.png")
    for number in range(40):
        picture(rng).save(root / f"good-{number}.png")
    said = dict[str, bool | None]()
    for number in range(300):
        maker = MAKERS[number % len(MAKERS)]
        name = f"{maker.__name__}-{number}"
        said[name] = maker(root / name, rng)

    options = [
        "data=images", f"data.cache={tmp_path / 'cache'}", f"data.size={SIDE}", "network=mlp",
        "model.code_dim=4", "data.validation_size=null", *NO_WANDB,
    ]  # fmt: skip
    done = train(root, tmp_path / "run", *options)
    assert "Traceback" not in done.stdout + done.stderr
    (index,) = (tmp_path / "cache").glob("*/index.json")
    content = json.loads(index.read_text())
    read = {name for split in content["splits"].values() for name in split["names"]}
    left_out = {name for name, _ in content["unreadable"]}
    assert {f"good-{number}.png" for number in range(40)} <= read
    assert not read & left_out

    for known, readable in said.items():
        if readable is not None:
            assert any(re.match(rf"{known}\D", name) for name in (read if readable else left_out)), known
    folders = sum(path.is_dir() and not path.is_symlink() for path in root.glob("no_file*"))
    assert len(read) + len(left_out) + folders == 340
    print(f"{len(read)} read, {len(left_out)} left out, {folders} folders")
    assert f"left out, as unreadable: {len(left_out)} (all in {index})\n  " in done.stdout
    assert all(line.isprintable() for line in done.stdout.splitlines())

    refused = run("train.py", root, *small(root, tmp_path / "strict", *options, "data.strict=true"), ok=False)
    assert "(data.strict=false leaves it out)" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "strict").exists()
