"""Restoration without a bottleneck, for images of any size."""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from lightning import LightningDataModule
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from autoencoders.data.pairs import Batch
from autoencoders.likelihoods import LIKELIHOODS
from autoencoders.metrics import psnr
from autoencoders.models.base import ADAMW, BaseModel, Terms, is_unchanged, of_part
from autoencoders.networks import RestorationNetwork, Shape, UNet


class Restoration(BaseModel):
    """r = f(x̃), trained against the clean x without any code between them (after Zhang et al. 2017, DnCNN).

    Args:
        network: `networks.UNet()` if None.
        likelihood: "gaussian", "laplace" and their like, whose mean is what the network gives: limited to
            [0, 1], but in the loss; "bernoulli" or "continuous_bernoulli", whose logits it gives.
        optimizer: `ADAMW` at a learning rate of 4e-3 if None, as the network is not normalised.
        input_shape, target_shape, likelihood_std, scheduler: as for `BaseModel`.
    """

    any_size = True
    row_titles: ClassVar[dict[str, str]] = {
        "clean": "original",
        "corrupted": "corrupted",
        "reconstruction": "restored",
    }

    def __init__(
        self,
        network: RestorationNetwork | None = None,
        input_shape: Shape = (1, 28, 28),
        target_shape: Shape | None = None,
        likelihood: str = "gaussian",
        likelihood_std: float = math.sqrt(0.5),
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
    ) -> None:
        optimizer = optimizer or partial(ADAMW, lr=4e-3)
        super().__init__(input_shape, target_shape, likelihood, likelihood_std, optimizer, scheduler)
        if likelihood == "discretized_logistic":
            raise ValueError(
                f"likelihood={likelihood} needs several numbers a pixel, and Restoration has one: "
                "use likelihood=laplace, or model=denoising"
            )
        network = network or UNet()
        if not hasattr(network, "restorer"):
            raise ValueError(
                f"network={type(network).__name__} has a code, and Restoration has none: use network=unet, "
                "or model=denoising"
            )
        with of_part("network"):
            self.restorer = network.restorer(self.input_shape, self.target_shape)
        self.likelihood = LIKELIHOODS[likelihood](likelihood_std, 1, False)
        self.colours = (self.input_shape[0], self.target_shape[0]) == (1, 3)
        self.evaluations = ("colorization",) if self.colours else ()
        self.check_optimization()

    def check_data(self, data: LightningDataModule) -> None:
        """Also for data whose images are what they should become."""
        super().check_data(data)
        if is_unchanged(data) and self.input_shape == self.target_shape:
            raise ValueError(
                "corruption=none leaves model=restoration nothing to restore: choose a corruption, such as "
                "corruption=gaussian, or data=cifar10_gray"
            )

    def output(self, corrupted: Tensor) -> Tensor:
        """What the likelihood is given by, (B, C, H, W)."""
        output: Tensor = self.restorer(self.in_weights_type(corrupted)).float()
        return output

    def forward(self, corrupted: Tensor) -> Tensor:
        """r = f(x̃), for images (B, C, H, W) of any height and width."""
        return self.likelihood.mean(self.output(corrupted)).clamp(0, 1)

    def terms(self, batch: Batch) -> Terms:
        """−log p(x|x̃)."""
        nll = self.likelihood.nll(self.output(batch.corrupted), batch.clean, self.gathered)
        return Terms({"nll": nll})

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """Adds `gain_db`: the dB of PSNR by which the reconstruction is better than x̃ itself."""
        metrics = super().image_metrics(batch, reconstruction)
        return {**metrics, "gain_db": metrics["psnr"] - psnr(batch.input_as_output, batch.clean)}

    def references(self, batch: Batch) -> dict[str, Tensor]:
        """Of gray images to be coloured, these, shown as RGB."""
        return {"gray as RGB": batch.input_as_output} if self.colours else {}
