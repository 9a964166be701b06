"""The LightningModules: one shared base, one short class a variant."""

from autoencoders.models.aae import AAE
from autoencoders.models.acai import ACAI
from autoencoders.models.autoencoder import Autoencoder, LinearAutoencoder
from autoencoders.models.base import BaseAutoencoder, BaseModel
from autoencoders.models.colorization import ColorizationAutoencoder
from autoencoders.models.denoising import DenoisingAutoencoder
from autoencoders.models.fsq import FSQ
from autoencoders.models.restoration import Restoration
from autoencoders.models.vae import VAE
from autoencoders.models.vq_vae import VQVAE
from autoencoders.models.wae import WAE

__all__ = [
    "AAE",
    "ACAI",
    "FSQ",
    "VAE",
    "VQVAE",
    "WAE",
    "Autoencoder",
    "BaseAutoencoder",
    "BaseModel",
    "ColorizationAutoencoder",
    "DenoisingAutoencoder",
    "LinearAutoencoder",
    "Restoration",
]
