"""Time to a published error, as whole processes, against the textbook pipeline with the lecture's recipe."""

import json
from collections.abc import Iterator

from benchmarks.measuring import Row, apart, run_folder, train
from benchmarks.textbook import EPOCHS

# The published test error, the goal, and the fewest epochs of our defaults that reach it.
TARGETS = {
    "MNIST, code of 2": (0.0392, 45, "autoencoder", "experiment=latent_space trainer.max_epochs=3"),
    "MNIST, code of 16": (0.00744, 15, "autoencoder", "model=autoencoder trainer.max_epochs=2"),
    "denoising MNIST, code of 16": (0.0161, 20, "denoising", "model=denoising trainer.max_epochs=3"),
    "colorization": (0.00777, 35, "colorization", "experiment=colorization trainer.max_epochs=4"),
}


def rows(quick: bool) -> Iterator[Row]:
    steps, cut = (20, ["trainer.limit_train_batches=20"]) if quick else (200, [])
    for name, (target, goal, task, command) in TARGETS.items():
        epoch = f"textbook.epoch_seconds({task!r}, {steps})"
        before = apart(epoch)  # and after, so that neither has the better hour
        with run_folder() as folder:
            taken = train(folder, *command.split(), *cut).seconds
            error = json.loads((folder / "metrics.json").read_text())["test/mse"]
        textbook = EPOCHS * (before + apart(epoch)) / 2
        yield Row(
            f"time to a test error of {target}: {name}",
            f"{taken:.1f} s, error {error:.4g} (`{command}`)",
            f"{EPOCHS} epochs of the textbook pipeline: {textbook:,.0f} s",
            textbook / taken if error <= target else 0.0,
            ("≥", goal),
            note=f"{EPOCHS} x {textbook / EPOCHS:.1f} s, extrapolated from {2 * steps} steps",
        )
