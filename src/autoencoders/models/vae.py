"""The variational autoencoder."""

from typing import Any

from torch import Tensor

from autoencoders.corruption import Noise
from autoencoders.losses import kl_to_standard_normal, reparameterise
from autoencoders.models.base import BaseAutoencoder


class VAE(BaseAutoencoder):
    """Stochastic encoder p_enc(h|x) = N(μ(x), σ²(x)) and decoder p_dec(x|h), trained on −ELBO
    (Kingma & Welling 2014); `beta` weighs the KL term (Higgins et al. 2017), 1 being the bound itself.
    """

    code_parameters = 2
    evaluations = ("likelihood",)

    def __init__(self, beta: float, **base: Any) -> None:
        super().__init__(**base)
        self.beta = beta

    def posterior(self, corrupted: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of p_enc(h|x), (B, code_dim) each."""
        mean, log_variance = self.encoder(corrupted).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 20)  # beyond, its exponential leaves float32's useful range

    def encode(self, corrupted: Tensor) -> Tensor:
        """The posterior's mean."""
        return self.posterior(corrupted)[0]

    def code_and_penalties(self, corrupted: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """A sample by reparameterisation, h = μ + σ ε, and the KL to the prior N(0, 1)."""
        mean, log_variance = self.posterior(corrupted)
        code = reparameterise(mean, log_variance, noise)
        return code, {"kl": self.beta * kl_to_standard_normal(mean, log_variance)}

    def prior_codes(self, count: int, seed: int) -> Tensor:
        return Noise(seed, rows=count, device=self.device).normal(count, self.code_dim)
