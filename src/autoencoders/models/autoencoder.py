"""The undercomplete autoencoder, and the linear one, which PCA solves."""

from autoencoders.models.base import BaseAutoencoder


class Autoencoder(BaseAutoencoder):
    """h = f(x), r = g(h), with a code much smaller than x (Hinton & Salakhutdinov 2006)."""


class LinearAutoencoder(BaseAutoencoder):
    """With network=linear: f and g are affine, so its code must span PCA's subspace (Baldi & Hornik 1989)."""

    bounded = False
    affine = True
