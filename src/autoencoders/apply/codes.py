"""The codes of pictures, in a file, and which are near to each other in it."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from autoencoders import figures
from autoencoders.apply import pictures
from autoencoders.apply.pictures import Entry, Picture
from autoencoders.apply.predict import Outcome, as_input, channels, noise_of, validation_images
from autoencoders.corruption import Corruption
from autoencoders.data.pairs import Images, corrupt
from autoencoders.errors import UserError, one_line
from autoencoders.files import atomic_write

COLUMNS = 6  # of the sheet of neighbours
MOST = 5000  # validation images
Codes = NDArray[np.float32]  # (N, D)


class Encode:
    """The code (D,) of a picture, at the size and in the channels that the model reads."""

    def __init__(self, corruption: Corruption | None = None) -> None:
        self.corruption = corruption

    def done(self, entry: Entry) -> bool:
        return False

    def __call__(self, model: Any, entry: Entry, picture: Picture) -> Codes:
        return encoded(model, read_image(model, entry, picture, self.corruption)[None])[0]


def encoded(model: Any, images: Tensor) -> Codes:
    """The codes (B, D) of what a model reads (B, C, H, W)."""
    with torch.inference_mode():
        found = model.encode(images.to(model.device))
    if not isinstance(found, Tensor) or found.ndim < 2:
        raise UserError("this model has no code, or one of varying size")
    return found.float().flatten(1).cpu().numpy()


def read_image(model: Any, entry: Entry, picture: Picture, corruption: Corruption | None) -> Tensor:
    """What the model reads of a picture, (C, H, W)."""
    image = as_input(picture.pixels, tuple(model.input_shape[1:]), channels(model)[0])
    return image if corruption is None else corrupt(image[None], corruption, noise_of(entry))[0]


def codes_of(outcomes: Sequence[Outcome]) -> tuple[list[int], Codes]:
    """The places of those pictures that worked, and their codes."""
    worked = [outcome for outcome in outcomes if not outcome.wrong]
    return [outcome.place for outcome in worked], np.stack([outcome.result for outcome in worked])


def of_validation(model: Any, data: Any) -> Codes:
    """Those of the run's validation images, uncorrupted, of which the first few thousand suffice."""
    found = validation_images(data, "traverse=true without images=")
    images = Images(found.images[:MOST], found.labels[:MOST])
    parts = (images.take(rows) for rows in torch.arange(len(images)).split(data.eval_batch_size))
    return np.concatenate([encoded(model, data.pair(part, training=False).corrupted) for part in parts])


# ---- files -------------------------------------------------------------------------------------------------


def check_format(path: Path) -> None:
    """Raises UserError where the library for a file is missing."""
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(
            f"{path} needs pyarrow: pip install pyarrow, or write codes={path.with_suffix('.npz')}"
        )


def save(path: Path, entries: Sequence[Entry], codes: Codes) -> None:
    """`name`, `class` (the subfolder) and `code` of each picture: arrays of an .npz, or columns of a Parquet
    file."""
    columns = {"name": [entry.name for entry in entries], "class": [entry.label for entry in entries]}
    with atomic_write(path) as temporary:
        if path.suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            table = pyarrow.table({**columns, "code": [*codes]})
            pyarrow.parquet.write_table(table, temporary)
        else:
            with temporary.open("wb") as file:  # given a name, NumPy would add .npz to it
                arrays = {key: np.array(texts, dtype=str) for key, texts in columns.items()}
                np.savez(file, code=codes, **arrays)  # type: ignore[arg-type]


# ---- neighbours --------------------------------------------------------------------------------------------


def nearest(code: Codes, codes: Codes, count: int) -> list[tuple[int, float]]:
    """The places of the codes (N, D) nearest to one (D,), with their Euclidean distances."""
    distances = np.linalg.norm(codes.astype(np.float64) - code, axis=1)
    return [(int(place), float(distances[place])) for place in distances.argsort(kind="stable")[:count]]


def show_similar(
    model: Any, query: Path, entries: Sequence[Entry], codes: Codes, count: int, task: Encode, path: Path
) -> None:
    """Writes a sheet of what is nearest to a picture, which itself is left out, and says their names."""
    entry = Entry(query, query.name)
    code = task(model, entry, read_named(query))
    others = [i for i, other in enumerate(entries) if not _same(other.path, query)]
    if not others:
        raise UserError(f"there is nothing to compare {query} to")
    found = [(others[i], distance) for i, distance in nearest(code, codes[others], count)]
    shown = [("picture", entry), *((f"{distance:.3g}", entries[i]) for i, distance in found)]
    images = [(title, read_image(model, one, pictures.read(one.path), None)) for title, one in shown]
    figures.save(_sheet(images), path)
    for i, distance in found:
        print(f"  {distance:<10.4g} {one_line(entries[i].name)}")


def read_named(path: Path) -> Picture:
    """A picture that the command line names.

    Raises:
        UserError: it isn't one; the line says which.
    """
    try:
        if not path.is_file():
            raise UserError("is not there")
        return pictures.read(path)
    except UserError as error:
        raise UserError(f"{path} {error}") from None


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _sheet(images: Sequence[tuple[str, Tensor]]) -> Figure:
    lines = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(1.4 * COLUMNS, 1.6 * lines), layout="constrained")
    axes = figure.subplots(lines, COLUMNS, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, (title, image) in zip(axes, images, strict=False):
        axis.imshow(figures.to_array(image[None], 1, padding=0), interpolation="nearest")
        axis.set_title(title, fontsize=9)
    return figure
