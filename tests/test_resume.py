"""A run that ends at any moment goes on as though it had not: the same weights, bit for bit, and metrics."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Compose
from lightning import Trainer

from autoencoders import training
from autoencoders.checkpoints import Checkpoints


def same(one: Any, two: Any) -> bool:
    """Whether nested containers hold the same tensors and numbers, to the bit."""
    if isinstance(one, Mapping):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else bool(one == two)


def kept(folder: Path) -> dict[str, Any]:
    """What a run leaves: weights, averages and the optimizer's state, of both checkpoints, and its curves."""
    found: dict[str, Any] = {"metrics.csv": (folder / "metrics.csv").read_text()}
    for name in ("best", "last"):
        checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for part in ("seconds", "loops"):
            del checkpoint[part]
        found[name] = checkpoint
    return found


RUNS = {
    "epochs": "trainer.max_epochs=3",
    "average": "trainer.max_epochs=3 ema=0.9",
    "validation inside of epochs": "trainer.max_epochs=2 trainer.val_check_interval=2",
    "validation across epochs": "trainer.max_epochs=9 trainer.max_steps=12 "
    "trainer.check_val_every_n_epoch=null trainer.val_check_interval=3",
    "validation every other epoch": "trainer.max_epochs=4 trainer.check_val_every_n_epoch=2",
    "rows every other step": "trainer.max_epochs=2 trainer.log_every_n_steps=2",
    "part of an epoch": "trainer.max_epochs=3 trainer.limit_train_batches=3",
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS.keys())
def test_every_checkpoint_leads_to_the_same_end(
    options: str, composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... after each step, with the run's folder as a kill after the checkpoint would leave it."""
    cfg = composed("network=mlp", "model=vae", "checkpoint.every_n_minutes=0", *options.split())
    snapshots: list[Path] = []
    save = Checkpoints._save_last

    def save_and_copy(self: Checkpoints, trainer: Trainer) -> None:
        save(self, trainer)
        snapshots.append(tmp_path / f"{len(snapshots)}")
        shutil.copytree(tmp_path / "whole", snapshots[-1])

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "_save_last", save_and_copy)
        training.train(cfg, tmp_path / "whole")
    whole = kept(tmp_path / "whole")
    for snapshot in snapshots:
        cfg.resume = str(snapshot)
        training.train(cfg, snapshot)
        found = kept(snapshot)
        assert found["metrics.csv"] == whole["metrics.csv"], snapshot.name
        assert same(found, whole), snapshot.name
    assert len(snapshots) > 8
