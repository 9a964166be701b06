"""The β-TC variational autoencoder."""

from typing import Any

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import (
    kl_decomposition,
    kl_to_standard_normal,
    reparameterise,
)
from autoencoders.models.base import Coded
from autoencoders.models.gaussian_posterior import GaussianPosterior


class TCVAE(GaussianPosterior):
    """A variational autoencoder that weighs the three parts of its KL one by one: β-TCVAE (Chen et al. 2018).

    The parts are estimated by weighted sampling from the global batch, whose sum over the data set needs to
    know how large that is: the trainer's data module tells; without one the batch is taken for all there is.

    Args:
        alpha: weighs `mutual_information`, between images and codes, 0..1e6.
        beta: weighs `total_correlation`, between the numbers of a code, likewise.
        gamma: weighs `dimension_wise_kl`, of each number alone to the prior, likewise.
        **base: as for `GaussianPosterior`.
    """

    couples_batch = True

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
        **base: Any,
    ) -> None:
        for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
            checks.number(name, weight, at_least=0, at_most=10**6)
        super().__init__(**base)
        self.weights |= {"mutual_information": alpha, "total_correlation": beta, "dimension_wise_kl": gamma}
        self.images: int | None = None  # in the training set

    def setup(self, stage: str) -> None:
        super().setup(stage)
        images = getattr(getattr(self.trainer, "datamodule", None), "train", None)
        self.images = None if images is None else len(images)

    def coded(self, batch: Batch) -> Coded:
        """A sample of the posterior, the parts of its KL to the prior N(0, 1), and that itself."""
        mean, log_variance = self.posterior(batch.corrupted)
        code = reparameterise(mean, log_variance, batch.noise.normal(*mean.shape))
        codes, means, log_variances = (self.gathered(part.flatten(1)) for part in (code, mean, log_variance))
        parts = kl_decomposition(codes, means, log_variances, self.images or len(codes))
        return Coded(code, parts, {"kl": kl_to_standard_normal(mean, log_variance)})
