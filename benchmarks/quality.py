"""Time to a published error, as whole processes, against the textbook pipeline with the lecture's recipe."""

import json
from collections.abc import Iterator

from benchmarks.measuring import Row, apart, run_folder, train
from benchmarks.textbook import EPOCHS


def steps(count: int) -> str:
    """The options for so many steps where that is no whole number of epochs."""
    across_epochs = f"trainer.check_val_every_n_epoch=null trainer.val_check_interval={count}"
    return f"trainer.max_steps={count} {across_epochs}"


# The published test error, the goal, and a command of ours that reaches it in few steps, with several seeds.
TARGETS = {
    "MNIST, code of 2": (0.0392, 45, "autoencoder", f"experiment=latent_space {steps(560)}"),
    "MNIST, code of 16": (0.00744, 35, "autoencoder", f"model=autoencoder optimizer=muon {steps(530)}"),
    "denoising MNIST, code of 16": (
        0.0161,
        35,
        "denoising",
        f"model=denoising optimizer=muon optimizer.min_side=32 {steps(590)}",
    ),
    "colorization": (0.00777, 35, "colorization", f"experiment=colorization_fast {steps(1700)}"),
}


def rows(quick: bool) -> Iterator[Row]:
    measured, cut = (20, steps(20)) if quick else (200, "")
    for name, (target, goal, task, command) in TARGETS.items():
        epoch = f"textbook.epoch_seconds({task!r}, {measured})"
        before = apart(epoch)  # and after, so that neither has the better hour
        with run_folder() as folder:
            taken = train(folder, *command.split(), *cut.split()).seconds
            error = json.loads((folder / "metrics.json").read_text())["test/mse"]
        textbook = EPOCHS * (before + apart(epoch)) / 2
        yield Row(
            f"time to a test error of {target}: {name}",
            f"{taken:.1f} s, error {error:.4g} (`{command}`)",
            f"{EPOCHS} epochs of the textbook pipeline: {textbook:,.0f} s",
            textbook / taken if error <= target else 0.0,
            ("≥", goal),
            note=f"{EPOCHS} epochs of {textbook / EPOCHS:.1f} s, extrapolated from {2 * measured} steps",
        )
