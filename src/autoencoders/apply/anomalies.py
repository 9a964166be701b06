"""Pictures ranked by how badly a model reconstructs them, with a threshold."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from tqdm import tqdm

from autoencoders.apply.codes import read_image
from autoencoders.apply.pictures import Entry, Picture
from autoencoders.apply.predict import as_input, channels, counted
from autoencoders.corruption import Corruption
from autoencoders.data import ImageDataModule
from autoencoders.data.pairs import Images
from autoencoders.errors import UserError, suggest
from autoencoders.files import atomic_write
from autoencoders.metrics import squared_error

RATE = 0.05  # of false alarms
FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet would take a cell for


class Score:
    """The mean squared error of what a model makes of a picture, at the size that it reads."""

    def __init__(self, corruption: Corruption | None) -> None:
        self.corruption = corruption

    def done(self, entry: Entry) -> bool:
        return False

    def __call__(self, model: Any, entry: Entry, picture: Picture) -> float:
        read = read_image(model, entry, picture, self.corruption)[None].to(model.device)
        clean = as_input(picture.pixels, tuple(model.input_shape[1:]), channels(model)[1])[None]
        with torch.inference_mode():
            score = float(squared_error(model(read).float(), clean.to(model.device)))
        if not math.isfinite(score):
            raise UserError("has an error that is not finite")
        return score


def checked_rate(rate: float | None, count: int) -> float:
    """The rate of false alarms that a threshold calibrated by `count` images is for; None: 0.05, or the least
    that they allow.

    Raises:
        UserError: they are too few for it.
    """
    if rate is None:
        return max(RATE, 1 / (count + 1))
    if count < (needed := math.ceil(1 / rate - 1e-9) - 1):
        raise UserError(f"false_alarms={rate:g} needs {needed} validation images, and this run has {count}")
    return rate


def scores(model: Any, data: ImageDataModule, images: Images, corrupted: bool) -> NDArray[np.float64]:
    """Those of images of the run's own data (N,), corrupted or not, as `Score` gives them."""
    if not corrupted:
        images = Images(images.images, images.labels)
    parts = torch.arange(len(images)).split(data.eval_batch_size)
    found = []
    with torch.inference_mode():
        for part in tqdm(parts, desc="calibrating", leave=False, disable=None):
            batch = data.pair(images.take(part).to(model.device), training=False)
            found.append(squared_error(model(batch.corrupted).float(), batch.clean).double().cpu())
    return torch.cat(found).numpy()


def threshold(normal: NDArray[np.float64], rate: float) -> float:
    """What a new score of the same kind exceeds with a probability of at most `rate`: the k-th smallest of n
    scores, k = ⌈(n + 1)(1 − rate)⌉ (Vovk et al. 2005, conformal prediction)."""
    place = math.ceil((len(normal) + 1) * (1 - rate) - 1e-9)
    return float(np.sort(normal)[place - 1])


class Ranked(NamedTuple):
    entry: Entry
    score: float


def save(path: Path, ranked: Sequence[Ranked], limit: float) -> None:
    """A table, the largest score first."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", "class", "score", "anomalous"])
        for (path_, name, _), score in ranked:
            label = Entry(path_, name).label
            table.writerow([*map(_text, (name, label)), f"{score:.9g}", str(score > limit).lower()])


def _text(text: str) -> str:
    """As the same path, where a spreadsheet would take it for a formula."""
    return f"./{text}" if text.startswith(FORMULA) else text


def check_normal(entries: Sequence[Entry], normal: str) -> None:
    """Raises UserError where there is no such class, or no other."""
    labels = {entry.label for entry in entries}
    if normal not in labels:
        there = suggest(normal, labels - {""}) if labels - {""} else "there is none"
        raise UserError(f"normal={normal} is not a subfolder with pictures: {there}")
    if len(labels) == 1:
        raise UserError(f"normal={normal}: there are no other pictures")


def summary(ranked: Sequence[Ranked], limit: float, normal: str) -> list[str]:
    """What is said of the ranking."""
    flagged = np.array([score > limit for _, score in ranked])
    lines = [f"{flagged.sum()} of {counted(len(ranked))} above it"]
    labels = sorted({entry.label for entry, _ in ranked})
    if normal:
        other = np.array([entry.label != normal for entry, _ in ranked])
        if other.all() or not other.any():
            return [*lines, "no ROC-AUC: the pictures that worked are of one kind"]
        values = [score for _, score in ranked]
        lines.append(
            f"ROC-AUC {roc_auc_score(other, values):.4f}, PR-AUC {average_precision_score(other, values):.4f}"
        )
        lines.append(
            f"above it: {flagged[~other].mean():.1%} of the {(~other).sum()} normal ones, "
            f"{flagged[other].mean():.1%} of the {other.sum()} others"
        )
    elif len(labels) > 1:
        lines.append(
            f"normal=<{' or '.join(label or '(none)' for label in labels[:10])}> adds ROC-AUC and PR-AUC"
        )
    return lines
