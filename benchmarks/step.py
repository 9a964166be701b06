"""A training step: Lightning's Trainer, our callbacks and our data against a bare PyTorch loop."""

import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.fabric.utilities import move_data_to_device
from omegaconf import DictConfig

from autoencoders import checkpoints, config, hardware, training
from autoencoders.data import Batch, ImageDataModule
from autoencoders.loggers import build_loggers
from autoencoders.models import BaseAutoencoder
from autoencoders.processes import Interruption
from benchmarks.measuring import Row, in_turns, steady

WARM = 20
DEFAULTS = {
    "MNIST, model=autoencoder": (["model=autoencoder"], ("≥", 0.95)),
    "CIFAR-10, model=colorization": (["experiment=colorization"], ("≥", 0.95)),
    "floor: an MLP of 32 units, batch 64": (
        ["network=mlp", "network.hidden=[32]", "data.batch_size=64"],
        None,
    ),
}


class Clock(Callback):
    """When each step ended."""

    def on_train_start(self, *_: Any) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()  # what is only queued is not done
        self.ends.append(time.perf_counter())


def training_data(cfg: DictConfig) -> ImageDataModule:
    """The data of a configuration, read."""
    data = training.build_data(cfg)
    data.prepare_data()
    data.setup("fit")
    return data


def by_trainer(cfg: DictConfig, data: ImageDataModule, steps: int) -> float:
    """Seconds a step as train.py trains, logging to metrics.csv included."""
    cfg.trainer.max_steps, cfg.trainer.limit_val_batches = WARM + steps, 0
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        keep = [
            checkpoints.FiniteCheck(),
            checkpoints.MetricsTable(),
            checkpoints.BestCheckpoint(where / "best.ckpt", cfg.objective),
            checkpoints.LastCheckpoint(where / "last.ckpt", cfg.checkpoint.every_n_minutes, Interruption()),
            checkpoints.ValidateAtEnd(),
        ]
        trainer = training.build_trainer(cfg, where, [clock, *keep])
        trainer.loggers = build_loggers(cfg.logger, where, {}, resume=False)
        trainer.fit(training.build_model(cfg, data), data)
    return steady(clock.ends, WARM)


def by_hand(cfg: DictConfig, data: ImageDataModule, steps: int, device: str = "cpu") -> float:
    """Seconds a step of a bare loop over pairs that are on the device already."""
    raws = islice(data.train_dataloader(), 50)
    pairs = [move_data_to_device(data.pair(raw, training=True), device) for raw in raws]
    return bare_loop(training.build_model(cfg, data), islice(cycle(pairs), WARM + steps), device)


def bare_loop(model: BaseAutoencoder, pairs: Iterable[Batch], device: str = "cpu") -> float:
    """Seconds a step of the loop that one would write without Lightning, the first `WARM` left out."""
    model.train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    mixed = hardware.fast_precision(device) == "bf16-mixed"
    ends = []
    for pair in pairs:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            loss = model.total({name: term.mean() for name, term in model.terms(pair).losses.items()})
        loss.backward()
        optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
    return steady(ends, WARM)


def rows(quick: bool) -> Iterator[Row]:
    for name, (overrides, goal) in DEFAULTS.items():
        cfg = config.compose_conf([*overrides, "logger=csv", "trainer.accelerator=cpu"])
        data = training_data(cfg)
        steps = 50 if quick else 200
        took = in_turns(
            3 if quick else 9,
            trainer=partial(by_trainer, cfg, data, steps),
            bare=partial(by_hand, cfg, data, steps),
        )
        yield Row(
            f"training step: {name}",
            f"{cfg.data.batch_size / took['trainer']:,.0f} images/s ({1e3 * took['trainer']:.2f} ms)",
            f"a bare PyTorch loop: {cfg.data.batch_size / took['bare']:,.0f}",
            took["bare"] / took["trainer"],
            goal,
            note="" if goal else "the rest is Lightning's loop: hooks and their bookkeeping",
        )
