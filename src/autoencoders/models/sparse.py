"""The sparse autoencoder."""

from typing import Any

from torch import Tensor

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import kl_of_rates, largest
from autoencoders.models.base import BaseAutoencoder, Coded

SPARSITY = ("kl", "topk", "l1")


class SparseAutoencoder(BaseAutoencoder):
    """Few units of a large code are active for any one image, so that it need not be smaller than the image.

    Args:
        sparsity: what makes it so.
            "kl": units are sigmoids, and the divergence of each one's mean activation over a batch from
            `rate` is a penalty (Ng 2011, §3).
            "topk": of each image's code the `k` largest numbers stay and the others are 0, without any
            penalty (Makhzani & Frey 2014).
            "l1": units are rectified, and the sum of a code's numbers is a penalty (Olshausen & Field 1996).
        k: numbers of a code that stay, from 1 to all.
        rate: the mean activation that is wanted, between 0 and 1.
        sparsity_weight: what the penalty `sparsity` is multiplied by in the loss, 0..1e6; it is logged
            unweighted.
        **base: as for `BaseAutoencoder`.
    """

    couples_batch = True

    def __init__(
        self,
        sparsity: str = "kl",
        k: int = 25,
        rate: float = 0.05,
        sparsity_weight: float = 0.3,
        code_dim: int = 1024,
        **base: Any,
    ) -> None:
        checks.choice("sparsity", sparsity, SPARSITY)
        if sparsity == "topk":
            checks.integer("k", k, at_least=1, at_most=code_dim)
        checks.number("rate", rate, above=0, below=1)
        checks.number("sparsity_weight", sparsity_weight, at_least=0, at_most=10**6)
        super().__init__(code_dim=code_dim, **base)
        checks.integer("k", k, at_least=1, at_most=self.code_dim if sparsity == "topk" else None)
        self.sparsity, self.k, self.rate = sparsity, k, rate
        self.weights["sparsity"] = sparsity_weight

    def encode(self, corrupted: Tensor) -> Tensor:
        """The code with few units active, (B, *code_shape)."""
        units = super().encode(corrupted).float()
        if self.sparsity == "topk":
            return largest(units.flatten(1), self.k).view_as(units)
        return units.sigmoid() if self.sparsity == "kl" else units.relu()

    def coded(self, batch: Batch) -> Coded:
        """The code, its penalty and how active it is: the mean of sigmoids, or the share that is not 0."""
        code = self.encode(batch.corrupted)
        units = code.flatten(1)
        if self.sparsity == "kl":
            penalty = {"sparsity": kl_of_rates(self.gathered(units).mean(0), self.rate)}
            return Coded(code, penalty, {"activity": units.mean(1)})
        active = {"activity": (units != 0).float().mean(1)}
        return Coded(code, {"sparsity": units.sum(1)} if self.sparsity == "l1" else {}, active)
