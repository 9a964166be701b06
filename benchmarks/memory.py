"""The peak memory of training, against the imports and the data set as uint8."""

from collections.abc import Iterator

from benchmarks.measuring import Row, apart, python, run_folder, train

HELD = """
import torch, lightning
from autoencoders import config
from autoencoders.data import sources
source = sources.{source}
files = sources.fetch(source, config.REPOSITORY / "data")
splits = [sources.read(source, files, train=train) for train in (True, False)]
"""


def held_peak(source: str) -> float:
    """MiB of a process that imports and reads, and no more."""
    return python("-c", HELD.format(source=source)).peak


def training_peak(*overrides: str) -> float:
    """MiB of a whole `python train.py ...`."""
    with run_folder() as folder:
        return train(folder, *overrides).peak


def rows(quick: bool) -> Iterator[Row]:
    few = ["trainer.max_epochs=1", *(["trainer.limit_train_batches=50"] if quick else [])]
    for source, chosen in (("MNIST", []), ("CIFAR10", ["experiment=colorization"])):
        # Started by a small process: what a process's parent holds counts in its own peak.
        held = apart(f"memory.held_peak({source!r})")
        peak = apart(f"memory.training_peak(*{[*chosen, *few]!r})")
        yield Row(
            f"peak memory of training, {source} ({' '.join(chosen) or 'defaults'})",
            f"{peak:,.0f} MiB",
            f"imports and the data set as uint8: {held:,.0f} MiB",
            peak / held,
            ("≤", 1.5),
        )
