"""The textbook pipeline: torchvision's data set, ToTensor, DataLoader, Trainer's defaults, fp32."""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets
from torchvision.transforms import ToTensor
from torchvision.transforms.functional import rgb_to_grayscale

from autoencoders import config, training
from autoencoders.data import sources
from benchmarks.measuring import THREADS, Row, apart, in_turns, steady
from benchmarks.step import WARM, Clock, by_hand, by_trainer, training_data

EPOCHS = 30  # of the lecture's recipe


class MNIST(datasets.MNIST):
    """torchvision's, from the files that are in data/ already."""

    def __init__(self) -> None:
        images, labels = sources.read(
            sources.MNIST, sources.fetch(sources.MNIST, config.REPOSITORY / "data"), train=True
        )
        self.data, self.targets = torch.from_numpy(images[:, 0].copy()), torch.from_numpy(labels.copy())
        self.transform, self.target_transform = ToTensor(), None


class CIFAR10(datasets.CIFAR10):
    """torchvision's, likewise."""

    def __init__(self) -> None:
        images, labels = sources.read(
            sources.CIFAR10, sources.fetch(sources.CIFAR10, config.REPOSITORY / "data"), train=True
        )
        self.data, self.targets = np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels.tolist()
        self.transform, self.target_transform = ToTensor(), None


def lecture_network(channels: int, widths: list[int], code_dim: int, target_channels: int) -> nn.Module:
    """Three convolutions that halve the side, one linear layer, and their mirror."""
    side = 4  # 28 → 14 → 7 → 4 and 32 → 16 → 8 → 4
    paddings = [0, 1, 1] if target_channels == 1 else [1, 1, 1]
    layers: list[nn.Module] = []
    for before, after in zip([channels, *widths], widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    layers += [nn.Flatten(), nn.Linear(widths[-1] * side**2, code_dim)]
    layers += [nn.Linear(code_dim, widths[-1] * side**2), nn.Unflatten(1, (widths[-1], side, side))]
    for before, after, more in zip(widths[::-1], [*widths[-2::-1], target_channels], paddings, strict=True):
        layers += [nn.ReLU(), nn.ConvTranspose2d(before, after, 3, 2, padding=1, output_padding=more)]
    return nn.Sequential(*layers, nn.Sigmoid())


class Textbook(LightningModule):
    """Adam, 1e-3, the mean squared error; logged at every step, as tutorials do."""

    def __init__(self, network: nn.Module, task: str) -> None:
        super().__init__()
        self.network, self.task = network, task

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        clean = corrupted = batch[0]
        if self.task == "denoising":
            corrupted = (clean + torch.normal(0.5, 0.5, clean.shape)).clamp(0, 1)
        if self.task == "colorization":
            corrupted = rgb_to_grayscale(clean)
        loss = F.mse_loss(self.network(corrupted), clean)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS),
        }


def step_seconds(network: nn.Module, task: str, batch_size: int, steps: int, workers: int = 0) -> float:
    """Seconds a step of the textbook pipeline, in the midst of training."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    images: Dataset[Any] = CIFAR10() if task == "colorization" else MNIST()
    loader = DataLoader(images, batch_size=batch_size, shuffle=True, num_workers=workers)
    clock = Clock()
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        trainer = Trainer(max_steps=WARM + steps, callbacks=[clock], default_root_dir=folder)
        trainer.fit(Textbook(network, task), loader)
    return steady(clock.ends, WARM)


def epoch_seconds(task: str, steps: int) -> float:
    """Seconds an epoch of the lecture's recipe with its batches of 64, from some of its steps; its validation
    is left out."""
    colour = task == "colorization"
    network = (
        lecture_network(1, [64, 128, 256], 256, 3) if colour else lecture_network(1, [16, 32, 64], 16, 1)
    )
    return step_seconds(network, task, 64, steps) * (50_000 if colour else 60_000) / 64


class SameNetwork(nn.Module):
    """The encoder and decoder of a configuration of ours, ending in a sigmoid as our likelihood does."""

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__()
        network, data = instantiate(cfg.network, _convert_="all"), training.build_data(cfg)
        self.encoder = network.encoder(data.input_shape, cfg.model.code_dim)
        self.decoder = network.decoder(cfg.model.code_dim, data.target_shape)

    def forward(self, images: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(self.encoder(images)))


def same_network_seconds(chosen: str, steps: int, workers: int) -> float:
    """Seconds a step of the textbook pipeline with the network and the batch that ours has by default."""
    cfg = config.compose_conf([chosen])
    return step_seconds(SameNetwork(cfg), "autoencoder", cfg.data.batch_size, steps, workers)


def rows(quick: bool) -> Iterator[Row]:
    steps = 100 if quick else 300
    for chosen, least in (("model=autoencoder", 2.0), ("experiment=latent_space", 5.0)):
        cfg = config.compose_conf([chosen, "logger=csv", "trainer.accelerator=cpu"])
        data, batch = training_data(cfg), cfg.data.batch_size
        network = cfg.network._target_.rpartition(".")[2].lower()
        took = in_turns(
            1 if quick else 5,
            ours=partial(by_trainer, cfg, data, steps),
            textbook=partial(apart, f"textbook.same_network_seconds({chosen!r}, {steps}, 0)"),
            with_workers=partial(apart, f"textbook.same_network_seconds({chosen!r}, {steps}, {THREADS})"),
            bare=partial(by_hand, cfg, data, steps),
        )
        network = cfg.network._target_.rpartition(".")[2].lower()
        for how, seconds in (("", took["textbook"]), (f" with {THREADS} workers", took["with_workers"])):
            yield Row(
                f"training, same network ({network}) and batch ({batch})",
                f"{batch / took['ours']:,.0f} images/s",
                f"the textbook pipeline{how}: {batch / seconds:,.0f}",
                seconds / took["ours"],
                ("≥", least),
                note=f"a bare loop over ready batches: {seconds / took['bare']:.2g}",
            )
