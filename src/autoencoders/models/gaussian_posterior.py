"""What variational autoencoders share: the encoder gives a distribution of codes."""

from typing import Any, ClassVar

from torch import Tensor

from autoencoders.losses import diagonal_normal
from autoencoders.models.base import BaseAutoencoder


class GaussianPosterior(BaseAutoencoder):
    """Codes h have a distribution p_enc(h|x) = N(μ(x), σ²(x)) with a diagonal covariance, and the prior
    N(0, 1).

    Args:
        likelihood: as for `BaseModel`; "bernoulli" unless chosen.
        **base: as for `BaseAutoencoder`.
    """

    evaluations = ("likelihood",)
    features_per_code: ClassVar[int] = 2
    normal_prior: ClassVar[bool] = True

    def __init__(self, likelihood: str = "bernoulli", **base: Any) -> None:
        super().__init__(likelihood=likelihood, **base)

    def posterior(self, corrupted: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of p_enc(h|x), (B, *code_shape) each."""
        return diagonal_normal(self.encoder(self.in_weights_type(corrupted)))

    def encode(self, corrupted: Tensor) -> Tensor:
        """The posterior's mean."""
        return self.posterior(corrupted)[0]
