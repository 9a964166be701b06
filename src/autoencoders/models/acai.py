"""The adversarially constrained autoencoder, whose interpolations look real."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.models.base import BaseAutoencoder, Terms, code_places, of_part, with_rate_of_part
from autoencoders.networks import Conv, Network

REAL = 0.2  # γ, the share of the image itself in what the critic must take for real


class ACAI(BaseAutoencoder):
    """A critic guesses how much of another image's code is in the code that an image was decoded from, and
    the autoencoder makes it guess 0 (Berthelot et al. 2019). The other image is the one before in the global
    batch.

    Args:
        network: `networks.Conv()` if None. The critic is another one of its encoders, whose features are
            averaged.
        adversarial_weight: λ, what the critic's guesses weigh for the autoencoder, 0..1e9. (The paper's 0.5
            is relative to the mean over pixels: here that is half their number.)
        critic_lr: the critic's own learning rate, > 0.
        **base: as for `BaseAutoencoder`.
    """

    couples_batch = True

    def __init__(
        self,
        network: Network | None = None,
        adversarial_weight: float = 400.0,
        critic_lr: float = 2e-3,
        **base: Any,
    ) -> None:
        network = network or Conv()
        checks.number("adversarial_weight", adversarial_weight, at_least=0, at_most=10**9)
        checks.number("critic_lr", critic_lr, above=0)
        self.critic_lr = critic_lr
        super().__init__(network=network, **base)
        self.weights["guess"] = adversarial_weight
        with of_part("network"):
            self.critic = network.encoder(self.target_shape, code_places(network, self.target_shape))

    def parameter_groups(self) -> Iterable[Any]:
        """The critic's learning rate is its own."""
        return with_rate_of_part(self, "critic", self.critic_lr)

    def terms(self, batch: Batch) -> Terms:
        """Beside the reconstruction, `critic`: the squared errors of the critic's guesses, of mixed codes'
        images and of images and their reconstructions mixed, which are 0; and `guess`: the square of what
        the autoencoder makes it guess."""
        code = self.encode(batch.corrupted).float()
        output = self.output(code)
        share = batch.noise.uniform(len(code)) / 2
        mixed = torch.lerp(code, self._others(code), share.view(-1, *[1] * (code.ndim - 1)))
        images = self.likelihood.mean(self.output(mixed))
        real = torch.lerp(self.likelihood.mean(output), batch.clean, REAL).detach()
        critic = dict(self.critic.named_parameters())
        of_images = self._guess(images.detach(), critic)
        of_frozen = self._guess(images, {name: weight.detach() for name, weight in critic.items()})
        return Terms(
            {
                "nll": self.reconstruction_loss(output, batch),
                "critic": (of_images - share).square() + self._guess(real, critic).square(),
                "guess": of_frozen.square(),
            }
        )

    def _others(self, code: Tensor) -> Tensor:
        """The code (B, ...) of the image before each one of this process, in the global batch."""
        world_size = 1 if self._trainer is None else self._trainer.world_size
        everyone = self.gathered(code)
        mine = self.global_rank + world_size * torch.arange(len(code), device=code.device)
        return everyone[(mine - 1) % len(everyone)]

    def _guess(self, images: Tensor, critic: Mapping[str, Tensor]) -> Tensor:
        """What a critic with these weights guesses of images (B, C, H, W): (B,)."""
        features: Tensor = torch.func.functional_call(self.critic, dict(critic), self.in_weights_type(images))
        return features.float().flatten(1).mean(1)
