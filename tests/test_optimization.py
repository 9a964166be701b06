"""Optimizers and schedulers: each choice trains, and changes the learning rate as it should."""

import csv
import math
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import Compose
from lightning import Callback, Trainer
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from autoencoders import training
from autoencoders.errors import UserError
from autoencoders.models import Autoencoder
from autoencoders.networks import MLP
from autoencoders.optimizers import Muon
from autoencoders.schedulers import warmup_cosine, warmup_cosine_factor

STEPS = 5  # an epoch of the tiny data
TINY = ["network=mlp", "network.hidden=[8]", "model.code_dim=2", "trainer.max_epochs=2"]


def rates(composed: Compose, folder: Path, *overrides: str) -> list[float]:
    """The learning rate of each step of two epochs."""
    training.train(composed(*TINY, *overrides), folder)
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]]


@pytest.mark.parametrize(
    "optimizer",
    [
        "adamw",
        "muon optimizer.min_side=8",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("adam", "sgd")),
    ],
)
def test_every_optimizer_trains(optimizer: str, composed: Compose, tmp_path: Path) -> None:
    def val_mse(name: str, lr: float) -> float:
        chosen = [*f"optimizer={optimizer}".split(), f"optimizer.lr={lr}", "trainer.max_epochs=4"]
        return training.train(composed(*TINY, *chosen), tmp_path / name)

    assert val_mse("trained", 1e-2) < 0.95 * val_mse("untrained", 1e-12)


def test_warmup_cosine_over_all_steps(composed: Compose, tmp_path: Path) -> None:
    expected = [1.2e-2 * warmup_cosine_factor(step, 2 * STEPS, 0.3) for step in range(2 * STEPS)]
    assert rates(composed, tmp_path / "default") == pytest.approx(expected)
    changed = rates(composed, tmp_path / "changed", "scheduler.warmup=0.5", "optimizer.lr=1e-3")
    assert changed.index(max(changed)) == 5
    assert max(changed) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["scheduler=constant"], [1.0] * 10),
        (["scheduler=cosine"], [(1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]),
        (["scheduler=cosine", "+scheduler.T_max=2"], [1.0] * 5 + [0.5] * 5),  # epochs
        (["scheduler=step", "scheduler.step_size=1", "scheduler.gamma=0.1"], [1.0] * 5 + [0.1] * 5),
    ],
    ids=str,
)
def test_other_schedules(
    overrides: list[str], expected: list[float], composed: Compose, tmp_path: Path
) -> None:
    assert rates(composed, tmp_path, "optimizer.lr=1e-2", *overrides) == pytest.approx(
        [1e-2 * factor for factor in expected]
    )


@pytest.mark.slow
def test_a_plateau_is_noticed_after_each_validation(composed: Compose, tmp_path: Path) -> None:
    plateau = ["scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5", "scheduler.threshold=0.9"]
    assert rates(composed, tmp_path / "epochs", *plateau, "trainer.max_epochs=4") == pytest.approx(
        [1.2e-2] * 2 * STEPS + [6e-3] * STEPS + [3e-3] * STEPS
    )
    often = ["trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=3"]
    assert rates(composed, tmp_path / "steps", *plateau, *often) == pytest.approx(
        [1.2e-2] * 6 + [6e-3] * 3 + [3e-3]
    )
    rarely = rates(
        composed, tmp_path / "rarely", *plateau, "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4"
    )
    assert rarely == pytest.approx([1.2e-2] * 4 * STEPS)


def test_warmup_cosine_rises_and_falls() -> None:
    factors = [warmup_cosine_factor(step, 100, 0.1) for step in range(101)]
    assert factors.index(max(factors)) == 10
    assert factors[10] == pytest.approx(1)
    assert factors[100] == pytest.approx(0, abs=1e-6)
    assert all(factor > 0 for factor in factors[:100])
    assert warmup_cosine_factor(0, 1, 0.5) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": partial(torch.optim.AdamW, lr=0)}, "optimizer.lr=0 must be > 0"),
        (
            {"optimizer": partial(cast(Any, torch.optim.SGD), lr="fast")},
            "optimizer.lr=fast must be a number > 0",
        ),
        ({"optimizer": partial(torch.optim.Adam, betas=(0.9, 2.0))}, "optimizer: Invalid beta parameter"),
        (
            {"optimizer": partial(cast(Any, torch.optim.Adam), eta=1)},
            "optimizer: .* does not take eta",
        ),
        ({"optimizer": partial(torch.optim.Muon, lr=1e-2)}, "optimizer: Muon only supports 2D parameters"),
        ({"scheduler": partial(warmup_cosine, warmup=1.0)}, "scheduler.warmup=1.0 must be > 0 and < 1"),
        ({"scheduler": partial(StepLR)}, "scheduler: .* missing .* 'step_size'"),
    ],
)
def test_what_is_refused_is_named_before_data_is_read(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Autoencoder(**arguments)


def fitted(data: Any, folder: Path, trainer: dict[str, Any], **model: Any) -> tuple[Trainer, Autoencoder]:
    autoencoder = Autoencoder(network=MLP(hidden=[8]), code_dim=2, **model)
    options: dict[str, Any] = {
        "accelerator": "cpu", "max_epochs": 2, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder,
    }  # fmt: skip
    lightning = Trainer(**{**options, **trainer})
    lightning.fit(autoencoder, data)
    return lightning, autoencoder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "optimizer",
    [partial(torch.optim.AdamW, fused=True), partial(torch.optim.SGD, fused=True), partial(Muon, min_side=8)],
)
def test_gradients_are_clipped_at_every_precision(
    optimizer: Any, precision: str, composed: Compose, tmp_path: Path
) -> None:
    norms = []

    class Norms(Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in module.parameters()])))

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in module.parameters()])))

    data = training.build_data(composed())
    options = {"precision": precision, "gradient_clip_val": 0.5, "callbacks": [Norms()], "max_epochs": 1}
    trainer, _ = fitted(data, tmp_path, options, optimizer=partial(optimizer, lr=1e-3))
    assert trainer.optimizers[0].param_groups[0]["fused"] == (optimizer.func is Muon)
    assert min(norms[::2]) > 1
    assert norms[1::2] == pytest.approx([0.5] * STEPS, rel=1e-2)


@pytest.mark.filterwarnings("ignore")
def test_a_schedule_that_was_told_its_length_keeps_it(composed: Compose, tmp_path: Path) -> None:
    schedules: dict[Any, tuple[str, Any]] = {
        partial(OneCycleLR, max_lr=0.1): ("step", ("total_steps", 10)),
        partial(OneCycleLR, max_lr=0.1, total_steps=99): ("step", ("total_steps", 99)),
        partial(CosineAnnealingLR): ("step", ("T_max", 10)),
        partial(CosineAnnealingLR, T_max=7): ("epoch", ("T_max", 7)),
    }
    for scheduler, (interval, (name, length)) in schedules.items():
        trainer, _ = fitted(training.build_data(composed()), tmp_path, {}, scheduler=scheduler)
        (config,) = trainer.lr_scheduler_configs
        assert (config.interval, getattr(config.scheduler, name)) == (interval, length)


@pytest.mark.filterwarnings("ignore")
def test_what_a_plateau_looks_at_can_be_changed(composed: Compose, tmp_path: Path) -> None:
    model = Autoencoder(network=MLP(hidden=[8]), code_dim=2, scheduler=ReduceLROnPlateau)
    model.monitor = "val/loss"
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    trainer.fit(model, training.build_data(composed()))
    (config,) = trainer.lr_scheduler_configs
    assert isinstance(config.scheduler, ReduceLROnPlateau)
    assert config.scheduler.best == pytest.approx(float(trainer.callback_metrics["val/loss"]))


@pytest.mark.filterwarnings("ignore")
def test_a_schedule_without_an_end_is_refused(composed: Compose, tmp_path: Path) -> None:
    endless = {"max_epochs": -1, "max_time": "00:00:00:10"}
    with pytest.raises(UserError, match=r"set trainer\.max_epochs or trainer\.max_steps, or scheduler="):
        fitted(training.build_data(composed()), tmp_path, endless)
