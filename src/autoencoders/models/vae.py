"""The variational autoencoder."""

from typing import Any

from torch import Tensor

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import kl_of_units, reparameterise
from autoencoders.models.base import Coded
from autoencoders.models.gaussian_posterior import GaussianPosterior


class VAE(GaussianPosterior):
    """Stochastic encoder p_enc(h|x) = N(μ(x), σ²(x)) and decoder p_dec(x|h), trained on −ELBO
    (Kingma & Welling 2014).

    Args:
        beta: weighs the KL term (Higgins et al. 2017), 0..1e6; 1 is the bound itself. `kl` is logged
            unweighted, and whole whatever part of it is penalised.
        warmup_steps: over which β grows from 0 to its value (Sønderby et al. 2016), 0..1e9.
        free_bits: nats, 0..1e6, of the KL of each number of the code, averaged over the batch, that are not
            penalised (Kingma et al. 2016, appendix C.8); None penalises all.
        capacity: nats C, 0..1e6. Not the KL is penalised then but its distance |KL − C|, averaged over the
            batch, where β is the authors' γ (Burgess et al. 2018).
        capacity_steps: over which C grows from 0 to its value, 1..1e9.
        **base: as for `GaussianPosterior`.
    """

    def __init__(
        self,
        beta: float = 1.0,
        warmup_steps: int = 0,
        free_bits: float | None = None,
        capacity: float | None = None,
        capacity_steps: int = 10_000,
        **base: Any,
    ) -> None:
        checks.number("beta", beta, at_least=0, at_most=10**6)
        checks.integer("warmup_steps", warmup_steps, at_least=0, at_most=10**9)
        checks.integer("capacity_steps", capacity_steps, at_least=1, at_most=10**9)
        for name, nats in (("free_bits", free_bits), ("capacity", capacity)):
            if nats is not None:
                checks.number(name, nats, at_least=0, at_most=10**6)
        if capacity is not None and (free_bits is not None or warmup_steps):
            other = f"warmup_steps={warmup_steps}" if free_bits is None else f"free_bits={free_bits}"
            raise ValueError(
                f"capacity={capacity} and {other} both say how much of the KL is free: choose one of them"
            )
        super().__init__(**base)
        self.beta, self.warmup_steps, self.free_bits = beta, warmup_steps, free_bits
        self.capacity, self.capacity_steps = capacity, capacity_steps
        self.couples_batch = free_bits is not None or capacity is not None

    def coded(self, batch: Batch) -> Coded:
        """A sample of the posterior, and its KL to the prior N(0, 1)."""
        mean, log_variance = self.posterior(batch.corrupted)
        code = reparameterise(mean, log_variance, batch.noise.normal(*mean.shape))
        of_units = kl_of_units(mean, log_variance).flatten(1)
        kl, beta = {"kl": of_units.sum(1)}, self.beta * self._grown(self.warmup_steps)
        if self.couples_batch:
            self.weights = {"penalised_kl": beta}
            return Coded(code, {"penalised_kl": self._penalised(self.gathered(of_units).mean(0))}, kl)
        self.weights = {"kl": beta}
        return Coded(code, kl)

    def _penalised(self, of_units: Tensor) -> Tensor:
        """What the loss has instead of the KL, (); `of_units` (D,) are the means over the global batch."""
        if self.capacity is not None:
            return (of_units.sum() - self.capacity * self._grown(self.capacity_steps)).abs()
        return of_units.clamp(min=self.free_bits).sum()

    def _grown(self, steps: int) -> float:
        """From 0 to 1 in so many steps; 1 in validation, else its loss would be small at first."""
        return min(1.0, self.global_step / steps) if steps and self.training else 1.0
