"""Vivid colorization, as a choice among classes of colour."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from autoencoders import checks
from autoencoders.colours import (
    annealed_mean,
    bins,
    class_weights,
    enlarged,
    from_lab,
    in_gamut,
    soft_encoded,
    to_lab,
    with_luma,
)
from autoencoders.data.pairs import Batch, Images, to_float
from autoencoders.kept import check_lightness
from autoencoders.metrics import with_gain
from autoencoders.models.base import ADAMW, BaseModel, Terms, of_part
from autoencoders.networks import ClassifyingNetwork, Shape, UNet

COUNTED, BLOCK = 5000, 500  # training images whose colours are counted, and at a time


class ColorizationClasses(BaseModel):
    """Which of some hundred colours each patch of a gray image has (Zhang et al. 2016). The mean of what it
    could have is brown; a distribution can be sharpened first. The lightness is the input's.

    Args:
        network: gives logits for patches; `networks.UNet()` if None.
        input_shape: (1, H, W).
        target_shape: (3, H, W).
        bin_size: side of the squares of the plane of a* and b* that are the classes, 5..50; 10 in the paper.
        uniform_weight: λ of `colours.class_weights`, 0..1: the rarer a colour the more it counts; 1: all
            count the same.
        temperature: T of the annealed mean, 1e-3..1; 1: the mean itself.
        optimizer: `ADAMW` at a learning rate of 2e-3 if None, as the network is not normalised.
        scheduler: as for `BaseModel`.
    """

    any_size = True
    evaluations = ("colorization",)
    row_titles: ClassVar[dict[str, str]] = {
        "clean": "ground truth",
        "corrupted": "gray input",
        "reconstruction": "predicted colour",
    }

    centres: Tensor
    importance: Tensor

    def __init__(
        self,
        network: ClassifyingNetwork | None = None,
        input_shape: Shape = (1, 32, 32),
        target_shape: Shape = (3, 32, 32),
        bin_size: float = 15.0,
        uniform_weight: float = 0.5,
        temperature: float = 0.38,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
    ) -> None:
        checks.number("bin_size", bin_size, at_least=5, at_most=50)
        checks.number("uniform_weight", uniform_weight, at_least=0, at_most=1)
        checks.number("temperature", temperature, at_least=1e-3, at_most=1)
        optimizer = optimizer or partial(ADAMW, lr=2e-3)
        super().__init__(input_shape, target_shape, optimizer=optimizer, scheduler=scheduler)
        network = network or UNet()
        if not hasattr(network, "classifier"):
            raise ValueError(
                f"network={type(network).__name__} gives no classes of patches, which ColorizationClasses "
                "needs: use network=unet, or model=colorization"
            )
        self.width, self.uniform_weight, self.temperature = bin_size / 2, uniform_weight, temperature
        self.register_buffer("centres", bins(bin_size))  # (K, 2)
        self.register_buffer("importance", torch.ones(len(self.centres)))  # of a patch, by its class
        with of_part("network"):
            self.classifier = network.classifier(self.input_shape, len(self.centres))
        self.patch: int = getattr(self.classifier, "patch", 1)
        self.check_optimization()

    def check_data(self, data: LightningDataModule) -> None:
        """Also for data that does not pair gray, whose lightness can be kept, with colour."""
        super().check_data(data)
        channels = (self.input_shape[0], self.target_shape[0])
        if channels != (1, 3):
            raise ValueError(
                f"model=colorization_classes can't colour {type(data).__name__}, "
                f"{channels[0]} channels in and {channels[1]} out: use data=cifar10_gray"
            )
        check_lightness(data, "model=colorization_classes")

    def setup(self, stage: str) -> None:
        """Also counts the colours of training images, as rare ones are to count for more."""
        super().setup(stage)
        train = getattr(getattr(self.trainer, "datamodule", None), "train", None)
        if stage == "fit" and isinstance(train, Images):
            self.weigh(train.images[:COUNTED])

    def weigh(self, images: Tensor) -> None:
        """Makes the classes as important as is right for training images (N, 3, H, W), uint8."""
        counts = torch.zeros(len(self.centres))
        centres = self.centres.cpu().float()
        for part in images.split(BLOCK):
            index, weights = soft_encoded(self.colours_of(to_float(part)).flatten(0, 2), centres, self.width)
            counts.index_add_(0, index.flatten(), weights.flatten())
        self.importance.copy_(class_weights(counts / counts.sum(), centres, self.width, self.uniform_weight))

    def colours_of(self, images: Tensor) -> Tensor:
        """a* and b* of the patches of images (B, 3, H, W); (B, h, w, 2)."""
        patches = F.avg_pool2d(images, self.patch, ceil_mode=True)
        return to_lab(patches)[:, 1:].permute(0, 2, 3, 1)

    def output(self, corrupted: Tensor) -> Tensor:
        """Logits (B, K, h, w)."""
        logits: Tensor = self.classifier(self.in_weights_type(corrupted)).float()
        return logits

    def forward(self, corrupted: Tensor) -> Tensor:
        """r, of gray images (B, 1, H, W) of any height and width."""
        ab = annealed_mean(self.output(corrupted), self.centres.float(), self.temperature)
        lightness = to_lab(corrupted.expand(-1, 3, -1, -1))[:, :1]
        coloured = from_lab(torch.cat([lightness, enlarged(ab, *corrupted.shape[-2:])], dim=1))
        return in_gamut(corrupted, with_luma(corrupted, coloured))

    def terms(self, batch: Batch) -> Terms:
        """The cross-entropy of each patch's class, summed over patches."""
        log_p = self.output(batch.corrupted).log_softmax(1)
        ab = self.colours_of(batch.clean)
        index, weights = (
            part.view(*ab.shape[:3], -1).permute(0, 3, 1, 2)
            for part in soft_encoded(ab.flatten(0, 2), self.centres.float(), self.width)
        )
        cross_entropy = -(weights * log_p.gather(1, index)).sum(1) * self.importance[index[:, 0]]
        return Terms({"cross_entropy": cross_entropy.flatten(1).sum(1)})

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """Adds `gain_db`: the dB of PSNR by which the reconstruction is better than the gray image."""
        metrics = super().image_metrics(batch, reconstruction)
        return with_gain(metrics, batch.input_as_output, batch.clean)

    def references(self, batch: Batch) -> dict[str, Tensor]:
        """The gray input, shown as RGB."""
        return {"gray as RGB": batch.input_as_output}
