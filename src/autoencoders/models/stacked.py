"""The stacked autoencoder, whose layers are pretrained one after another."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.optim.optimizer import Optimizer

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.models.base import BaseAutoencoder, Terms
from autoencoders.networks import MLP, Network, fully_connected_layers


class StackedAutoencoder(BaseAutoencoder):
    """Greedy layer-wise pretraining (Hinton & Salakhutdinov 2006; Bengio et al. 2007): first the encoder's
    first layer and the decoder's last learn to reconstruct the image, then the second layer and its mirror
    what the first makes of it, and so on; in the end all learn together. With noise it is a stacked denoising
    autoencoder (Vincent et al. 2010, §3.5).

    Args:
        network: `networks.MLP()` if None. Encoder and decoder must be fully connected layers one after
            another.
        layer_steps: each layer is trained alone for, 0..1e9; None: a third of the training for all of them.
        noise: the fraction of a layer's inputs that are set to 0 while it is trained alone, 0..1; or as many
            of these as there are layers to the code.
        **base: as for `BaseAutoencoder`.
    """

    def __init__(
        self,
        network: Network | None = None,
        layer_steps: int | None = None,
        noise: float | Sequence[float] = 0.0,
        **base: Any,
    ) -> None:
        network = network or MLP()
        if layer_steps is not None:
            checks.integer("layer_steps", layer_steps, at_least=0, at_most=10**9)
        super().__init__(network=network, **base)
        parts = fully_connected_layers(self.encoder), fully_connected_layers(self.decoder)
        if len(parts[0]) != len(parts[1]) or not parts[0]:
            raise ValueError(
                f"network={type(network).__name__} must be fully connected layers one after another, to be "
                "trained one by one: use network=mlp"
            )
        # Each layer with its mirror, from the image to the code; no modules of their own.
        self._pairs = list(zip(parts[0], reversed(parts[1]), strict=True))
        count = len(self._pairs)
        noises = [*noise] if isinstance(noise, Sequence) else [noise] * count
        if len(noises) != count:
            raise ValueError(f"noise={noises} must be one number, or {count}, one for each layer to the code")
        for fraction in noises:
            checks.number("noise", fraction, at_least=0, at_most=1)
        self.layer_steps, self.noises = layer_steps, noises

    @property
    def alone(self) -> int | None:
        """The layer that is trained alone now, from 0; None where all are trained."""
        count = len(self._pairs)
        steps = self.share_of_training(1 / (3 * count)) if self.layer_steps is None else self.layer_steps
        layer = self.global_step // steps if steps else count
        return layer if layer < count else None

    def terms(self, batch: Batch) -> Terms:
        """The loss of the whole, or `layer`: that of the layer that is trained alone, −log p of the image for
        the first, and for others the sum of squared errors of what they read."""
        if (alone := self.alone) is None:
            return super().terms(batch)
        read = self.in_weights_type(batch.corrupted).flatten(1)
        with torch.no_grad():
            for layer, _ in self._pairs[:alone]:
                read = layer(read)
        layer, mirror = self._pairs[alone]
        hidden = batch.noise.uniform(len(read), read.shape[1]) < self.noises[alone]
        output = mirror(layer(read.masked_fill(hidden, 0))).float()
        if alone == 0:
            error = self.reconstruction_loss(output, batch)
        else:
            error = (output - read.float()).square().sum(1)
        # DDP waits for a gradient of every parameter.
        nothing = torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0
        return Terms({"layer": error + nothing})

    def on_train_start(self) -> None:
        """Says so where no step is left for the whole network."""
        alone, steps = (self.layer_steps or 0) * len(self._pairs), self.trainer.estimated_stepping_batches
        if alone >= steps:
            rank_zero_warn(
                f"model.layer_steps={self.layer_steps} for each of {len(self._pairs)} layers leaves none of "
                f"the {steps} steps for the whole network"
            )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leaves the other layers as they are, also by momentum and weight decay."""
        if (alone := self.alone) is None:
            return
        learning: list[nn.Module] = [*self._pairs[alone], *([self.likelihood] if alone == 0 else [])]
        chosen = {parameter for module in learning for parameter in module.parameters()}
        for parameter in self.parameters():
            if parameter not in chosen:
                parameter.grad = None
