"""Restoration without a bottleneck, for images of any size."""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from lightning import LightningDataModule
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from autoencoders import checks
from autoencoders.colours import in_gamut, with_luma
from autoencoders.data.pairs import Batch
from autoencoders.kept import check_known, check_lightness, with_known
from autoencoders.likelihoods import LIKELIHOODS
from autoencoders.losses import with_slope
from autoencoders.metrics import with_gain
from autoencoders.models.base import ADAMW, BaseModel, Terms, is_unchanged, of_part
from autoencoders.networks import RestorationNetwork, Shape, UNet


class Restoration(BaseModel):
    """r = f(x̃), trained against the clean x without any code between them (after Zhang et al. 2017, DnCNN).

    Args:
        network: `networks.UNet()` if None.
        likelihood: "gaussian", "laplace" and their like, whose mean is what the network gives: limited to
            [0, 1], but in the loss; "bernoulli" or "continuous_bernoulli", whose logits it gives.
        optimizer: `ADAMW` at a learning rate of 4e-3 if None, as the network is not normalised.
        keep_known: r is x̃ itself where that was not hidden: where it is in [0, 1].
        keep_lightness: r has the luma of x̃, which is gray: r = x̃ + f(x̃) − luma(f(x̃)).
        input_shape, target_shape, likelihood_std, scheduler: as for `BaseModel`.
    """

    any_size = True
    weighs_pixels = True
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
        keep_known: bool = False,
        keep_lightness: bool = False,
    ) -> None:
        checks.boolean("keep_known", keep_known)
        checks.boolean("keep_lightness", keep_lightness)
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
        self.keep_known, self.keep_lightness = keep_known, keep_lightness
        self.check_optimization()

    def check_data(self, data: LightningDataModule) -> None:
        """Also for data whose images are what they should become, or don't tell what is to be kept."""
        super().check_data(data)
        if is_unchanged(data) and self.input_shape == self.target_shape:
            raise ValueError(
                "corruption=none leaves model=restoration nothing to restore: choose a corruption, such as "
                "corruption=gaussian, or data=cifar10_gray, or data.supervision=noise2void for images that "
                "are noisy themselves"
            )
        if self.keep_known:
            check_known(data)
        if self.keep_lightness and not self.colours:
            raise ValueError(
                f"model.keep_lightness=true is for gray images to be coloured, not for "
                f"{self.input_shape[0]} channels in and {self.target_shape[0]} out: use data=cifar10_gray"
            )
        if self.keep_lightness:
            check_lightness(data)

    def output(self, corrupted: Tensor) -> Tensor:
        """What the likelihood is given by, (B, C, H, W)."""
        output: Tensor = self.restorer(self.in_weights_type(corrupted)).float()
        return output

    def restored(self, corrupted: Tensor) -> Tensor:
        """r, before it is brought into [0, 1]."""
        pixels = self.likelihood.mean(self.output(corrupted))
        if self.keep_lightness:
            pixels = with_luma(corrupted, pixels)
        return with_known(corrupted, pixels) if self.keep_known else pixels

    def forward(self, corrupted: Tensor) -> Tensor:
        """r, of images (B, C, H, W) of any height and width."""
        restored = self.restored(corrupted)
        return in_gamut(corrupted, restored) if self.keep_lightness else restored.clamp(0, 1)

    def terms(self, batch: Batch) -> Terms:
        """−log p(x|x̃): of all pixels, but learnt of each as it counts."""
        likelihood, given = self.likelihood, self.output
        if self.keep_known or self.keep_lightness:
            likelihood, given = likelihood.of_pixels(), self.restored
        output = with_slope(given(batch.corrupted), batch.weights)
        return Terms({"nll": likelihood.nll(output, batch.clean, self.gathered)})

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """Adds `gain_db`: the dB of PSNR by which the reconstruction is better than x̃ itself."""
        metrics = super().image_metrics(batch, reconstruction)
        return with_gain(metrics, batch.input_as_output, batch.clean)

    def references(self, batch: Batch) -> dict[str, Tensor]:
        """Of gray images to be coloured, these, shown as RGB."""
        return {"gray as RGB": batch.input_as_output} if self.colours else {}
