"""A run folder as training leaves it, made in a moment, for tests that damage it."""

import json
from pathlib import Path

import tiny
import torch
from omegaconf import OmegaConf

from autoencoders import config, runs
from autoencoders.training import build_data, build_model


def make(folder: Path, data_root: Path, *overrides: str) -> Path:
    """An untrained model's run folder."""
    said = [
        *tiny.SMALL,
        f"data.root={data_root}",
        "logger=csv",
        *([] if "model=restoration" in overrides else ["network=linear", "model.code_dim=2"]),
        *overrides,
    ]
    folder.mkdir(parents=True)
    cfg = config.compose_conf(said)
    runs.write_config(folder, cfg, said)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    for name in ("checkpoints", "figures", "evaluation"):
        (folder / name).mkdir()
    state = {"state_dict": build_model(cfg, build_data(cfg)).state_dict(), "epoch": 1, "global_step": 10}
    for name in ("best", "last"):
        torch.save(state, folder / "checkpoints" / f"{name}.ckpt")
    (folder / "metrics.json").write_text(json.dumps({"val/mse": 0.5, "seconds": 1.0, "epochs": 1}))
    (folder / "metrics.csv").write_text("step,val/mse\n9,0.5\n")
    known = {"command": ["train.py"], "started": "today", "versions": {"torch": "2"}, "git": {"commit": None}}
    (folder / "environment.json").write_text(json.dumps(known))
    (folder / "wandb-id.txt").write_text("abc123")
    rows = {"model": {"mse": 0.5}, "PCA 2": {"mse": 0.4}}
    (folder / "evaluation" / "metrics.json").write_text(json.dumps({"reconstruction": rows}))
    return folder
