"""On a CUDA GPU (make test-gpu): the CPU's curves, resuming to the bit, the checks, evaluation, loading."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from command import NO_WANDB, OFTEN, column, run, small, train
from conftest import Compose
from test_resume import assert_same

import autoencoders
from autoencoders import training
from autoencoders.errors import UserError
from autoencoders.models import BaseAutoencoder

pytestmark = pytest.mark.gpu
GPU = ["trainer.accelerator=gpu", *NO_WANDB]


@pytest.mark.parametrize("model", ["autoencoder", "linear"])
def test_without_noise_a_gpu_has_the_cpu_s_curve(model: str, data_root: Path, tmp_path: Path) -> None:
    """... in float32, up to rounding, which grows with the steps."""
    for accelerator in ("cpu", "gpu"):
        train(
            data_root,
            tmp_path / accelerator,
            f"model={model}",
            f"trainer.accelerator={accelerator}",
            *NO_WANDB,
        )
    cpu, gpu = (column(tmp_path / accelerator, "train/loss") for accelerator in ("cpu", "gpu"))
    assert math.isclose(cpu[0], gpu[0], rel_tol=2e-3)
    np.testing.assert_allclose(gpu, cpu, rtol=0.15)


@pytest.mark.parametrize("model", ["denoising", "colorization", "vae"])
def test_what_is_drawn_on_a_gpu_trains_as_well(model: str, data_root: Path, tmp_path: Path) -> None:
    """A GPU draws other training noise than a CPU does, and the same validation noise."""
    for accelerator in ("cpu", "gpu"):
        train(
            data_root, tmp_path / accelerator, f"model={model}", "trainer.max_epochs=3",
            f"trainer.accelerator={accelerator}", *NO_WANDB,
        )  # fmt: skip
    cpu, gpu = (column(tmp_path / accelerator, "val/mse") for accelerator in ("cpu", "gpu"))
    assert gpu[-1] < gpu[0]
    assert math.isclose(cpu[-1], gpu[-1], rel_tol=0.3)
    assert json.loads((tmp_path / "gpu" / "environment.json").read_text())["machine"]["gpus"]


@pytest.mark.parametrize("precision", ["auto", "32-true", "16-mixed"])
@pytest.mark.parametrize("network", ["mlp", "conv", "conv optimizer=muon"])
def test_a_killed_run_goes_on_to_the_same_bits(
    network: str, precision: str, data_root: Path, tmp_path: Path
) -> None:
    chosen = [
        *f"network={network}".split(), "model=denoising", "trainer.max_epochs=2",
        f"trainer.precision={precision}", "trainer.deterministic=true", *GPU,
    ]  # fmt: skip
    train(data_root, tmp_path / "whole", *chosen)
    options = small(data_root, tmp_path / "run", *chosen, *OFTEN)
    run("train.py", data_root, *options, fault="kill step 8", ok=False)
    run("train.py", data_root, f"resume={tmp_path / 'run'}")
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_a_non_finite_loss_ends_the_run(composed: Compose, tmp_path: Path) -> None:
    cfg = composed("optimizer.lr=1e30", *GPU)
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step"):
        training.train(cfg, tmp_path)
    for path in tmp_path.glob("checkpoints/*.ckpt"):
        state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
        assert all(weights.isfinite().all() for weights in state.values())


def test_a_run_is_evaluated_and_loaded(data_root: Path, tmp_path: Path) -> None:
    train(data_root, tmp_path / "run", "model=vae", *GPU)
    run("evaluate.py", data_root, f"run={tmp_path / 'run'}")
    trained = json.loads((tmp_path / "run" / "metrics.json").read_text())
    evaluated = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    assert math.isclose(evaluated["reconstruction"]["model"]["mse"], trained["test/mse"], rel_tol=1e-3)
    loaded = autoencoders.load(tmp_path / "run")
    images = np.zeros((3, 28, 28), np.uint8)
    on_cpu = loaded.reconstruct(images)
    assert isinstance(loaded.model, BaseAutoencoder)
    loaded.model.cuda()
    np.testing.assert_allclose(loaded.reconstruct(images), on_cpu, atol=1e-3)


def test_more_gpus_than_there_are_are_refused_in_one_line(data_root: Path, tmp_path: Path) -> None:
    more = torch.cuda.device_count() + 1
    arguments = small(data_root, tmp_path / "run", f"trainer.devices={more}", *GPU)
    done = run("train.py", data_root, *arguments, ok=False)
    assert done.stderr.count("\n") == 1
    assert f"trainer.devices={more}" in done.stderr
    assert not (tmp_path / "run").exists()


def test_profiler_timer_and_device_stats(data_root: Path, tmp_path: Path) -> None:
    train(data_root, tmp_path / "run", "callbacks=[device_stats,timer]", "debug=profiler", *GPU)
    assert list((tmp_path / "run").glob("*profile*.txt"))
