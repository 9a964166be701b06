"""metrics.csv, which every run has."""

import csv
import errno
import math
import os
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from autoencoders.files import atomic_write


class MetricsCSV(Logger):
    """One row per logged step, one column per metric, in `metrics.csv`; a resumed run continues its file.

    (Lightning's own CSVLogger deletes the file of the run that is resumed.) The file is written anew each
    time, so it is always whole: with every checkpoint, at the end, and in between at most once a second and
    for a hundredth of the time.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.written_at, self.took = -math.inf, 0.0
        if resume and self.path.exists():
            with self.path.open(newline="") as file:
                rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
            self.rows = [row | {"step": int(row["step"])} for row in rows]

    # Lightning puts profilers' reports into save_dir, and a ModelCheckpoint's files into its checkpoints/.
    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run folder has its config already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is None:
            step = self.rows[-1]["step"] if self.rows else 0
        values = {name: v.item() if isinstance(v, Tensor) else v for name, v in metrics.items()}
        index = len(self.rows)  # of the row: the metrics of an epoch come after those of later steps
        while index and self.rows[index - 1]["step"] > step:
            index -= 1
        if index and self.rows[index - 1]["step"] == step:
            self.rows[index - 1].update(values)
        else:
            self.rows.insert(index, {"step": step, **values})

    @rank_zero_only
    def save(self) -> None:
        if time.monotonic() - self.written_at > max(1, 100 * self.took):
            self.write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.write()

    @rank_zero_only
    def drop_after(self, step: int) -> None:
        """Forgets what a run did after the checkpoint of `step` that it is resumed from."""
        self.rows = [row for row in self.rows if row["step"] < step]

    @rank_zero_only
    def write(self) -> None:
        start = time.monotonic()
        if not self.path.parent.is_dir():  # it is not made anew when it was deleted
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        columns = dict.fromkeys(["step", "epoch", *(key for row in self.rows for key in row)])
        with atomic_write(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(self.rows)
        self.written_at = time.monotonic()
        self.took = self.written_at - start
