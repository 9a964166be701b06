"""The denoising autoencoder."""

from typing import ClassVar

from lightning import LightningDataModule
from torch import Tensor

from autoencoders.data.pairs import Batch
from autoencoders.metrics import psnr
from autoencoders.models.base import BaseAutoencoder, is_unchanged


class DenoisingAutoencoder(BaseAutoencoder):
    """r = g(f(x̃)) trained against the clean x, x̃ ~ C(x̃|x) (Vincent et al. 2008)."""

    row_titles: ClassVar[dict[str, str]] = {
        "clean": "original",
        "corrupted": "corrupted",
        "reconstruction": "denoised",
    }

    def check_data(self, data: LightningDataModule) -> None:
        """Also for data without a corruption."""
        super().check_data(data)
        if is_unchanged(data):
            raise ValueError(
                "corruption=none leaves model=denoising nothing to denoise: choose a corruption, such as "
                "corruption=gaussian, or model=autoencoder"
            )

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """Adds `gain_db`: the dB of PSNR by which the reconstruction is better than x̃ itself."""
        metrics = super().image_metrics(batch, reconstruction)
        return {**metrics, "gain_db": metrics["psnr"] - psnr(batch.input_as_output, batch.clean)}
