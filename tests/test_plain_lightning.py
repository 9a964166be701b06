"""The models without Hydra, in a script of one's own with Lightning's Trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything

from autoencoders.corruption import Gaussian
from autoencoders.data import MNIST, GrayCIFAR10, ImageDataModule
from autoencoders.models import (
    VAE,
    Autoencoder,
    BaseModel,
    ColorizationAutoencoder,
    DenoisingAutoencoder,
    Restoration,
)
from autoencoders.networks import UNet

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES: dict[str, Any] = {"batch_size": 16, "eval_batch_size": 16, "validation_size": 30}


def test_a_script(data_root: Path, tmp_path: Path) -> None:
    seed_everything(0)
    data = MNIST(str(data_root), 16, eval_batch_size=16, validation_size=30)
    model = Autoencoder(code_dim=2)
    trainer = Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, enable_progress_bar=False)
    trainer.fit(model, data)
    (scores,) = trainer.test(model, data)
    assert set(scores) == {"test/mse", "test/mae", "test/psnr", "test/ssim"}
    (path,) = tmp_path.rglob("*.ckpt")
    again = Autoencoder.load_from_checkpoint(path, weights_only=True)
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(again.cpu()(images), model.cpu()(images))


@pytest.mark.parametrize(
    "options",
    [
        {"fast_dev_run": True},
        {"barebones": True},
        {"max_steps": 3},
        {"log_every_n_steps": 1, "logger": False, "precision": "bf16-mixed", "gradient_clip_val": 1.0},
        {"num_sanity_val_steps": 0, "accumulate_grad_batches": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["vae", "denoising", "colorization", "restoration"])
def test_arguments_of_the_trainer(
    kind: str, options: dict[str, Any], data_root: Path, tmp_path: Path
) -> None:
    model: BaseModel = VAE(code_dim=2)
    data: ImageDataModule = MNIST(str(data_root), **SIZES)
    if kind in ("denoising", "restoration"):
        model, data = (
            DenoisingAutoencoder() if kind == "denoising" else Restoration(UNet(widths=[4, 8])),
            MNIST(str(data_root), corruption=Gaussian(0.5, 0.5, True), **SIZES),
        )
    if kind == "colorization":
        model = ColorizationAutoencoder(code_dim=4)
        data = GrayCIFAR10(str(data_root), input="gray", target="color", **SIZES)
    before = [weights.clone() for weights in model.parameters()]
    quiet: dict[str, Any] = (
        {} if "barebones" in options else {"enable_progress_bar": False, "default_root_dir": tmp_path}
    )
    Trainer(**{"max_epochs": 1, "accelerator": "cpu", **quiet, **options}).fit(model, data)
    assert all(weights.isfinite().all() for weights in model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_sanity_check_leaves_no_trace_in_the_scores(data_root: Path, tmp_path: Path) -> None:
    def val_mse(steps: int) -> float:
        seed_everything(0)
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            default_root_dir=tmp_path,
            num_sanity_val_steps=steps,
            logger=False,
        )
        trainer.fit(Autoencoder(code_dim=2), MNIST(str(data_root), **SIZES))
        return float(trainer.callback_metrics["val/mse"])

    assert val_mse(2) == val_mse(0)


def test_data_that_the_model_cannot_train_on_is_refused(data_root: Path, tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path, logger=False)
    with pytest.raises(ValueError, match="nothing to denoise"):
        trainer.fit(DenoisingAutoencoder(), MNIST(str(data_root), **SIZES))
    with pytest.raises(ValueError, match=r"input_shape=\[1, 28, 28\] must be \[1, 32, 32\]"):
        trainer.fit(Autoencoder(), GrayCIFAR10(str(data_root), input="gray", target="color", **SIZES))
