"""The undercomplete autoencoder, and the linear one, which PCA solves."""

from typing import Any

from autoencoders.models.base import BaseAutoencoder
from autoencoders.networks import Linear, Network


class Autoencoder(BaseAutoencoder):
    """h = f(x), r = g(h), with a code much smaller than x (Hinton & Salakhutdinov 2006)."""


class LinearAutoencoder(BaseAutoencoder):
    """f and g are affine, so its code must span PCA's subspace (Baldi & Hornik 1989).

    Args:
        network: `networks.Linear()`, and no other.
        likelihood: "gaussian", and no other.
        **base: as for `BaseAutoencoder`.
    """

    affine = True
    bounded = False

    def __init__(self, network: Network | None = None, likelihood: str = "gaussian", **base: Any) -> None:
        if not isinstance(network, Linear | None):
            raise ValueError(
                f"network={type(network).__name__} must be Linear in a linear autoencoder: "
                "use model=autoencoder for another network"
            )
        if likelihood != "gaussian":
            raise ValueError(
                f"likelihood={likelihood} must be gaussian in a linear autoencoder: "
                "use model=autoencoder network=linear for another likelihood"
            )
        super().__init__(network=network or Linear(), likelihood=likelihood, **base)
