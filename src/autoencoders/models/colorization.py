"""The colorization autoencoder."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from lightning import LightningDataModule
from torch import Tensor
from torch.optim import Optimizer

from autoencoders import checks
from autoencoders.colours import in_gamut, with_luma
from autoencoders.data.pairs import Batch
from autoencoders.kept import check_lightness
from autoencoders.metrics import chroma_squared_error
from autoencoders.models.base import ADAMW, BaseAutoencoder
from autoencoders.networks import Conv, Network, Shape


class ColorizationAutoencoder(BaseAutoencoder):
    """r = x̃ + c − luma(c) where x̃ is the gray image, x the one in colour and c = g(f(x̃)): x̃ tells the
    lightness, so the code only has to tell the colour.

    Args:
        keep_lightness: if false, r is c itself, as in the lecture: everything goes through the code.
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
        keep_lightness: bool = True,
        optimizer: Callable[..., Optimizer] | None = None,
        **base: Any,
    ) -> None:
        checks.boolean("keep_lightness", keep_lightness)
        super().__init__(
            network=network or Conv(channels=(64, 256), hidden=(), norm=False),
            input_shape=input_shape,
            target_shape=target_shape,
            code_dim=code_dim,
            optimizer=optimizer or partial(ADAMW, lr=4e-3),
            **base,
        )
        self.keep_lightness, self.decodes_alone = keep_lightness, not keep_lightness

    def forward(self, corrupted: Tensor) -> Tensor:
        """r, of gray images (B, 1, H, W)."""
        return self.decode_beside(self.encode(corrupted), corrupted)

    def decode(self, code: Tensor) -> Tensor:
        """Codes to images; those of a model that keeps the lightness, which is not in the code, have one of
        ½ everywhere."""
        return self.decode_beside(code, code.new_full((1, 1, 1, 1), 0.5))

    def decode_beside(self, code: Tensor, corrupted: Tensor) -> Tensor:
        """Codes to images whose lightness is that of gray images (1 or B, 1, 1 or H, 1 or W)."""
        colours = super().decode(code)
        if not self.keep_lightness:
            return colours
        gray = corrupted.to(colours)
        return in_gamut(gray, with_luma(gray, colours))

    def reconstruction_loss(self, output: Tensor, batch: Batch) -> Tensor:
        """−log p of r, before it is brought into [0, 1]."""
        if not self.keep_lightness:
            return super().reconstruction_loss(output, batch)
        coloured = with_luma(batch.corrupted, self.likelihood.mean(output))
        return self.likelihood.of_pixels().nll(coloured, batch.clean, self.gathered)

    def check_data(self, data: LightningDataModule) -> None:
        """Also for data that does not pair gray with colour, and for gray whose lightness is not to be
        kept."""
        super().check_data(data)
        channels = (self.input_shape[0], self.target_shape[0])
        if channels != (1, 3):
            raise ValueError(
                f"model=colorization can't colour {type(data).__name__}, "
                f"{channels[0]} channels in and {channels[1]} out: use data=cifar10_gray"
            )
        if self.keep_lightness:
            check_lightness(data)

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """Adds `chroma_mse`: the error of the colour alone, without the luma."""
        chroma = chroma_squared_error(reconstruction, batch.clean)
        return {**super().image_metrics(batch, reconstruction), "chroma_mse": chroma}

    def references(self, batch: Batch) -> dict[str, Tensor]:
        """The gray input, shown as RGB."""
        return {"gray as RGB": batch.input_as_output}
