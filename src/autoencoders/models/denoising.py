"""The denoising autoencoder."""

from typing import ClassVar

import torch
from scipy.ndimage import median_filter
from torch import Tensor

from autoencoders.data.pairs import Batch
from autoencoders.metrics import psnr
from autoencoders.models.base import BaseAutoencoder


class DenoisingAutoencoder(BaseAutoencoder):
    """r = g(f(x̃)) trained against the clean x, x̃ ~ C(x̃|x) (Vincent et al. 2008)."""

    rows: ClassVar[dict[str, str]] = {
        "clean": "original",
        "corrupted": "corrupted",
        "reconstruction": "denoised",
    }

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """Adds `gain_db`: the dB of PSNR by which the reconstruction is better than x̃ itself."""
        metrics = super().image_metrics(batch, reconstruction)
        return {**metrics, "gain_db": metrics["psnr"] - psnr(batch.unaided, batch.clean)}

    def references(self, batch: Batch) -> dict[str, Tensor]:
        """The corrupted image left as it is, and a median filter of 3 x 3 pixels."""
        filtered = median_filter(batch.unaided.cpu().numpy(), size=(1, 1, 3, 3))
        return {
            "corrupted image": batch.unaided,
            "median filter": torch.from_numpy(filtered).to(batch.clean.device),
        }
