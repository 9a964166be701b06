"""The colorization autoencoder."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from lightning import LightningDataModule
from torch import Tensor
from torch.optim import Optimizer

from autoencoders.data.pairs import Batch
from autoencoders.metrics import chroma_squared_error
from autoencoders.models.base import ADAMW, BaseAutoencoder
from autoencoders.networks import Conv, Network, Shape


class ColorizationAutoencoder(BaseAutoencoder):
    """r = g(f(x̃)) where x̃ is the gray image and x the one in colour.

    Args:
        network: if None, convolutions straight to the code, which a hidden layer would only narrow.
        input_shape: (1, H, W).
        target_shape: (3, H, W).
        optimizer: `ADAMW` at a learning rate of 4e-3 if None, as the network is not normalised.
        **base: as for `BaseAutoencoder`.
    """

    evaluations = ("colorization",)
    row_titles: ClassVar[dict[str, str]] = {
        "clean": "ground truth",
        "corrupted": "gray input",
        "reconstruction": "predicted colour",
    }

    def __init__(
        self,
        network: Network | None = None,
        input_shape: Shape = (1, 32, 32),
        target_shape: Shape = (3, 32, 32),
        code_dim: int = 256,
        optimizer: Callable[..., Optimizer] | None = None,
        **base: Any,
    ) -> None:
        super().__init__(
            network=network or Conv(channels=(64, 256), hidden=(), norm=False),
            input_shape=input_shape,
            target_shape=target_shape,
            code_dim=code_dim,
            optimizer=optimizer or partial(ADAMW, lr=4e-3),
            **base,
        )

    def check_data(self, data: LightningDataModule) -> None:
        """Also for data that does not pair gray with colour."""
        super().check_data(data)
        channels = (self.input_shape[0], self.target_shape[0])
        if channels != (1, 3):
            raise ValueError(
                f"model=colorization has nothing to colour in {type(data).__name__}, "
                f"{channels[0]} channels in and {channels[1]} out: use data=cifar10_gray"
            )

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """Adds `chroma_mse`: the error of the colour alone, without the luma."""
        chroma = chroma_squared_error(reconstruction, batch.clean)
        return {**super().image_metrics(batch, reconstruction), "chroma_mse": chroma}

    def references(self, batch: Batch) -> dict[str, Tensor]:
        """The gray input, shown as RGB."""
        return {"gray as RGB": batch.input_as_output}
