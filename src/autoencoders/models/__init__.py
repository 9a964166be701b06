"""The LightningModules: one shared base, one short class a variant."""

from autoencoders.models.aae import AAE
from autoencoders.models.acai import ACAI
from autoencoders.models.autoencoder import Autoencoder, LinearAutoencoder
from autoencoders.models.base import BaseAutoencoder, BaseModel
from autoencoders.models.colorization import ColorizationAutoencoder
from autoencoders.models.colorization_classes import ColorizationClasses
from autoencoders.models.contractive import ContractiveAutoencoder
from autoencoders.models.cvae import CVAE
from autoencoders.models.dec import DEC
from autoencoders.models.denoising import DenoisingAutoencoder
from autoencoders.models.fsq import FSQ
from autoencoders.models.iwae import IWAE
from autoencoders.models.masked import MaskedAutoencoder
from autoencoders.models.rae import RAE
from autoencoders.models.restoration import Restoration
from autoencoders.models.sparse import SparseAutoencoder
from autoencoders.models.stacked import StackedAutoencoder
from autoencoders.models.tc_vae import TCVAE
from autoencoders.models.vae import VAE
from autoencoders.models.vq_vae import VQVAE
from autoencoders.models.wae import WAE

__all__ = [
    "AAE",
    "ACAI",
    "CVAE",
    "DEC",
    "FSQ",
    "IWAE",
    "RAE",
    "TCVAE",
    "VAE",
    "VQVAE",
    "WAE",
    "Autoencoder",
    "BaseAutoencoder",
    "BaseModel",
    "ColorizationAutoencoder",
    "ColorizationClasses",
    "ContractiveAutoencoder",
    "DenoisingAutoencoder",
    "LinearAutoencoder",
    "MaskedAutoencoder",
    "Restoration",
    "SparseAutoencoder",
    "StackedAutoencoder",
]
