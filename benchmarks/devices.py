"""Two processes on two cores, against one process with two threads."""

import re
from collections.abc import Iterator

from benchmarks.measuring import THREADS, Row, in_turns, run_folder, train


def epoch_seconds(devices: int, images: int) -> float:
    """The second of two epochs, as train.py prints it."""
    with run_folder() as folder:
        output = train(
            folder, f"trainer.devices={devices}", "trainer.accelerator=cpu", "trainer.max_epochs=2",
            f"data.train_size={images}", threads=max(1, THREADS // devices),
        ).output  # fmt: skip
    (taken,) = re.findall(r"^epoch 2/2 .* ([\d.]+) s$", output, re.MULTILINE)
    return float(taken)


def rows(quick: bool) -> Iterator[Row]:
    images = 10_000 if quick else 40_000
    took = in_turns(
        1 if quick else 3, one=lambda: epoch_seconds(1, images), two=lambda: epoch_seconds(2, images)
    )
    yield Row(
        "training in two processes, MNIST",
        f"{images / took['two']:,.0f} images/s",
        f"one process with {THREADS} threads: {images / took['one']:,.0f}",
        took["one"] / took["two"],
        ("≥", 0.9),
    )
