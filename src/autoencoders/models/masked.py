"""The masked autoencoder."""

from typing import Any, ClassVar

import torch
from lightning import LightningDataModule
from torch import Tensor

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import with_slope
from autoencoders.models.base import BaseAutoencoder, is_unchanged


class MaskedAutoencoder(BaseAutoencoder):
    """Trained to fill in what a corruption hides: pixels where x̃ is x count less (He et al. 2022; Vincent
    et al. 2010, §4.2).

    Unlike in He et al. the encoder also reads the places of hidden patches, and there is a code.

    Args:
        emphasis: on what is hidden, 0..1: the loss's slope at other pixels is multiplied by 1 − emphasis. 1
            learns from hidden pixels alone, 0 from all alike, as `DenoisingAutoencoder`. `nll` is logged of
            all pixels alike.
        **base: as for `BaseAutoencoder`.
    """

    row_titles: ClassVar[dict[str, str]] = {
        "clean": "original",
        "corrupted": "partly hidden",
        "reconstruction": "filled in",
    }

    def __init__(self, emphasis: float = 0.9, **base: Any) -> None:
        checks.number("emphasis", emphasis, at_least=0, at_most=1)
        super().__init__(**base)
        self.emphasis = emphasis

    def check_data(self, data: LightningDataModule) -> None:
        """Also for data of which nothing is hidden, or that does not tell what is."""
        super().check_data(data)
        if (supervision := getattr(data, "supervision", "clean")) != "clean":
            raise ValueError(
                f"model=masked takes for hidden what differs from the target, which under "
                f"data.supervision={supervision} is all: use model=denoising"
            )
        if is_unchanged(data):
            raise ValueError(
                "corruption=none leaves model=masked nothing to fill in: choose a corruption, such as "
                "corruption=hidden_patches, or model=autoencoder"
            )

    def reconstruction_loss(self, output: Tensor, batch: Batch) -> Tensor:
        """−log p_dec(x|h), whose slope is weighted."""
        slope = torch.where(hidden(batch), 1.0, 1 - self.emphasis)
        return super().reconstruction_loss(with_slope(output, slope), batch)

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """Adds `hidden_mse`: the error of hidden pixels alone; 0 where none is."""
        mask = hidden(batch).expand_as(batch.clean).float().flatten(1)
        squared = (reconstruction - batch.clean).square().flatten(1)
        metrics = super().image_metrics(batch, reconstruction)
        return {**metrics, "hidden_mse": (squared * mask).sum(1) / mask.sum(1).clamp(min=1)}


def hidden(batch: Batch) -> Tensor:
    """Where x̃ is not x, in any channel: (B, 1, H, W), boolean."""
    return (batch.input_as_output != batch.clean).any(dim=1, keepdim=True)
