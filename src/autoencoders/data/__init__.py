"""From bytes to pairs (x̃, x)."""

from autoencoders.data.folders import ImageFolder, SamplePhotos
from autoencoders.data.modules import CIFAR10, MNIST, FashionMNIST, GrayCIFAR10, ImageDataModule, NoisyMNIST
from autoencoders.data.pairs import Batch
from autoencoders.data.stream import ImageStream

__all__ = [
    "CIFAR10",
    "MNIST",
    "Batch",
    "FashionMNIST",
    "GrayCIFAR10",
    "ImageDataModule",
    "ImageFolder",
    "ImageStream",
    "NoisyMNIST",
    "SamplePhotos",
]
