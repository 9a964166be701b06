"""One run, exported: built beside its place, checked, and only then put there."""

import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from autoencoders import runs, trained
from autoencoders.data import ImageDataModule
from autoencoders.errors import UserError
from autoencoders.export import card, checking, folder, onnx_files, record
from autoencoders.models import BaseModel
from autoencoders.processes import Interruption
from autoencoders.training import build_data, quiet

PACKAGES = ("autoencoders", "torch", "lightning", "safetensors", "onnx", "onnxscript", "onnxruntime", "numpy")


def export(run: Path, out: Path, trust: bool = False, trusting: str = "", root: Path | None = None) -> None:
    """Exports a run's best model into the folder `out`.

    Args:
        trust: whether the run may use classes of the user's own.
        trusting: the command that would trust it, to be shown where that is needed.
        root: the folder of the data sets, if not the one that the run has.

    Raises:
        UserError: it can't be exported, or what was exported does not give what the run gives.
    """
    start = time.perf_counter()
    quiet()
    refuse_taken(out)
    out = out.resolve()
    if folder.is_exported(run):
        raise UserError(f"{run} is an exported folder already: name its run")
    best = trained.read(run, trust, trusting)
    if root is not None:
        best.config.data.root = str(root)
    data = build_data(best.config)
    if not isinstance(best.model, BaseModel):
        raise UserError(
            f"model._target_={best.config.model._target_} is not a BaseModel, which alone can be exported"
        )
    if not isinstance(data, ImageDataModule):
        raise UserError(
            f"data._target_={best.config.data._target_} is not an ImageDataModule, with a test split"
        )
    known = record.read(run, best.config)
    known.check_evaluation(run, known.test_mse, checking.TRAINING_TOLERANCE)  # before minutes are spent
    with folder.of_the_extra():
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        import safetensors  # noqa: F401
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    with Interruption(deferred=False).listening(), _put_in_place(out) as built:
        digest = folder.write(built, best.model, best.config, versions, data.classes)
        onnx_files.write(built, best.model)
        checked = checking.check(best, built)
        known.compare(run, checked)
        if known.figures:
            (built / "figures").mkdir()
        for name, png in known.figures.items():
            (built / "figures" / name).write_bytes(png)
        text = card.text(out.name, best, data, known, checked, digest, versions)
        (built / card.NAME).write_text(text, encoding="utf-8")
    _report(run, out, checked, known, time.perf_counter() - start)


def refuse_taken(out: Path) -> None:
    """Raises UserError for a place that holds something."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"out={out} is not a folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"out={out} is not empty: choose a new folder")


@contextmanager
def _put_in_place(out: Path) -> Iterator[Path]:
    """Gives a new folder beside `out`, which becomes `out` once all is written, and is removed otherwise."""
    made = runs.missing(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    built = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        built.mkdir()
        yield built
        built.replace(out)
    except BaseException:
        shutil.rmtree(built, ignore_errors=True)
        runs.remove([], *made)
        raise


def _report(run: Path, out: Path, checked: checking.Checked, known: record.Record, seconds: float) -> None:
    own = "" if known.test_mse is None else f"; its metrics.json says {known.test_mse:.6g}"
    print(f"\n  test mse  {checked.mses['onnx']:.6g} by ONNX, {checked.mse:.6g} by the run's model{own}")
    for file in checked.tolerances:
        print(f"  {file:16}  differs by at most {checked.differences['onnx'][file]:.2g}")
    largest = max(checked.differences["package"].values())
    print(f"  {folder.WEIGHTS}  differs by at most {largest:.2g}")
    print(f"\n  exported  {out}, checked on {checked.images:,} test images  ({seconds:.0f} s)")
    print(f"  card      {out / card.NAME}; a license is yours to choose and to add to it")
    if not known.scores:
        evaluate = runs.to_paste("python", "evaluate.py", f"run={run}")
        print(f"            without reference rows, such as PCA's: {evaluate}, then export it again")
