"""The variational autoencoder."""

from typing import Any

from torch import Tensor

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import kl_to_standard_normal, reparameterise
from autoencoders.models.base import BaseAutoencoder, Coded
from autoencoders.randomness import Randomness


class VAE(BaseAutoencoder):
    """Stochastic encoder p_enc(h|x) = N(μ(x), σ²(x)) and decoder p_dec(x|h), trained on −ELBO
    (Kingma & Welling 2014).

    Args:
        beta: weighs the KL term (Higgins et al. 2017), 0..1e6; 1 is the bound itself. `kl` is logged
            unweighted.
        likelihood: "bernoulli" or "gaussian".
        **base: as for `BaseAutoencoder`.
    """

    evaluations = ("likelihood",)
    features_per_code = 2

    def __init__(self, beta: float = 1.0, likelihood: str = "bernoulli", **base: Any) -> None:
        checks.number("beta", beta, at_least=0, at_most=10**6)
        super().__init__(likelihood=likelihood, **base)
        self.weights["kl"] = beta

    def posterior(self, corrupted: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of p_enc(h|x), (B, *code_shape) each."""
        mean, log_variance = self.encoder(self.in_weights_type(corrupted)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 20)  # beyond, its exponential leaves float32's useful range

    def encode(self, corrupted: Tensor) -> Tensor:
        """The posterior's mean."""
        return self.posterior(corrupted)[0]

    def coded(self, batch: Batch) -> Coded:
        """A sample of the posterior, and its KL to the prior N(0, 1)."""
        mean, log_variance = self.posterior(batch.corrupted)
        code = reparameterise(mean, log_variance, batch.noise.normal(*mean.shape))
        return Coded(code, {"kl": kl_to_standard_normal(mean, log_variance)})

    def prior_codes(self, count: int, seed: int) -> Tensor:
        """Of the prior N(0, 1)."""
        return Randomness(seed, rows=count, device=self.device).normal(count, *self.code_shape)
