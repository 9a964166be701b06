"""The conditional variational autoencoder."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor, nn
from torch.nn import functional as F

from autoencoders import checks
from autoencoders.data.pairs import Batch
from autoencoders.losses import diagonal_normal, kl_to_standard_normal, reparameterise
from autoencoders.models.base import BaseAutoencoder, Coded, code_shape
from autoencoders.networks import Conv, Network, Shape
from autoencoders.randomness import Randomness


class CVAE(BaseAutoencoder):
    """A variational autoencoder whose decoder is told the class: its code is [h, y], where h is left what the
    class does not say, as in M2 of Kingma et al. 2014 with all images labelled (Sohn et al. 2015).

    In training y is the image's label, one-hot. As images without a label are to be encoded too, the encoder
    learns to give the classes' probabilities, which are y then. So a code is (code_dim + classes,), or has so
    many more channels at each of its places, and goes through `decode` as any other.

    Args:
        classes: how many there are, 2..10,000.
        label_weight: weighs `label`, the cross-entropy of the encoder's probabilities, 0..1e6.
        beta: weighs the KL of h to its prior N(0, 1), likewise; the more, the less of the class is left to h.
            Both are logged unweighted.
        code_dim: numbers in h.
        likelihood: as for `BaseModel`.
        **base: as for `BaseAutoencoder`.
    """

    evaluations = ("classes",)
    features_per_code = 2

    def __init__(
        self,
        classes: int = 10,
        label_weight: float = 10.0,
        beta: float = 4.0,
        network: Network | None = None,
        input_shape: Shape = (1, 28, 28),
        code_dim: int = 16,
        likelihood: str = "bernoulli",
        **base: Any,
    ) -> None:
        checks.integer("classes", classes, at_least=2, at_most=10_000)
        checks.number("label_weight", label_weight, at_least=0, at_most=10**6)
        checks.number("beta", beta, at_least=0, at_most=10**6)
        network = network or Conv()
        if hasattr(network, "encoder"):  # another one is refused
            network = WithClasses(network, input_shape, classes)
        super().__init__(
            network=network, input_shape=input_shape, code_dim=code_dim, likelihood=likelihood, **base
        )
        self.weights |= {"label": label_weight, "kl": beta}
        self.classes = self.sample_columns = classes
        self.of_h = self.code_shape[0]  # numbers, or channels, that are not of the classes
        self.code_shape = (self.of_h + classes, *self.code_shape[1:])

    def check_data(self, data: LightningDataModule) -> None:
        """Also for data with other classes, or with some of them only."""
        super().check_data(data)
        known = len(getattr(data, "classes", ()))
        if not known:
            raise ValueError(f"model=cvae needs classes to be told, and {type(data).__name__} has none")
        if known != self.classes:
            raise ValueError(
                f"classes={self.classes} must be {known}, as many as {type(data).__name__} has: "
                f"model.classes={known}"
            )
        if getattr(data, "only", ()) or getattr(data, "without", ()):
            raise ValueError("model=cvae learns all classes: leave out data.only and data.without")

    def posterior(self, corrupted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log variance of h, (B, of_h, ...) each, and the classes' logits (B, classes)."""
        features = self.encoder(self.in_weights_type(corrupted)).float()
        mean, log_variance = diagonal_normal(features[:, : 2 * self.of_h])
        at_places = features[:, 2 * self.of_h :].reshape(-1, self.classes, math.prod(self.code_shape[1:]))
        return mean, log_variance, at_places.mean(2)

    def encode(self, corrupted: Tensor) -> Tensor:
        """The mean of h, and the classes' probabilities."""
        mean, _, logits = self.posterior(corrupted)
        return self.joined(mean, logits.softmax(1))

    def joined(self, h: Tensor, of_classes: Tensor) -> Tensor:
        """The code (B, *code_shape) of h and (B, classes), which stand at each of its places."""
        at_places = of_classes.view(*of_classes.shape, *[1] * (h.ndim - 2)).expand(-1, -1, *h.shape[2:])
        return torch.cat([h, at_places], dim=1)

    def coded(self, batch: Batch) -> Coded:
        """A sample of h beside the label; the KL of h; what the encoder knows of the label."""
        mean, log_variance, logits = self.posterior(batch.corrupted)
        h = reparameterise(mean, log_variance, batch.noise.normal(*mean.shape))
        label = F.cross_entropy(logits, batch.labels, reduction="none")
        penalties = {"kl": kl_to_standard_normal(mean, log_variance), "label": label}
        return Coded(self.joined(h, F.one_hot(batch.labels, self.classes).float()), penalties)

    def prior_codes(self, count: int, seed: int, label: int | None = None) -> Tensor:
        """h of N(0, 1) and one class, or each class in turn."""
        noise = Randomness(seed, rows=count, device=self.device)
        if label is not None:
            checks.integer("label", label, at_least=0, at_most=self.classes - 1)
        labels = torch.arange(count, device=self.device) % self.classes
        labels = labels if label is None else torch.full_like(labels, label)
        h = noise.normal(count, self.of_h, *self.code_shape[1:])
        return self.joined(h, F.one_hot(labels, self.classes).float())

    def sample(self, count: int, seed: int, label: int | None = None) -> Tensor:
        """Images (count, C, H, W) of one class, or of each class in turn."""
        return self.decode(self.prior_codes(count, seed, label))


@dataclass(frozen=True)
class WithClasses:
    """A network whose codes and features have so many numbers more, at each of their places."""

    network: Network
    input_shape: Shape
    classes: int

    def code_shape(self, input_shape: Shape, code_dim: int) -> Shape:
        return code_shape(self.network, input_shape, code_dim)

    def encoder(self, input_shape: Shape, features: int) -> nn.Module:
        return self.network.encoder(input_shape, features + self._more(features // 2))

    def decoder(self, code_dim: int, target_shape: Shape) -> nn.Module:
        return self.network.decoder(code_dim + self._more(code_dim), target_shape)

    def _more(self, code_dim: int) -> int:
        return self.classes * math.prod(self.code_shape(self.input_shape, code_dim)[1:])
