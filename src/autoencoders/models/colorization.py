"""The colorization autoencoder."""

from typing import ClassVar

from torch import Tensor

from autoencoders.data.pairs import Batch
from autoencoders.metrics import chroma_squared_error
from autoencoders.models.base import BaseAutoencoder


class ColorizationAutoencoder(BaseAutoencoder):
    """r = g(f(x̃)) where x̃ is the gray image and x the one in colour."""

    evaluations = ("colorization",)
    row_titles: ClassVar[dict[str, str]] = {
        "clean": "ground truth",
        "corrupted": "gray input",
        "reconstruction": "predicted colour",
    }

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """Adds `chroma_mse`: the error of the colour alone, without the luma."""
        chroma = chroma_squared_error(reconstruction, batch.clean)
        return {**super().image_metrics(batch, reconstruction), "chroma_mse": chroma}

    def references(self, batch: Batch) -> dict[str, Tensor]:
        """The gray input, shown as RGB."""
        return {"gray as RGB": batch.unaided}
