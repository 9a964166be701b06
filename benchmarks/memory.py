"""The peak memory of training, against the imports and the data set as uint8."""

from collections.abc import Iterator

from benchmarks.measuring import Row, python, run_folder, train

HELD = """
import torch, lightning
from autoencoders import config
from autoencoders.data import sources
source = sources.{source}
splits = [sources.read(source, config.REPOSITORY / "data", train=train) for train in (True, False)]
"""


def rows(quick: bool) -> Iterator[Row]:
    few = ["trainer.max_epochs=1", *(["trainer.limit_train_batches=50"] if quick else [])]
    for source, overrides in (("MNIST", []), ("CIFAR10", ["experiment=colorization"])):
        held = python("-c", HELD.format(source=source)).peak
        with run_folder() as folder:
            peak = train(folder, *overrides, *few).peak
        yield Row(
            f"peak memory of training, {source} ({' '.join(overrides) or 'defaults'})",
            f"{peak:,.0f} MiB",
            f"imports and the data set as uint8: {held:,.0f} MiB",
            peak / held,
            ("≤", 1.5),
        )
