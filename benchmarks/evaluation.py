"""A full evaluation with its report, against one epoch of the textbook pipeline."""

from collections.abc import Iterator

from benchmarks.measuring import Row, apart, in_turns, python, run_folder, train


def rows(quick: bool) -> Iterator[Row]:
    with run_folder() as folder:
        train(folder, "trainer.max_epochs=1")
        took = in_turns(
            1 if quick else 3,
            evaluation=lambda: python("evaluate.py", f"run={folder}").seconds,
            epoch=lambda: apart(f"textbook.epoch_seconds('autoencoder', {100 if quick else 300})"),
        )
    yield Row(
        "a full evaluation and its report, MNIST",
        f"{took['evaluation']:.0f} s",
        f"one epoch of the textbook pipeline: {took['epoch']:.1f} s",
        took["evaluation"] / took["epoch"],
        ("≤", 3.0),
    )
