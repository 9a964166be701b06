"""The importance-weighted autoencoder."""

import math
from typing import Any

from torch import Tensor

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import (
    kl_to_standard_normal,
    log_importance_weight,
    reparameterise,
)
from autoencoders.models.base import Terms
from autoencoders.models.gaussian_posterior import GaussianPosterior


class IWAE(GaussianPosterior):
    """Encoder and decoder of a variational autoencoder, trained on the bound log 1/k Σ w of log p(x), which
    grows with the number k of samples h of p_enc(h|x); w = p_dec(x|h) p(h) / p_enc(h|x) (Burda et al. 2016).

    Args:
        samples: k, 1..10,000; with 1 it is the ELBO. A step decodes k times as many codes.
        gradient: "standard", or "dreg", the doubly reparameterised one, of the same expectation but, with
            many samples, of less variance (Tucker et al. 2019, eq. 8).
        **base: as for `GaussianPosterior`.
    """

    def __init__(self, samples: int = 5, gradient: str = "standard", **base: Any) -> None:
        checks.integer("samples", samples, at_least=1, at_most=10_000)
        checks.choice("gradient", gradient, ("standard", "dreg"))
        super().__init__(**base)
        self.samples, self.doubly = samples, gradient == "dreg"

    def terms(self, batch: Batch) -> Terms:
        """The negative of the bound, and the KL to the prior N(0, 1)."""
        mean, log_variance = self.posterior(batch.corrupted)
        kl = kl_to_standard_normal(mean, log_variance)
        noise = batch.noise.normal(len(mean), self.samples, *self.code_shape).flatten(0, 1)
        # From here on (B k, ...), the samples of an image one after another.
        mean, log_variance, clean = (
            part.repeat_interleave(self.samples, dim=0) for part in (mean, log_variance, batch.clean)
        )
        weights = batch.weights
        if isinstance(weights, Tensor):
            weights = weights.repeat_interleave(self.samples, dim=0)
        code = reparameterise(mean, log_variance, noise)
        if self.doubly:
            mean, log_variance = mean.detach(), log_variance.detach()
        nll = self.reconstruction_loss(self.output(code), batch._replace(clean=clean, weights=weights))
        log_weights = log_importance_weight(nll, code, mean, log_variance).view(-1, self.samples)
        if self.doubly and code.requires_grad:
            # A weight's gradient by the code counts by the square of its share, by the decoder once.
            shares = log_weights.detach().softmax(1).view(-1, *[1] * (code.ndim - 1))
            code.register_hook(lambda slope: shares * slope)
        bound = log_weights.logsumexp(1) - math.log(self.samples)
        return Terms({"iwae": -bound}, {"kl": kl})
