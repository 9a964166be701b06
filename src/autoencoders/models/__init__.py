"""The LightningModules: one shared base, one short class a variant."""

from autoencoders.models.autoencoder import Autoencoder, LinearAutoencoder
from autoencoders.models.base import BaseAutoencoder
from autoencoders.models.colorization import ColorizationAutoencoder
from autoencoders.models.denoising import DenoisingAutoencoder
from autoencoders.models.vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "BaseAutoencoder",
    "ColorizationAutoencoder",
    "DenoisingAutoencoder",
    "LinearAutoencoder",
]
