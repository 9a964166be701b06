"""The adversarial autoencoder."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import reversed_gradient
from autoencoders.models.base import BaseAutoencoder, Coded, with_rate_of_part
from autoencoders.networks import MLP


class AAE(BaseAutoencoder):
    """A deterministic autoencoder whose codes a critic cannot tell from those of the prior N(0, 1)
    (Makhzani et al. 2016). Both learn in the same step: the critic's gradient is reversed on its way to the
    encoder (Ganin & Lempitsky 2015).

    Args:
        adversarial_weight: what the game weighs for the encoder, 0..1e6.
        critic_hidden: units of each of the critic's two hidden layers, 1..65536.
        critic_lr: the critic's own learning rate, > 0.
        **base: as for `BaseAutoencoder`.
    """

    normal_prior = True

    def __init__(
        self,
        adversarial_weight: float = 5.0,
        critic_hidden: int = 256,
        critic_lr: float = 1.2e-2,
        **base: Any,
    ) -> None:
        checks.number("adversarial_weight", adversarial_weight, at_least=0, at_most=10**6)
        checks.integer("critic_hidden", critic_hidden, at_least=1, at_most=65536)
        checks.number("critic_lr", critic_lr, above=0)
        self.critic_lr = critic_lr
        super().__init__(**base)
        self.adversarial_weight = adversarial_weight
        self.critic = MLP(hidden=(critic_hidden, critic_hidden)).encoder((self.code_dim, 1, 1), 1)

    def parameter_groups(self) -> Iterable[Any]:
        """The critic's learning rate is its own."""
        return with_rate_of_part(self, "critic", self.critic_lr)

    def coded(self, batch: Batch) -> Coded:
        """The code, and the critic's cross-entropy in nats: 2 log 2 where it cannot tell codes from drawn
        ones."""
        code = self.encode(batch.corrupted).float()
        drawn = batch.noise.normal(*code.shape)
        of_codes = self._odds(reversed_gradient(code, self.adversarial_weight))
        cross_entropy = F.softplus(of_codes) + F.softplus(-self._odds(drawn))
        return Coded(code, {"critic": cross_entropy})

    def _odds(self, code: Tensor) -> Tensor:
        """The critic's log odds (B,) that codes are of the prior."""
        odds: Tensor = self.critic(self.in_weights_type(code))
        return odds[:, 0].float()
