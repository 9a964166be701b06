"""Devices, as far as they can be told without importing torch."""

import os
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from autoencoders import checks
from autoencoders.errors import UserError


@cache
def gpus() -> list[str]:
    """The names of the GPUs that this process may use."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in chosen.split(",") if name.strip()]
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    query = [program, "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    return done.stdout.split() if done.returncode == 0 else []


def check_devices(cfg: DictConfig) -> None:
    """Raises UserError for more devices than there are, and for a batch that can't be split over them."""
    devices = cfg.trainer.devices
    if isinstance(devices, ListConfig):
        devices = len(devices)
    if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
        return  # "auto", -1: Lightning's Trainer knows
    cores, accelerator, on_linux = os.cpu_count() or 1, cfg.trainer.accelerator, sys.platform == "linux"
    if accelerator == "auto" and devices > cores and on_linux:  # fewer may be right, as Lightning knows
        accelerator = "gpu" if gpus() else "cpu"
    if accelerator == "cpu" and devices > cores:
        raise UserError(f"trainer.devices={devices} is more than the {cores} CPU cores of this machine")
    if accelerator in ("gpu", "cuda") and devices > len(gpus()) and on_linux:
        raise UserError(f"trainer.devices={devices} is more than the {len(gpus())} GPUs of this machine")
    nodes = cfg.trainer.get("num_nodes", 1)
    checks.integer("trainer.num_nodes", nodes, 1)
    check_batch_size(cfg.data.get("batch_size"), devices * nodes)


def check_batch_size(batch_size: object, processes: int) -> None:
    """Raises UserError for a global batch that can't be split evenly."""
    if isinstance(batch_size, int) and batch_size % processes:
        raise UserError(
            f"data.batch_size={batch_size} must be divisible by the {processes} devices "
            "(trainer.devices x trainer.num_nodes) that it is split over"
        )


def _cpu_seconds() -> tuple[float, float]:
    """How long the cores of this machine have been busy, and this process has kept them so; (0, 0) where the
    system doesn't say."""
    try:
        user, nice, system = map(float, Path("/proc/stat").read_text().split()[1:4])
    except (OSError, ValueError):
        return 0.0, 0.0
    own = os.times()
    busy = (user + nice + system) / os.sysconf("SC_CLK_TCK")
    return busy, own.user + own.system + own.children_user + own.children_system


def say_if_cores_are_busy(device: str) -> None:
    """Says so where other work has kept the cores busy since this process started: threads that wait for
    each other make two trainings on the same cores 10 to 60 times slower."""
    if device != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return
    busy, own = (now - before for now, before in zip(_cpu_seconds(), _AT_START, strict=True))
    passed, cores = time.monotonic() - _STARTED, os.cpu_count() or 1
    others = (busy - own) / max(passed, 1e-3)
    if passed > 0.5 and others > 0.6:
        print(
            f"note: other work keeps {others:.1f} of the {cores} cores busy; for each of several trainings "
            f"side by side set OMP_NUM_THREADS={max(1, cores // 2)}, or they slow each other down many times",
            flush=True,
        )


_STARTED, _AT_START = time.monotonic(), _cpu_seconds()
