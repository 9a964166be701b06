"""Whether an exported folder gives what its run gives, on every test image, in processes that know no more
than the folder."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from autoencoders.errors import UserError
from autoencoders.export import fresh
from autoencoders.export.folder import WEIGHTS, of_the_extra
from autoencoders.metrics import squared_error
from autoencoders.trained import TrainedRun
from autoencoders.training import build_data

TOLERANCE = 1e-4  # of pixels, and of codes relative to the largest one if that is above 1
ERROR_TOLERANCE = 1e-3  # relative, of the test error of float32 and of an evaluation, which computes in it
# Relative, of the test error in the run's own metrics, which it may have computed in bfloat16.
TRAINING_TOLERANCE = 2e-2
KINDS = ("onnx", "package")


@dataclass(frozen=True)
class Checked:
    """What a check has found over the whole test split, corrupted as the run's."""

    images: int
    mse: float  # of the run's own model, in float32
    graphs: Mapping[str, fresh.Graph]  # by file
    code_shape: tuple[int, ...]  # of one image
    largest_code: float
    differences: dict[str, dict[str, float]]  # by kind and file
    mses: dict[str, float]  # by kind

    @property
    def tolerances(self) -> dict[str, float]:
        """The largest absolute difference that each file may have."""
        codes = TOLERANCE * max(1.0, self.largest_code)
        return {file: codes if file == "encoder.onnx" else TOLERANCE for file in self.graphs}

    def refuse_what_differs(self) -> None:
        """Raises UserError for a form that is not the run's model."""
        for kind, differences in self.differences.items():
            for file, difference in differences.items():
                if not difference <= self.tolerances[file]:  # also true of NaN
                    name = file if kind == "onnx" else f"{self.graphs[file].method} of {WEIGHTS}"
                    raise UserError(
                        f"{name} differs from the run by {difference:.2g}, more than "
                        f"{self.tolerances[file]:.2g}: nothing is exported"
                    )
            if not math.isclose(self.mses[kind], self.mse, rel_tol=ERROR_TOLERANCE):
                raise UserError(
                    f"the test mse is {self.mses[kind]:.6g} by {kind}, and {self.mse:.6g} by the run's "
                    "model: nothing is exported"
                )


def check(trained: TrainedRun, folder: Path) -> Checked:
    """Loads each form in `folder` in a fresh process and compares its outputs with those of `trained`.

    Raises:
        UserError: one can't be loaded or differs by more than the tolerance.
    """
    with of_the_extra():
        import onnxruntime  # noqa: F401
    squared, count, largest = 0.0, 0, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        readers = {kind: _Reader(kind, folder, trained.config.trust, Path(scratch)) for kind in KINDS}
        try:
            for batch, errors in _batches(trained):
                squared += errors
                count += len(batch.images) if batch.counted else 0
                largest = max(largest, float(abs(batch.codes).max(initial=0)))
                for reader in readers.values():
                    reader.send(batch)
            found = {kind: reader.answer() for kind, reader in readers.items()}
        finally:
            for reader in readers.values():
                reader.end()
    checked = Checked(
        images=count,
        mse=squared / count,
        graphs=fresh.graphs_in(folder),
        code_shape=batch.codes.shape[1:],
        largest_code=largest,
        differences={kind: of_kind["differences"] for kind, of_kind in found.items()},
        mses={kind: of_kind["mse"] for kind, of_kind in found.items()},
    )
    checked.refuse_what_differs()
    return checked


def _batches(trained: TrainedRun) -> Iterator[tuple[fresh.Batch, float]]:
    """Every test image as the run's model reads it, and what the run makes of it; with the sum of their
    squared errors. The first image comes alone first, and of another size where the model takes any, as a
    graph may have been made for one size only.

    Raises:
        UserError: the data has no such split.
    """
    model, data = trained.model, build_data(trained.config)
    data.prepare_data()
    data.setup("test")
    places = torch.arange(len(data.test))
    order = [places[:1], *places.split(data.eval_batch_size)]
    for step, some in enumerate(tqdm(order, desc="checking", leave=False, disable=None)):
        batch = data.pair(data.test.take(some, step), training=False)
        if step == 0 and model.any_size:
            height, width = batch.clean.shape[-2:]
            part = (..., slice(height // 3, None), slice(width // 4, None))
            yield _made(model, batch.corrupted[part], batch.clean[part], counted=False)
        yield _made(model, batch.corrupted, batch.clean, counted=step > 0)


def _made(model: Any, corrupted: Tensor, clean: Tensor, counted: bool) -> tuple[fresh.Batch, float]:
    """Images with what the run's model makes of them; their squared errors added up, if they are counted."""
    with torch.inference_mode():
        codes = model.encode(corrupted) if model.has_code else torch.empty(len(corrupted), 0)
        images = model(corrupted)
        decoded = model.decode(codes) if model.has_code else images
    errors = float(squared_error(images, clean).double().sum()) if counted else 0.0
    given, wanted, coded, alone, made = (
        part.float().numpy() for part in (corrupted, clean, codes, decoded, images)
    )
    return fresh.Batch(given, wanted, coded, alone, made, counted), errors


class _Reader:
    """A fresh process that reads batches and says how far off the folder's outputs are."""

    def __init__(self, kind: str, folder: Path, trust: bool, scratch: Path) -> None:
        words = [kind, str(folder), *(["trust=true"] if trust else [])]
        # Where this process finds modules, also the user's own; no more is inherited.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.kind, self.said = kind, (scratch / kind).open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "autoencoders.export.fresh", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env=environment,
        )

    def send(self, batch: fresh.Batch) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and says why
            fresh.write_batch(self.process.stdin, batch)

    def answer(self) -> dict[str, Any]:
        """What it found.

        Raises:
            UserError: it could not load the folder.
        """
        with suppress(BrokenPipeError):
            out, _ = self.process.communicate()
        try:
            found: dict[str, Any] = json.loads(out.splitlines()[-1])
        except (ValueError, IndexError):
            self.said.seek(0)
            last = (self.said.read().strip().splitlines() or [f"exit code {self.process.returncode}"])[-1]
            raise UserError(f"a fresh process can't load the export ({self.kind}): {last}") from None
        if "error" in found:
            raise UserError(found["error"])
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.said):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]
