"""The denoising autoencoder."""

from typing import Any, ClassVar

from lightning import LightningDataModule
from torch import Tensor

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.kept import check_known, with_known
from autoencoders.metrics import with_gain
from autoencoders.models.base import BaseAutoencoder, is_unchanged


class DenoisingAutoencoder(BaseAutoencoder):
    """r = g(f(x̃)) trained against the clean x, x̃ ~ C(x̃|x) (Vincent et al. 2008).

    Args:
        keep_known: r is x̃ itself where that was not hidden: where it is in [0, 1].
        **base: as for `BaseAutoencoder`.
    """

    row_titles: ClassVar[dict[str, str]] = {
        "clean": "original",
        "corrupted": "corrupted",
        "reconstruction": "denoised",
    }

    def __init__(self, keep_known: bool = False, **base: Any) -> None:
        checks.boolean("keep_known", keep_known)
        super().__init__(**base)
        self.keep_known = keep_known

    def forward(self, corrupted: Tensor) -> Tensor:
        """r, of x̃ (B, C, H, W)."""
        restored = super().forward(corrupted)
        return with_known(corrupted, restored) if self.keep_known else restored

    def reconstruction_loss(self, output: Tensor, batch: Batch) -> Tensor:
        """−log p of r."""
        if not self.keep_known:
            return super().reconstruction_loss(output, batch)
        restored = with_known(batch.corrupted, self.likelihood.mean(output))
        return self.likelihood.of_pixels().nll(restored, batch.clean, self.gathered)

    def check_data(self, data: LightningDataModule) -> None:
        """Also for data without a corruption, or with one that tells no hidden pixels."""
        super().check_data(data)
        if is_unchanged(data):
            raise ValueError(
                "corruption=none leaves model=denoising nothing to denoise: choose a corruption, such as "
                "corruption=gaussian, or model=autoencoder, or data.supervision=noise2void for images that "
                "are noisy themselves"
            )
        if self.keep_known:
            check_known(data)

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """Adds `gain_db`: the dB of PSNR by which the reconstruction is better than x̃ itself."""
        metrics = super().image_metrics(batch, reconstruction)
        return with_gain(metrics, batch.input_as_output, batch.clean)
