"""On a GPU: a step against a bare loop and the textbook pipeline, time to an error, an evaluation."""

import json
from collections.abc import Iterator
from functools import partial

from autoencoders import config
from benchmarks.measuring import THREADS, Row, apart, in_turns, python, run_folder, train
from benchmarks.quality import TARGETS
from benchmarks.step import by_hand, by_trainer, training_data

CHOSEN = {"conv": "model=denoising", "mlp": "experiment=latent_space"}


def rows(quick: bool) -> Iterator[Row]:
    steps = 100 if quick else 300
    for network, chosen in CHOSEN.items():
        cfg = config.compose_conf([chosen, "logger=csv", "trainer.accelerator=gpu"])
        data, batch = training_data(cfg), cfg.data.batch_size
        took = in_turns(
            1 if quick else 3,
            trainer=partial(by_trainer, cfg, data, steps),
            bare=partial(by_hand, cfg, data, steps, "cuda"),
            textbook=partial(apart, f"textbook.same_network_seconds({chosen!r}, {steps}, {THREADS})"),
        )
        ours = f"{batch / took['trainer']:,.0f} images/s ({1e3 * took['trainer']:.2f} ms)"
        yield Row(
            f"GPU: training step, MNIST, {chosen} ({network})",
            ours,
            f"a bare PyTorch loop over pairs on the GPU: {batch / took['bare']:,.0f}",
            took["bare"] / took["trainer"],
            None,
        )
        yield Row(
            f"GPU: training, same network ({network}) and batch ({batch})",
            ours,
            f"the textbook pipeline with {THREADS} workers: {batch / took['textbook']:,.0f}",
            took["textbook"] / took["trainer"],
            None,
        )
    target, _, _, command = TARGETS["denoising MNIST, code of 16"]
    with run_folder() as folder:
        taken = train(folder, *command.split()).seconds
        error = json.loads((folder / "metrics.json").read_text())["test/mse"]
        evaluation = python("evaluate.py", f"run={folder}").seconds
    yield Row(
        f"GPU: time to a test error of {target}: denoising MNIST, code of 16",
        f"{taken:.1f} s, error {error:.4g} (`{command}`)",
        "",
        taken,
        None,
        note="the whole process: imports, training, validation, test, figures",
    )
    yield Row("GPU: a full evaluation and its report, MNIST", f"{evaluation:.0f} s", "", evaluation, None)
