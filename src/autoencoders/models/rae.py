"""The regularized autoencoder."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import squared_jacobian
from autoencoders.models.base import BaseAutoencoder, Coded

REGULARIZERS = ("l2", "gp", "sn")
LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class RAE(BaseAutoencoder):
    """A deterministic autoencoder whose codes are small and whose decoder is smooth, so that it can be
    sampled from a density that is fitted to its codes (Ghosh et al. 2020).

    Args:
        regularizer: what makes the decoder smooth: "l2", the sum of its squared weights is a penalty; "gp",
            ‖J‖²_F is, J being its Jacobian at each code, estimated from one random direction; "sn", its
            layers are divided by their spectral norms (Miyato et al. 2018), without any penalty.
        code_weight: what ½‖h‖², `code`, is multiplied by in the loss, 0..1e6.
        decoder_weight: what the penalty of "l2" or "gp", `decoder`, is multiplied by, 0..1e6. Both are logged
            unweighted.
        **base: as for `BaseAutoencoder`.
    """

    def __init__(
        self, regularizer: str = "gp", code_weight: float = 0.1, decoder_weight: float = 0.01, **base: Any
    ) -> None:
        checks.choice("regularizer", regularizer, REGULARIZERS)
        checks.number("code_weight", code_weight, at_least=0, at_most=10**6)
        checks.number("decoder_weight", decoder_weight, at_least=0, at_most=10**6)
        super().__init__(**base)
        self.regularizer = regularizer
        self.weights |= {"code": code_weight, "decoder": decoder_weight}
        if regularizer == "sn":
            for layer in [layer for layer in self.decoder.modules() if isinstance(layer, LAYERS)]:
                spectral_norm(layer)

    def coded(self, batch: Batch) -> Coded:
        """The code, half its squared length, and what the decoder's smoothness costs."""
        code = self.encode(batch.corrupted)
        penalties = {"code": code.float().square().flatten(1).sum(1) / 2}
        if self.regularizer == "l2":
            penalties["decoder"] = sum_of_squares(self.decoder)
        elif self.regularizer == "gp":
            direction = batch.noise.normal(*batch.clean.shape)
            penalties["decoder"] = squared_jacobian(self.decode, code, direction)[1]
        return Coded(code, penalties)


def sum_of_squares(module: nn.Module) -> Tensor:
    """Of all its weights, ()."""
    return torch.stack([weight.float().square().sum() for weight in module.parameters()]).sum()
