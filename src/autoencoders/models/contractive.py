"""The contractive autoencoder."""

from typing import Any

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import squared_jacobian
from autoencoders.models.base import BaseAutoencoder, Coded


class ContractiveAutoencoder(BaseAutoencoder):
    """The code changes little where the image changes a little: ‖J‖²_F is a penalty, J being the encoder's
    Jacobian at x̃ (Rifai et al. 2011).

    Args:
        jacobian: "stochastic", an unbiased estimate from one random direction; or "exact", which costs as
            many gradients as the code has numbers.
        jacobian_weight: what the penalty is multiplied by in the loss, 0..1e6. `jacobian` is logged
            unweighted.
        **base: as for `BaseAutoencoder`.
    """

    evaluations = ("contraction",)

    def __init__(self, jacobian: str = "stochastic", jacobian_weight: float = 0.1, **base: Any) -> None:
        checks.choice("jacobian", jacobian, ("stochastic", "exact"))
        checks.number("jacobian_weight", jacobian_weight, at_least=0, at_most=10**6)
        super().__init__(**base)
        self.exact = jacobian == "exact"
        self.weights["jacobian"] = jacobian_weight

    def coded(self, batch: Batch) -> Coded:
        """The code, ‖J‖²_F and, as a monitor, its square root."""
        count = len(batch.corrupted)
        direction = None if self.exact else batch.noise.normal(count, *self.code_shape)
        code, squared = squared_jacobian(self.encode, batch.corrupted, direction)
        return Coded(code, {"jacobian": squared}, {"jacobian_norm": squared.mean().sqrt()})
