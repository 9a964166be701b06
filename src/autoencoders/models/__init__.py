"""The LightningModules: one shared base, one short class a variant."""

from autoencoders.models.autoencoder import Autoencoder, LinearAutoencoder
from autoencoders.models.base import BaseAutoencoder, BaseModel
from autoencoders.models.colorization import ColorizationAutoencoder
from autoencoders.models.cvae import CVAE
from autoencoders.models.denoising import DenoisingAutoencoder
from autoencoders.models.iwae import IWAE
from autoencoders.models.restoration import Restoration
from autoencoders.models.tc_vae import TCVAE
from autoencoders.models.vae import VAE
from autoencoders.models.wae import WAE

__all__ = [
    "CVAE",
    "IWAE",
    "TCVAE",
    "VAE",
    "WAE",
    "Autoencoder",
    "BaseAutoencoder",
    "BaseModel",
    "ColorizationAutoencoder",
    "DenoisingAutoencoder",
    "LinearAutoencoder",
    "Restoration",
]
