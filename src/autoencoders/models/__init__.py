"""The LightningModules: one shared base, one short class a variant."""

from autoencoders.models.autoencoder import Autoencoder, LinearAutoencoder
from autoencoders.models.base import BaseAutoencoder, BaseModel
from autoencoders.models.colorization import ColorizationAutoencoder
from autoencoders.models.colorization_classes import ColorizationClasses
from autoencoders.models.denoising import DenoisingAutoencoder
from autoencoders.models.restoration import Restoration
from autoencoders.models.vae import VAE
from autoencoders.models.wae import WAE

__all__ = [
    "VAE",
    "WAE",
    "Autoencoder",
    "BaseAutoencoder",
    "BaseModel",
    "ColorizationAutoencoder",
    "ColorizationClasses",
    "DenoisingAutoencoder",
    "LinearAutoencoder",
    "Restoration",
]
