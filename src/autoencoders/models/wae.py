"""The Wasserstein autoencoder."""

from typing import Any

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import KERNELS, maximum_mean_discrepancy
from autoencoders.models.base import BaseAutoencoder, Coded


class WAE(BaseAutoencoder):
    """A deterministic autoencoder whose codes, all together, are distributed as the prior N(0, 1): WAE-MMD
    (Tolstikhin et al. 2018, algorithm 2).

    Args:
        kernel: of the maximum mean discrepancy between a batch of codes and one of the prior, "imq" or "rbf".
        mmd_weight: what it is multiplied by in the loss, 0..1e9. `mmd` is logged unweighted.
        **base: as for `BaseAutoencoder`.
    """

    couples_batch = True
    normal_prior = True

    def __init__(self, kernel: str = "imq", mmd_weight: float = 200.0, **base: Any) -> None:
        checks.choice("kernel", kernel, tuple(KERNELS))
        checks.number("mmd_weight", mmd_weight, at_least=0, at_most=10**9)
        super().__init__(**base)
        self.kernel = KERNELS[kernel]
        self.weights["mmd"] = mmd_weight

    def coded(self, batch: Batch) -> Coded:
        """The code, and the distance of the batch's codes from the prior's."""
        code = self.encode(batch.corrupted).float()
        prior = batch.noise.normal(*code.shape)
        codes, drawn = (self.gathered(part).flatten(1) for part in (code, prior))
        return Coded(code, {"mmd": maximum_mean_discrepancy(codes, drawn, self.kernel)})
