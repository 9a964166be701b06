"""TensorBoard."""

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from autoencoders.loggers.protocol import flatten, redact, require

COMPARED = ("val/mse", "test/mse")  # curves that are columns of the HPARAMS table


class TensorBoard(TensorBoardLogger):
    """Writes event files to `tensorboard/` in the run folder; a resumed run hides what it does again.

    Args:
        save_dir: the run folder.
        writer: arguments of torch's SummaryWriter, such as flush_secs.

    Raises:
        UserError: the package tensorboard is missing.
    """

    leaves: ClassVar[str] = "tensorboard"

    def __init__(self, save_dir: str | Path, **writer: Any) -> None:
        require(["tensorboard"], "TensorBoard", extra="tensorboard")
        self.folder = Path(save_dir).absolute() / self.leaves
        self.resumed = any(self.folder.glob("events.*"))
        self.params, self.logged = dict[str, Any](), dict[str, Any]()
        super().__init__(save_dir, name=self.leaves, version="", **writer)

    @property
    def log_dir(self) -> str:
        """The path as it is: Lightning's would expand a `$` and a `~` in it."""
        return str(self.folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """For the HPARAMS table, whose other columns are the curves' last val/mse and test/mse."""
        from torch.utils.tensorboard.summary import hparams

        self.params |= redact(vars(params) if isinstance(params, Namespace) else params)
        self.hparams = self.params  # which Lightning writes to hparams.yaml
        flat = self._sanitize_params(flatten(self.params))
        if flat != self.logged:  # Lightning gives a model's own before each of fit, validate and test
            for summary in hparams(flat, dict.fromkeys(COMPARED, 0.0)):
                self.experiment._get_file_writer().add_summary(summary)
            self.logged = flat

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.resumed and step is not None:
            self._hide_from(step)
        super().log_metrics(metrics, step)

    def _hide_from(self, step: int) -> None:
        """Readers forget what earlier parts of the run have logged at and after the step."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        start = Event(step=step, session_log=SessionLog(status=SessionLog.START))
        writer = self.experiment._get_file_writer()
        writer.add_event(Event(step=step, file_version="brain.Event:2"))
        writer.add_event(start)
        self.resumed = False

    def log_images(self, images: Mapping[str, Path], step: int | None) -> None:
        for name, path in images.items():
            self._log_image(name, np.asarray(Image.open(path).convert("RGB")), step)

    def log_table(
        self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], *, step: int | None
    ) -> None:
        """A column of images becomes one picture, its rows side by side; the others a table of Markdown."""
        texts = []
        for index, column in enumerate(columns):
            cells = [row[index] for row in data]
            if shown := [cell for cell in cells if isinstance(cell, np.ndarray)]:
                self._log_image(f"{key}/{column}", np.concatenate(shown, axis=1), step)
            else:
                texts.append([column, "---", *("" if cell is None else f"{cell}" for cell in cells)])
        if len(texts) == len(columns) or len(texts) > 1:  # the first column only names the rows
            lines = (f"| {' | '.join(line)} |" for line in zip(*texts, strict=True))
            self.experiment.add_text(key, "\n".join(lines), step or 0)

    def _log_image(self, name: str, image: Any, step: int | None) -> None:
        self.experiment.add_image(name, image, step or 0, dataformats="HWC")

    def log_document(self, name: str, text: str) -> None:
        self.experiment.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()), 0)  # as code

    def log_summary(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.experiment.add_scalar(name, value, 0)

    def finish(self, failed: bool) -> None:
        self.finalize("failed" if failed else "success")

    def where(self) -> str:
        every = "--samples_per_plugin images=100"  # of its own accord it shows ten of a slider's steps
        return f"TensorBoard  tensorboard --logdir {shlex.quote(str(self.folder))} {every}"
