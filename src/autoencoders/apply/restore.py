"""Pictures denoised, colorized, filled in or reconstructed at their own size."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from autoencoders import runs, untrusted
from autoencoders.apply import pictures
from autoencoders.apply.pictures import Entry, Picture
from autoencoders.apply.predict import any_size, channels, in_channels, noise_of
from autoencoders.apply.tiles import blended
from autoencoders.corruption import Corruption
from autoencoders.data.pairs import corrupt
from autoencoders.errors import UserError
from autoencoders.files import atomic_write, write_json
from autoencoders.randomness import Randomness

RECORD = "apply.json"  # in `out`: what made it
GAP = 4  # white pixels between the parts of a sheet


class Restore:
    """Writes what a model makes of a picture, under the same name.

    Args:
        out: the folder.
        overlap: of the tiles.
        batch: tiles at a time.
        corruption: what is done to the pictures first, if anything.
        sheets: whether to write input | output as well.
    """

    def __init__(
        self, out: Path, overlap: float, batch: int, corruption: Corruption | None, sheets: bool
    ) -> None:
        self.out, self.overlap, self.batch = out, overlap, batch
        self.corruption, self.sheets = corruption, sheets

    def done(self, entry: Entry) -> bool:
        made = entry.path.stat().st_mtime_ns
        places = [
            pictures.candidates(self.out / entry.name),
            *([(self.sheet(entry),)] if self.sheets else []),
        ]
        return all(any(_newer(path, made) for path in some) for some in places)

    def sheet(self, entry: Entry) -> Path:
        return self.out / f"{entry.name}.sheet.png"

    def __call__(self, model: Any, entry: Entry, picture: Picture) -> None:
        path = self.out / entry.name
        if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(self.out)):
            raise UserError(f"would be written outside of {self.out}")
        pictures.clear_unfinished(path)
        read, made = restored(
            model, picture.pixels, self.overlap, self.batch, self.corruption, noise_of(entry)
        )
        if not made.isfinite().all():
            raise UserError("makes the model produce numbers that are not finite")
        result = picture.with_pixels(made)
        pictures.write(result, path)
        picture.notes[:] = result.notes
        if self.sheets:
            parts = [picture.pixels, *([read] if _differs(read, picture.pixels) else []), made]
            with atomic_write(self.sheet(entry)) as temporary:
                side_by_side(parts).save(temporary, format="PNG")


def restored(
    model: Any, pixels: Tensor, overlap: float, batch: int, corruption: Corruption | None, noise: Randomness
) -> tuple[Tensor, Tensor]:
    """What the model has read of a picture (C, H, W), and what it makes of it, of the same colour unless the
    model is a colorizer. A gray model reads the channels one by one, a colour model a gray picture as three
    equal channels."""
    reads, gives = channels(model)
    one_by_one = reads == gives == 1
    images = pixels[:, None] if one_by_one else in_channels(pixels[None], reads)
    if corruption is not None:
        images = corrupt(images, corruption, noise)
    images = images.to(model.device)
    with torch.inference_mode():
        if any_size(model):
            made = torch.cat([model(image[None]).float() for image in images])
        else:
            made = blended(model, images, tuple(model.input_shape[1:]), overlap, batch)
    if one_by_one:
        images, made = images.transpose(0, 1), made.transpose(0, 1)
    elif reads == gives and len(pixels) == 1:
        images, made = in_channels(images, 1), in_channels(made, 1)
    return images[0].cpu(), made[0].cpu()


def side_by_side(parts: Sequence[Tensor]) -> Image.Image:
    """Pictures (C, H, W) of one height as one, white between them."""
    shown = [(part.clamp(0, 1).expand(3, -1, -1) * 255).round().byte().permute(1, 2, 0) for part in parts]
    gap = np.full((shown[0].shape[0], GAP, 3), 255, np.uint8)
    row = [piece for part in shown for piece in (part.numpy(), gap)][:-1]
    return Image.fromarray(np.concatenate(row, axis=1))


def _newer(path: Path, than: int) -> bool:
    return path.is_file() and path.stat().st_mtime_ns >= than


def _differs(read: Tensor, pixels: Tensor) -> bool:
    return read.shape != pixels.shape or bool((read - pixels).abs().max() > 1e-3)


# ---- the folder --------------------------------------------------------------------------------------------


def check_apart(out: Path, base: Path | None) -> None:
    """Raises UserError where results would lie among the pictures, and be taken for them the next time."""
    if base is not None and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(base)):
        raise UserError(f"out={out} is in {base}, where the pictures are: choose another")


def names_apart(out: Path, entries: Sequence[Entry]) -> list[Entry]:
    """The pictures, those refused whose result would have the name of another's.

    Raises:
        UserError: one would overwrite a picture.
    """
    inputs = {os.path.realpath(entry.path) for entry in entries}
    claimed, kept = dict[str, str](), list[Entry]()
    for entry in entries:
        paths = [os.path.realpath(out / f"{entry.name}{ending}") for ending in ("", ".png", ".sheet.png")]
        if taken := inputs.intersection(paths):
            raise UserError(f"out={out} would overwrite {min(taken)}, one of the pictures: choose another")
        if not entry.refused:
            if other := next((claimed[path] for path in paths if path in claimed), None):
                entry = entry._replace(refused=f"would have a result of the same name as {other}")
            else:
                claimed |= dict.fromkeys(paths, entry.name)
        kept.append(entry)
    return kept


def claim_folder(out: Path, checkpoint: Path, settings: dict[str, Any]) -> None:
    """Writes down what makes the results in `out`, so that those of another model are not taken for them.

    Raises:
        UserError: there are others, or files of the user's.
    """
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    record = json.loads(json.dumps({"checkpoint": digest, **settings}))
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is not a folder")
    if (out / RECORD).is_file():
        before = untrusted.read_json(out / RECORD)
        if changed := [key for key in record.keys() | before.keys() if record.get(key) != before.get(key)]:
            raise UserError(
                f"out={out} has results of another {' and '.join(sorted(changed))}: choose another"
            )
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"out={out} is not empty and no folder of results: choose another")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RECORD, record)


def release_folder(out: Path, made: Sequence[Path]) -> None:
    """Leaves no folder behind into which nothing was written.

    Args:
        made: the folders that were made for it, as `runs.missing` gives them.
    """
    if [path.name for path in out.iterdir()] == [RECORD]:
        (out / RECORD).unlink()
        runs.remove(made)
