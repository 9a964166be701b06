"""What users of Lightning, of Hydra and of the templates around them type, on the tiny data: each does what
it does there, or says in one line what does it here.
"""

import csv
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from command import column, line_of, run, small, weights
from lightning import Callback, LightningModule, Trainer, seed_everything
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

import autoencoders
from autoencoders import config, errors, runs, training
from autoencoders.callbacks import Pictures
from autoencoders.data import MNIST
from autoencoders.models import Autoencoder

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in (
        "SWA is currently only supported every epoch",
        "AMP with fp16 is not supported on CPU",
        "is supported for historical reasons",
        "PyTorch Profiler default schedule",
        "Profiler clears events",
        "Checkpoint directory",
        "was called without a model",
        "lr_scheduler.step",
        "LeafSpec",
    )
]
MLP = ["network=mlp", "network.hidden=[8]"]
SMALL = [*MLP, "figures.images=2", "logger=csv"]


# ---- what users bring --------------------------------------------------------------------------------------


class Mine(Callback):
    def __init__(self, number: int = 0) -> None:
        self.number = number

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        print(f"mine: {self.number}")


class Encoder(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], code_dim: int, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(input_shape), width), nn.ReLU(), nn.Linear(width, code_dim)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Decoder(nn.Module):
    def __init__(self, code_dim: int, target_shape: tuple[int, ...]) -> None:
        super().__init__()
        size = math.prod(target_shape)
        self.layers = nn.Sequential(nn.Linear(code_dim, size), nn.Unflatten(1, tuple(target_shape)))

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes)


class Squares(MNIST):
    """A data set with a key of its own."""

    def __init__(self, dark: bool = False, **base: Any) -> None:
        super().__init__(**base)
        self.dark = dark

    def read(self, train: bool) -> tuple[Any, Any]:
        images, labels = super().read(train)
        return (images // 2 if self.dark else images), labels


class Weighted(Autoencoder):
    def __init__(self, weight: float = 1.0, **base: Any) -> None:
        super().__init__(**base)
        self.weights["nll"] = weight


class Dark:
    def __init__(self, by: float = 0.5) -> None:
        self.by = by

    def __call__(self, clean: Tensor, randomness: Any) -> Tensor:
        return clean * self.by


OWN = "network=own network.encoder._target_=test_idioms.Encoder network.decoder._target_=test_idioms.Decoder"


# ---- one training in this process --------------------------------------------------------------------------


@dataclass
class Seen(Callback):
    """What a training does, step by step."""

    batches: list[list[float]] = field(default_factory=list)  # of each epoch, known by their pixels' sums
    gradients: list[Tensor] = field(default_factory=list)  # of each step, as the optimizer gets them
    validated_at: list[int] = field(default_factory=list)
    checked: int = 0  # validation batches before training
    corrupted: Tensor = field(default_factory=lambda: torch.zeros(0))
    modes: set[str] = field(default_factory=set)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.batches.append([])

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batches[-1].append(round(float(batch.clean.sum()), 2))
        self.corrupted = batch.corrupted
        for name, on in (
            ("deterministic", torch.are_deterministic_algorithms_enabled()),
            ("anomaly", torch.is_anomaly_enabled()),
        ):
            self.modes |= {name} if on else set()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        gradients = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
        self.gradients.append(torch.cat(gradients))

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.checked += trainer.sanity_checking
        self.modes |= {"inference"} if torch.is_inference_mode_enabled() else set()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.training or trainer.state.fn == "fit":
            self.validated_at += [] if trainer.sanity_checking else [trainer.global_step]


@dataclass
class Done:
    folder: Path
    cfg: DictConfig
    seen: Seen
    out: str  # what was printed, on stdout and stderr
    metrics: dict[str, float]

    def curve(self, name: str) -> list[float]:
        with (self.folder / "metrics.csv").open(newline="") as file:
            has = name in next(csv.reader(file))
        return column(self.folder, name) if has else []


Do = Callable[..., Done]


def said(data_root: Path, *words: str) -> list[str]:
    network = [] if any(word.startswith("network=") for word in words) else MLP
    return runs.expand([*tiny.SMALL, f"data.root={data_root}", *network, *SMALL[2:], *words])


@pytest.fixture
def do(
    data_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Do]:
    """Trains as `train.py <the words>` does, in this process."""
    build, environment = training.build_trainer, dict(os.environ)

    def do_(words: str = "", *more: str, folder: Path | None = None) -> Done:
        folder, seen = folder or tmp_path_factory.mktemp("run") / "run", Seen()

        def watched(cfg: DictConfig, folder: Path, callbacks: Any) -> Trainer:
            trainer = build(cfg, folder, callbacks)
            trainer.callbacks.append(seen)  # type: ignore[attr-defined]
            return trainer

        monkeypatch.setattr(training, "build_trainer", watched)
        monkeypatch.setattr(Pictures, "draw", lambda *_, **__: None)  # half the time of a run
        overrides = said(data_root, *words.split(), *more)
        cfg = config.compose_conf(overrides)
        capfd.readouterr()
        training.train(cfg, folder, overrides)
        out, err = capfd.readouterr()
        metrics = json.loads((folder / "metrics.json").read_text())
        return Done(folder, cfg, seen, out + err, metrics)

    yield do_
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    os.environ.clear()
    os.environ.update(environment)


_plain: dict[str, Done] = {}


@pytest.fixture
def plain(do: Do) -> Done:
    """The same without any idiom."""
    return _plain.get("") or _plain.setdefault("", do())


def same_weights(one: Path, two: Path, name: str = "best") -> bool:
    first, second = weights(one, name), weights(two, name)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def files(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern)}


Changes = Callable[[Done, Done], bool]  # what an idiom does, and the run without it
FAST_DEV_RUN: Changes = lambda r, p: (  # noqa: E731
    r.metrics["steps"] == 1
    and len(r.seen.gradients) == 1
    and r.metrics["val/mse"] != p.metrics["val/mse"]
    and (r.folder / "checkpoints" / "best.ckpt").is_file()
)
SIMPLE_PROFILE: Changes = lambda r, p: (  # noqa: E731
    "run_training_epoch" in (r.folder / "fit-profile.txt").read_text()
    and "run_training_epoch" in r.out
    and "run_training_epoch" not in p.out
)
STOPPED_BY_TIME: Changes = lambda r, p: 0 < r.metrics["epochs"] < 5000  # noqa: E731
MINE: Changes = lambda r, p: "mine: 3" in r.out and "mine" not in p.out  # noqa: E731
SAME: Changes = lambda r, p: same_weights(r.folder, p.folder)  # noqa: E731
WIDE: Changes = lambda r, p: weights(r.folder)["encoder.layers.1.weight"].shape == (7, 784)  # noqa: E731
SAME_SO_FAR: Changes = lambda r, p: r.seen.batches[0] == p.seen.batches[0]  # noqa: E731
NEVER_STOP = "callbacks=early_stopping callbacks.early_stopping.min_delta=100"

OF_THE_TRAINER: dict[str, Changes] = {
    "trainer.fast_dev_run=true": FAST_DEV_RUN,
    "+trainer.fast_dev_run=true": FAST_DEV_RUN,
    "++trainer.fast_dev_run=true": FAST_DEV_RUN,
    "debug=fast_dev_run": FAST_DEV_RUN,
    "trainer.fast_dev_run=3": lambda r, p: r.metrics["steps"] == 3,
    "trainer.overfit_batches=2 trainer.max_epochs=6": lambda r, p: (
        r.seen.batches == 6 * r.seen.batches[:1]
        and len(r.seen.batches[0]) == 2
        and r.curve("train/loss")[-1] < r.curve("train/loss")[0]
    ),
    "debug=overfit trainer.max_epochs=30": lambda r, p: (
        r.seen.batches == 30 * r.seen.batches[:1]
        and r.curve("train/loss")[-1] < 0.9 * r.curve("train/loss")[0]
    ),
    "debug=profiler": SIMPLE_PROFILE,
    "trainer.profiler=simple": SIMPLE_PROFILE,
    "trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler": SIMPLE_PROFILE,
    "+trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler": SIMPLE_PROFILE,
    "trainer.profiler=advanced": lambda r, p: "ncalls" in (r.folder / "fit-profile.txt").read_text(),
    "trainer.profiler=pytorch": lambda r, p: "aten::" in "".join(
        path.read_text() for path in r.folder.glob("fit-profile*.txt")
    ),
    "debug=limit trainer.limit_train_batches=0.5 trainer.limit_val_batches=0.5 "
    "trainer.limit_test_batches=0.5": lambda r, p: (
        r.metrics["steps"] == 2 and r.metrics["test/mse"] != p.metrics["test/mse"]
    ),
    "debug=anomaly": lambda r, p: "anomaly" in r.seen.modes - p.seen.modes,
    "trainer.detect_anomaly=true": lambda r, p: "anomaly" in r.seen.modes - p.seen.modes,
    "trainer.deterministic=true": lambda r, p: "deterministic" in r.seen.modes - p.seen.modes,
    "trainer.inference_mode=false": lambda r, p: "inference" in p.seen.modes - r.seen.modes,
    "trainer.max_time={milliseconds:200} trainer.max_epochs=100000": STOPPED_BY_TIME,
    "trainer.max_time=00:00:00:01 trainer.max_epochs=100000": STOPPED_BY_TIME,
    "trainer.max_steps=40 trainer.max_epochs=10": lambda r, p: (
        r.metrics["steps"] == 40 and r.seen.validated_at[-1] == 40 and "test/mse" in r.metrics
    ),
    "trainer.max_steps=7 trainer.max_epochs=null": lambda r, p: (
        r.metrics["steps"] == 7 and r.seen.validated_at == [5, 7]
    ),
    "trainer.max_steps=6 trainer.max_epochs=-1": lambda r, p: r.metrics["steps"] == 6,
    f"trainer.max_epochs=9 callbacks.early_stopping.patience=1 {NEVER_STOP}": lambda r, p: (
        r.metrics["epochs"] == 2
    ),
    f"trainer.max_epochs=9 trainer.min_epochs=4 callbacks.early_stopping.patience=1 {NEVER_STOP}": (
        lambda r, p: r.metrics["epochs"] == 4
    ),
    f"trainer.max_epochs=9 trainer.min_steps=16 callbacks.early_stopping.patience=1 {NEVER_STOP}": (
        lambda r, p: r.metrics["steps"] == 16
    ),
    "trainer.limit_train_batches=2": lambda r, p: r.seen.batches[0] == p.seen.batches[0][:2],
    "trainer.limit_train_batches=0.5": lambda r, p: r.seen.batches[0] == p.seen.batches[0][:2],
    "trainer.limit_train_batches=0": lambda r, p: r.metrics["steps"] == 0 and "test/mse" in r.metrics,
    "trainer.limit_val_batches=1": lambda r, p: (
        SAME(r, p) and r.metrics["val/mse"] != p.metrics["val/mse"]
    ),
    "trainer.limit_val_batches=0": lambda r, p: (
        "val/mse" not in r.metrics
        and r.metrics["test/mse"] == p.metrics["test/mse"]
        and same_weights(r.folder, p.folder)
    ),
    "trainer.limit_test_batches=1": lambda r, p: r.metrics["test/mse"] != p.metrics["test/mse"],
    "trainer.limit_test_batches=0": lambda r, p: "test/mse" not in r.metrics and "val/mse" in r.metrics,
    "trainer.accumulate_grad_batches=2": lambda r, p: r.metrics["steps"] == 3 and SAME_SO_FAR(r, p),
    "trainer.gradient_clip_val=0.1": lambda r, p: (
        max(map(float, map(torch.linalg.norm, r.seen.gradients))) < 0.11
        < max(map(float, map(torch.linalg.norm, p.seen.gradients)))
    ),
    "trainer.gradient_clip_val=0.1 trainer.precision=bf16-mixed": lambda r, p: (
        max(map(float, map(torch.linalg.norm, r.seen.gradients))) < 0.11
    ),
    "trainer.gradient_clip_val=1e-3 trainer.gradient_clip_algorithm=value": lambda r, p: (
        max(float(gradient.abs().max()) for gradient in r.seen.gradients) == pytest.approx(1e-3)
    ),
    "trainer.num_sanity_val_steps=2": lambda r, p: r.seen.checked == 2 and SAME(r, p),
    "trainer.num_sanity_val_steps=-1": lambda r, p: r.seen.checked == 2 and SAME(r, p),
    "trainer.check_val_every_n_epoch=2 trainer.max_epochs=4": lambda r, p: r.seen.validated_at == [10, 20],
    "trainer.check_val_every_n_epoch=5 trainer.max_epochs=2": lambda r, p: (
        r.metrics["val/mse"] < p.metrics["val/mse"] and same_layers(r.folder)
    ),
    "trainer.val_check_interval=2": lambda r, p: r.seen.validated_at == [2, 4],
    "trainer.val_check_interval=0.5": lambda r, p: r.seen.validated_at == [2, 4],
    "trainer.val_check_interval=3 trainer.check_val_every_n_epoch=null trainer.max_steps=9 "
    "trainer.max_epochs=-1": lambda r, p: r.seen.validated_at == [3, 6, 9],
    "trainer.log_every_n_steps=2": lambda r, p: r.curve("train/loss") == p.curve("train/loss")[1::2],
    "trainer.enable_progress_bar=true": lambda r, p: "1/1  100%" in r.out and "\nepoch" not in r.out,
    "trainer.enable_progress_bar=false": lambda r, p: "\nepoch 1/1 " in r.out and "100%" not in r.out,
    "trainer.enable_model_summary=true": lambda r, p: "Trainable" in r.out and "Trainable" not in p.out,
    "trainer.enable_checkpointing=true": lambda r, p: (
        files(r.folder, "*.ckpt") > files(p.folder, "*.ckpt") and len(files(p.folder, "*.ckpt")) == 2
    ),
    "trainer.precision=64-true": lambda r, p: (
        weights(r.folder)["encoder.1.weight"].dtype == torch.float64
        and r.metrics["val/mse"] == pytest.approx(p.metrics["val/mse"], rel=1e-4)
    ),
    "trainer.precision=bf16-true": lambda r, p: (
        weights(r.folder)["encoder.1.weight"].dtype == torch.bfloat16
        and r.metrics["val/mse"] == pytest.approx(p.metrics["val/mse"], rel=1e-2)
    ),
    "trainer.precision=bf16-true model=vae": lambda r, p: math.isfinite(r.metrics["val/loss"]),
    "trainer.precision=16-mixed": lambda r, p: (
        not SAME(r, p) and r.metrics["val/mse"] == pytest.approx(p.metrics["val/mse"], rel=1e-2)
    ),
    "trainer.precision=bf16": lambda r, p: not SAME(r, p),
    "trainer.devices=auto": SAME,
    'trainer.devices="1"': SAME,
    "trainer.strategy=ddp": SAME,
    "trainer=ddp trainer.devices=1": SAME,
    "trainer.strategy=ddp_find_unused_parameters_true": SAME,
    "trainer.strategy._target_=lightning.pytorch.strategies.DDPStrategy "
    "trainer.strategy.find_unused_parameters=true": SAME,
    "trainer.sync_batchnorm=true": SAME,
    "trainer.use_distributed_sampler=true": SAME,
    "trainer.plugins._target_=lightning.pytorch.plugins.environments.LightningEnvironment": SAME,
    "trainer.plugins=[{_target_:lightning.pytorch.plugins.environments.LightningEnvironment}]": SAME,
    "trainer.reload_dataloaders_every_n_epochs=1 trainer.max_epochs=2": lambda r, p: (
        len(r.seen.batches) == 2 and r.seen.batches[0] != r.seen.batches[1] and SAME_SO_FAR(r, p)
    ),
    "~trainer.max_steps ++trainer.max_epochs=2": lambda r, p: r.metrics["epochs"] == 2,
    "trainer.max_epochs=${figures.images}": lambda r, p: r.metrics["epochs"] == 2,
}  # fmt: skip


def same_layers(folder: Path) -> bool:
    """Whether a run's best model is its last."""
    best, last = weights(folder, "best"), weights(folder, "last")
    return all(torch.equal(best[key], last[key]) for key in last if not key.startswith("averages"))


def every_second(words: Iterable[str]) -> list[Any]:
    """The others are among the slow tests."""
    slow = pytest.mark.slow
    return [pytest.param(said, marks=slow if index % 2 else ()) for index, said in enumerate(words)]


@pytest.mark.parametrize("words", every_second(OF_THE_TRAINER))
def test_arguments_of_the_trainer(words: str, do: Do, plain: Done) -> None:
    assert OF_THE_TRAINER[words](do(words), plain)


MODEL_CHECKPOINT = "callbacks.kept._target_=lightning.pytorch.callbacks.ModelCheckpoint"
CALLBACKS: dict[str, Changes] = {
    "callbacks=none": SAME,
    "callbacks=[]": SAME,
    "callbacks=null": SAME,
    "callbacks=[lr_monitor,timer]": lambda r, p: (
        len(r.curve("lr-AdamW")) == 5 and p.curve("lr-AdamW") == [] and SAME(r, p)
    ),
    "+callbacks.mine._target_=test_idioms.Mine +callbacks.mine.number=3": MINE,
    "callbacks.mine._target_=test_idioms.Mine callbacks.mine.number=3": MINE,
    "callbacks=early_stopping callbacks.mine._target_=test_idioms.Mine callbacks.mine.number=3": MINE,
    "+trainer.callbacks=[{_target_:test_idioms.Mine,number:3}]": MINE,
    "trainer.callbacks=[{_target_:test_idioms.Mine,number:3}]": MINE,
    "trainer.callbacks={_target_:test_idioms.Mine,number:3}": MINE,
    "trainer.callbacks._target_=test_idioms.Mine trainer.callbacks.number=3": MINE,
    f"{MODEL_CHECKPOINT} callbacks.kept.every_n_train_steps=2 callbacks.kept.save_top_k=-1": lambda r, p: (
        {"checkpoints/epoch=0-step=2.ckpt", "checkpoints/epoch=0-step=4.ckpt"} <= files(r.folder, "*.ckpt")
    ),
    f"{MODEL_CHECKPOINT} callbacks.kept.monitor=val/mse trainer.max_epochs=2": lambda r, p: (
        files(r.folder, "*.ckpt") - files(p.folder, "*.ckpt") == {"checkpoints/epoch=1-step=10.ckpt"}
    ),
    "callbacks.swa._target_=lightning.pytorch.callbacks.StochasticWeightAveraging callbacks.swa.swa_lrs=0.05 "
    "callbacks.swa.swa_epoch_start=1 trainer.max_epochs=4": lambda r, p: (
        len(r.curve("val/mse")) == 4 and r.metrics["val/mse"] <= min(r.curve("val/mse"))
    ),
    "callbacks.added._target_=lightning.pytorch.callbacks.GradientAccumulationScheduler "
    "callbacks.added.scheduling={0:2,1:1} trainer.max_epochs=2": lambda r, p: r.metrics["steps"] == 3 + 5,
    "callbacks.layers._target_=lightning.pytorch.callbacks.ModelSummary callbacks.layers.max_depth=2": (
        lambda r, p: "encoder.1" in r.out and "encoder.1" not in p.out
    ),
    "callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging callbacks.ema.decay=0.9": (
        lambda r, p: (
            r.metrics["val/mse"] == pytest.approx(r.curve("val/mse")[-1], rel=1e-5)
            and r.metrics["val/mse"] != p.metrics["val/mse"]
        )
    ),
    "ema=0.9": lambda r, p: r.metrics["val/mse"] != p.metrics["val/mse"] and SAME_SO_FAR(r, p),
}


@pytest.mark.parametrize("words", every_second(CALLBACKS))
def test_callbacks(words: str, do: Do, plain: Done) -> None:
    assert CALLBACKS[words](do(words), plain)


CSV = "lightning.pytorch.loggers.CSVLogger"
FOREIGN: Changes = lambda r, p: (  # noqa: E731
    files(r.folder, "version_0/metrics.csv") == {"lightning_logs/version_0/metrics.csv"}
    and files(p.folder, "version_0/*") == set()
)
LOGGERS: dict[str, Changes] = {
    "logger=none": lambda r, p: r.curve("train/loss") == p.curve("train/loss"),
    "logger=[]": SAME,
    "logger=null": SAME,
    "logger=tensorboard": lambda r, p: files(r.folder, "events.out.*") != set(),
    "logger=[csv,tensorboard]": lambda r, p: files(r.folder, "events.out.*") != set(),
    "logger=tensorboard trainer.logger=false": lambda r, p: files(r.folder, "events.out.*") == set(),
    "logger=tensorboard trainer.logger=true": lambda r, p: files(r.folder, "events.out.*") != set(),
    f"+logger.mine._target_={CSV}": FOREIGN,
    f"logger.mine._target_={CSV}": FOREIGN,
    f"logger.mine._target_={CSV} logger.mine.name=runs": lambda r, p: (
        files(r.folder, "version_0/metrics.csv") == {"runs/version_0/metrics.csv"}
    ),
    f"trainer.logger._target_={CSV}": FOREIGN,
    f"+trainer.logger=[{{_target_:{CSV}}}]": FOREIGN,
}


@pytest.mark.parametrize("words", every_second(LOGGERS))
def test_loggers(words: str, do: Do, plain: Done) -> None:
    assert LOGGERS[words](do(words), plain)


def rates(*expected: float) -> Changes:
    return lambda r, p: r.curve("train/lr") == pytest.approx(expected)


OPTIMIZATION: dict[str, Changes] = {
    "optimizer=adam optimizer.lr=1e-3 scheduler=constant": rates(*5 * [1e-3]),
    "model.lr=1e-3 scheduler=constant": rates(*5 * [1e-3]),
    "optimizer=sgd optimizer.lr=1e-3 optimizer.momentum=0 optimizer.nesterov=false scheduler=constant": (
        lambda r, p: steps_of_sgd(r, 1e-3)
    ),
    "optimizer._target_=torch.optim.RMSprop ~optimizer.betas ~optimizer.fused optimizer.alpha=0.9": (
        lambda r, p: state_of(r).keys() == {"step", "square_avg"}
    ),
    "optimizer._target_=torch.optim.NAdam ~optimizer.fused": lambda r, p: "mu_product" in state_of(r),
    "optimizer._target_=torch.optim.LBFGS ~optimizer.betas ~optimizer.fused ~optimizer.weight_decay": (
        lambda r, p: "old_dirs" in state_of(r)
    ),
    "scheduler=step scheduler.step_size=1 scheduler.gamma=0.5 trainer.max_epochs=2": rates(
        *5 * [0.012], *5 * [0.006]
    ),
    "scheduler._target_=torch.optim.lr_scheduler.ExponentialLR ~scheduler.warmup scheduler.gamma=0.5 "
    "trainer.max_epochs=2": rates(*5 * [0.012], *5 * [0.006]),
    "scheduler._target_=torch.optim.lr_scheduler.OneCycleLR ~scheduler.warmup scheduler.max_lr=0.01": (
        lambda r, p: r.curve("train/lr")[0] == pytest.approx(0.01 / 25) and max(r.curve("train/lr")) > 5e-3
    ),
    "scheduler=cosine": lambda r, p: (
        r.curve("train/lr")
        == pytest.approx([0.006 * (1 + math.cos(math.pi * step / 5)) for step in range(5)])
    ),
    "scheduler=plateau": rates(*5 * [0.012]),
}


def state_of(done: Done) -> Mapping[str, Any]:
    """What the optimizer remembers of the first parameter."""
    path = done.folder / "checkpoints" / "last.ckpt"
    state: Mapping[str, Any] = torch.load(path, weights_only=True)["optimizer_states"][0]["state"][0]
    return state


def steps_of_sgd(done: Done, rate: float) -> bool:
    """Whether the weights have moved by the sum of all gradients times the rate."""
    torch.manual_seed(0)
    moved = rate * torch.stack(done.seen.gradients).sum(0)
    first = torch.cat([p.flatten() for p in initial(done).parameters()])
    last = torch.cat(
        [value.flatten() for key, value in weights(done.folder).items() if "averages" not in key]
    )
    return torch.allclose(first - last, moved, atol=1e-6)


def initial(done: Done) -> nn.Module:
    """The model as the run began."""
    seed_everything(done.cfg.seed, verbose=False)
    model: nn.Module = training.build_model(done.cfg, training.build_data(done.cfg))
    return model


@pytest.mark.parametrize("words", every_second(OPTIMIZATION))
def test_optimizers_and_schedulers(words: str, do: Do, plain: Done) -> None:
    assert OPTIMIZATION[words](do(words), plain)


OWN_CLASSES: dict[str, Changes] = {
    OWN: lambda r, p: weights(r.folder)["encoder.layers.1.weight"].shape == (16, 784),
    f"{OWN} network.encoder.width=7": WIDE,
    f"{OWN} +network.encoder.width=7": WIDE,
    f"{OWN} ++network.encoder.width=7": WIDE,
    "data.size=20": lambda r, p: weights(r.folder)["encoder.1.weight"].shape == (8, 400),
    "data._target_=test_idioms.Squares data.dark=true": lambda r, p: (
        sum(r.seen.batches[0]) == pytest.approx(sum(p.seen.batches[0]) / 2, rel=0.05)
    ),
    "model._target_=test_idioms.Weighted model.weight=3": lambda r, p: (
        r.curve("train/loss")[0] == pytest.approx(3 * p.curve("train/loss")[0])
    ),
    "corruption._target_=test_idioms.Dark corruption.by=0.25": lambda r, p: (
        r.seen.batches == p.seen.batches and torch.equal(r.seen.corrupted, 0.25 * p.seen.corrupted)
    ),
    "+corruption.by=0.25 corruption._target_=test_idioms.Dark": lambda r, p: torch.equal(
        r.seen.corrupted, 0.25 * p.seen.corrupted
    ),
    "seed=1": lambda r, p: r.seen.batches != p.seen.batches and not SAME(r, p),
    "seed='${oc.decode:${oc.env:SEED_OF_MINE}}'": lambda r, p: (
        r.seen.batches != p.seen.batches
        and "seed: 3\n" in (r.folder / ".hydra" / "config.yaml").read_text()  # of then, whatever it is later
    ),
    "seed='${oc.decode:${oc.env:NOT_THERE,0}}'": SAME,
}


@pytest.mark.parametrize("words", every_second(OWN_CLASSES))
def test_own_classes_and_values(words: str, do: Do, plain: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED_OF_MINE", "3")
    assert OWN_CLASSES[words](do(words), plain)


def test_the_objective_chooses_the_best_checkpoint(do: Do) -> None:
    done = do("objective=val/loss trainer.max_epochs=2")
    best = torch.load(done.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["best"] == pytest.approx(min(done.curve("val/loss")), rel=1e-5)


# ---- what is answered in one line --------------------------------------------------------------------------

ANSWERED = {
    "ckpt_path=runs/mine/checkpoints/last.ckpt": "resume=<run folder> continues a run, init=<run folder>",
    "+ckpt_path=last": "resume=<run folder>",
    "data.data_dir=/data": "data.root=<folder>",
    "paths.data_dir=/data": "data.root=<folder>",
    "data.num_workers=4": "not needed",
    "trainer.gpus=1": "trainer.devices=1 trainer.accelerator=gpu",
    "+trainer.gpus=1": "trainer.devices=1 trainer.accelerator=gpu",
    "model.optimizer.lr=1e-3": "optimizer.lr=1e-3",
    "model.net.lin1_size=64": "network=mlp",
    "train=false": "evaluate.py",
    "task_name=mine": "hydra.run.dir",
    "tags=[a,b]": "logger.wandb.tags",
    "hparams_search=mnist_optuna": "sweeps=lr_batch",
    "logger=many_loggers": "logger=[wandb,tensorboard]",
    "callbacks=default": "callbacks=[early_stopping,lr_monitor]",
    "hydra/sweeper=optuna": "hydra/sweeper=tpe",
    "hydra/launcher=joblib": "hydra.launcher.max_parallel=2",
    "scheduler=null": "a group can't be null",
    "network=own": "network.encoder._target_ must be given",
    f"{OWN} network.encoder.wdth=7": "wdth",
    "trainer.nosuch=1": "no key trainer.nosuch",
    "trainer.max_epoch=1": "did you mean 'max_epochs'",
    "trainer.barebones=true": "debug=profiler",
    "trainer.strategy=ddp_spawn": "take ddp",
    "trainer.strategy=fsdp": "requires a GPU accelerator",
    "trainer.strategy=ddpp": "invalid strategy name",
    "trainer.devices=-1": "should be an int > 0",
    "trainer.devices=[0]": "should be an int > 0",
    "trainer.precision=nonsense": "Precision 'nonsense' is invalid",
    "trainer.profiler=nonsense": "it can only be one of",
    "trainer.profiler._target_=nowhere.Nothing": "trainer.profiler._target_=nowhere.Nothing is not found",
    "trainer.accumulate_grad_batches=0": "must be ≥ 1",
    "trainer.accumulate_grad_batches={0:2}": "must be a whole number",
    "trainer.max_time=soon": "DD:HH:MM:SS",
    "trainer.val_check_interval=100": "must be less than or equal to the number of the training batches",
    "trainer.max_epochs=-1": "scheduler=constant",
    "trainer.limit_val_batches=0 callbacks=early_stopping": "monitor=val/mse is not a metric of this model",
    "trainer.plugins._target_=lightning.pytorch.plugins.io.AsyncCheckpointIO": "for CheckpointIO",
    "callbacks.mine._target_=test_idioms.Mnie": "test_idioms has no Mnie: did you mean 'Mine'",
    "callbacks.mine._target_=test_idioms.Mine callbacks.mine.numbr=3": "no key callbacks.mine.numbr",
    "callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateFinder": "sweeps=lr_batch",
    "callbacks.bs._target_=lightning.pytorch.callbacks.BatchSizeFinder": "sweeps=lr_batch",
    "logger.mine._target_=nowhere.Nothing": "logger.mine._target_=nowhere.Nothing is not found",
    "data._target_=lightning.LightningDataModule": "has no input_shape",
    "optimizer._target_=torch.optim.RMSprop": "leave out with: ~optimizer.betas ~optimizer.fused",
    "scheduler._target_=torch.optim.lr_scheduler.ExponentialLR": "leave out with: ~scheduler.warmup",
    "corruption=gaussian corruption._target_=test_idioms.Dark": "~corruption.mean leaves it out",
    "init=nowhere": "init=nowhere is neither a run folder nor a checkpoint",
    "objective=val/nothing": "there are val/loss, val/mse",
    "model.code_dim=${oc.env:NOT_THERE_EITHER}": "NOT_THERE_EITHER",
}


@pytest.mark.parametrize("words", ANSWERED)
def test_what_is_answered_in_one_line(words: str, do: Do) -> None:
    line = line_of(lambda: do(words))
    assert line is not None
    assert ANSWERED[words] in line


# ---- where a run starts from -------------------------------------------------------------------------------


def test_init_takes_the_weights_of_a_run_or_of_a_checkpoint(do: Do, plain: Done) -> None:
    for source in (plain.folder, plain.folder / "checkpoints" / "best.ckpt"):
        done = do("trainer.limit_train_batches=0", f"init={source}")
        assert same_weights(done.folder, plain.folder)
        assert re.search(r"init: (\d+) of \1 tensors from \S+\n", done.out)  # all of it fits
    done = do("trainer.limit_train_batches=0 model.code_dim=3", f"init={plain.folder}")
    assert "not in it or of another shape: encoder.3.weight, encoder.3.bias, decoder.0.weight" in done.out
    kept, before = weights(done.folder, "best"), weights(plain.folder, "best")
    assert torch.equal(kept["encoder.1.weight"], before["encoder.1.weight"])
    assert "no weights that fit" in str(
        line_of(lambda: do("network=linear data.size=8", f"init={plain.folder}"))
    )


def test_a_run_is_trained_for_longer(do: Do, data_root: Path) -> None:
    """... by resume= and trainer.max_epochs, as if it had been asked for at once."""
    constant = "scheduler=constant trainer.max_epochs=1"
    folder = do(constant).folder
    command = runs.Command.parse("resume", [f"resume={folder}", "trainer.max_epochs=2"], "train.py")
    assert command is not None
    training.train(runs.compose_resumed(command), folder)
    whole = do(f"{constant} trainer.max_epochs=2")
    assert column(folder, "val/mse") == whole.curve("val/mse")
    assert same_weights(folder, whole.folder, "last")


# ---- Hydra -------------------------------------------------------------------------------------------------


def test_flags_stand_anywhere() -> None:
    for words in ("-m a.b=1,2 -cd my c=3", "a.b=1,2 -m c=3 -cd my", "-cd my a.b=1,2 c=3 --multirun"):
        flags = runs.parse_flags(runs.expand(words.split()))
        assert (flags.multirun, flags.config_dir, flags.overrides) == (True, "my", ["a.b=1,2", "c=3"])
    assert runs.expand(["seed=1", "--info"])[-1] == "--info"  # which may be followed by what to tell


@pytest.fixture(scope="module")
def folder_of_mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder of mine")
    (folder / "myconf" / "experiment").mkdir(parents=True)
    for name, text in {
        "plain": "defaults: [train]\nseed: 7\n",
        "chosen": "defaults:\n- train\n- override model: vae\n- _self_\nmodel: {beta: 0.5}\n",
        "slashes": "defaults:\n- train\n- override /model: vae\n- override /callbacks: [timer]\n- _self_\n",
        "experiment/mine": "# @package _global_\ndefaults:\n- override /model: vae\nseed: 9\n",
    }.items():
        (folder / "myconf" / f"{name}.yaml").write_text(text)
    return folder


def composed_by_hydra(folder: Path, words: str) -> Any:
    """What `train.py <words> --cfg job` shows."""
    command = [sys.executable, str(tiny.REPOSITORY / "train.py"), *words.split(), "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return OmegaConf.create(done.stdout)


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("-cd myconf --config-name plain", "seed", 7),
        ("--config-dir=myconf --config-name=plain seed=8", "seed", 8),
        ("seed=8 --config-name chosen -cd myconf", "model._target_", "autoencoders.models.VAE"),
        ("-cd myconf --config-name chosen", "model.beta", 0.5),
        ("-cd myconf --config-name slashes", "callbacks.timer.duration", "00:12:00:00"),
        ("-cd myconf experiment=mine", "model._target_", "autoencoders.models.VAE"),
        ("experiment=mine model.beta=2 -cd myconf", "model.beta", 2),
        ("experiment=mine -cd myconf debug=limit", "trainer.max_epochs", 3),
        ("sweeps=noise experiment=quick", "trainer.max_steps", 300),
    ],
)
def test_config_folders_of_one_s_own(words: str, key: str, value: Any, folder_of_mine: Path) -> None:
    assert OmegaConf.select(composed_by_hydra(folder_of_mine, words), key) == value


@pytest.mark.slow
def test_a_folder_s_name_is_interpolated_and_is_worked_in(data_root: Path, tmp_path: Path) -> None:
    """... with hydra.job.chdir=true, and a relative folder."""
    name = "hydra.run.dir=mine/${model.code_dim}-${now:%Y}/${seed}"
    words = [*tiny.SMALL, f"data.root={data_root}", *SMALL, "trainer.fast_dev_run=true"]
    run("train.py", data_root, *words, name, "hydra.job.chdir=true", cwd=tmp_path)
    (folder,) = tmp_path.glob("mine/16-20*/0")
    assert (folder / "metrics.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


@pytest.mark.slow
def test_jobs_of_a_sweep_without_validation(data_root: Path, tmp_path: Path) -> None:
    words = [*tiny.SMALL, f"data.root={data_root}", *SMALL, "hydra.sweep.dir=swept"]
    run("train.py", data_root, *words, "-m", "seed=1,2", "trainer.limit_val_batches=0", cwd=tmp_path)
    with (tmp_path / "swept" / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert rows[0]["test/mse"] != rows[1]["test/mse"]


# ---- two devices -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_devices_overfit_the_same_batches(data_root: Path, tmp_path: Path, do: Do) -> None:
    """... as one does, however they are asked for."""
    words = ["trainer.overfit_batches=2", "trainer.max_epochs=8"]
    two = ['trainer.devices="2"', "trainer.strategy=ddp_find_unused_parameters_true"]
    two += ["trainer.use_distributed_sampler=true"]
    run("train.py", data_root, *small(data_root, tmp_path / "two", *SMALL, *words, *two))
    one = do(" ".join(words))
    losses = column(tmp_path / "two", "train/loss")
    assert losses == pytest.approx(one.curve("train/loss"), rel=1e-4)
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trainer.strategy._target_=lightning.pytorch.strategies.DDPStrategy", None),
        ("trainer.fast_dev_run=true", None),
        ("debug=profiler callbacks=[early_stopping,lr_monitor,device_stats,timer]", None),
        ("trainer.precision=bf16-mixed trainer.gradient_clip_val=0.1", None),
        ("hydra.job.chdir=true", None),
        ("trainer.sync_batchnorm=true", "trainer.sync_batchnorm=true needs GPUs"),
    ],
)
def test_other_idioms_on_two_devices(
    words: str, message: str | None, data_root: Path, tmp_path: Path
) -> None:
    said = small(data_root, tmp_path / "two", *SMALL, "trainer.devices=2", *words.split())
    done = run("train.py", data_root, *said, ok=message is None)
    assert (tmp_path / "two" / "metrics.json").is_file() == (message is None)
    assert message is None or re.fullmatch(f"error: {re.escape(message)}[^\n]*\n", done.stderr)


@pytest.mark.slow
def test_a_rerun_on_two_devices(data_root: Path, tmp_path: Path) -> None:
    run("train.py", data_root, *small(data_root, tmp_path / "first", *SMALL, "trainer.devices=2"))
    run("train.py", data_root, f"rerun={tmp_path / 'first'}", cwd=tmp_path)
    (again,) = tmp_path.glob("runs/autoencoder/*")
    assert same_weights(tmp_path / "first", again)


# ---- in Python ---------------------------------------------------------------------------------------------


def test_a_loaded_run_takes_images_as_one_has_them(plain: Done, data_root: Path) -> None:
    run = autoencoders.load(plain.folder)
    run.data.setup("test")
    bytes_ = run.data.test.images[:3]  # (N, 1, H, W) uint8
    codes = run.encode(bytes_)
    assert codes.shape == (3, 16)
    pixels = bytes_.float() / 255
    pictures = [Image.fromarray(image[0].numpy()) for image in bytes_]
    for same in (
        pixels, pixels[:, 0], pixels.permute(0, 2, 3, 1), bytes_[:, 0], bytes_.permute(0, 2, 3, 1)
    ):  # fmt: skip
        torch.testing.assert_close(run.encode(same), codes)
    for numpy in (bytes_.numpy(), pixels.numpy(), pictures, [np.asarray(picture) for picture in pictures]):
        given = run.encode(numpy)
        assert isinstance(given, np.ndarray)
        np.testing.assert_allclose(given, codes.numpy(), rtol=1e-4, atol=1e-5)
    for single in (pixels[0, 0], pixels[0].permute(1, 2, 0), bytes_[0, 0]):
        torch.testing.assert_close(run.encode(single), codes[0])
    for one in (pixels[:1], pixels[:1, 0], pixels[0], [pixels[0]]):  # a batch of one stays a batch
        torch.testing.assert_close(run.encode(one), codes[:1])
    mixed = [bytes_.numpy()[0, 0], pixels.numpy()[1, 0]]
    np.testing.assert_allclose(run.encode(mixed), codes[:2].numpy(), rtol=1e-4, atol=1e-5)
    wrong_values: tuple[tuple[Any, str], ...] = (
        (255 * pixels, r"these reach from 0 to 25\d"),
        (pixels * float("nan"), "these reach from nan"),
        (bytes_.long(), r"not torch\.int64"),
        ([], "no images"),
        ("a.png", "not str"),
    )
    for wrong, said in wrong_values:
        with pytest.raises(errors.UserError, match=said):
            run.encode(wrong)
    with pytest.raises(errors.UserError, match="codes of shape"):
        run.decode(codes[:, :3])
    assert run.encode(pictures[0]).shape == (16,)
    images = run.reconstruct(pixels)
    assert images.shape == (3, 1, 28, 28)
    assert 0 <= images.min() < images.max() <= 1
    torch.testing.assert_close(run.decode(codes), images)
    torch.testing.assert_close(run.decode(codes[0]), images[0])
    assert isinstance(run.decode(codes.numpy()), np.ndarray)
    with pytest.raises(
        errors.UserError, match=r"\(3, 27, 28\) don't fit this model, which reads \(N, 1, 28, 28\)"
    ):
        run.encode(pixels[:, 0, 1:])
