"""Pure functions of an autoencoder's objective: likelihoods p_dec(x|h) and divergences of p_enc(h|x).

Everything is a sum over pixels or code numbers, in nats, one value an image (B,); whoever takes the mean over
the batch does it last. So a weight, as β, means the same for every image size and in every file.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from autoencoders.corruption import Noise


class Likelihood(Protocol):
    """p_dec(x|h), given by the decoder's raw output (B, C, H, W)."""

    def mean(self, output: Tensor) -> Tensor:
        """The reconstruction: the expected image (B, C, H, W)."""
        ...

    def nll(self, output: Tensor, clean: Tensor) -> Tensor:
        """−log p_dec(clean|h), (B,) nats."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """N(x; mean, std²). With std = √½ it is the sum of squared errors plus a constant: the lecture's MSE.

    The mean is the sigmoid of the output, which keeps it among the pixels that there can be, or for
    `bounded=False` the output itself.
    """

    std: float
    bounded: bool = True

    def mean(self, output: Tensor) -> Tensor:
        return output.sigmoid() if self.bounded else output

    def nll(self, output: Tensor, clean: Tensor) -> Tensor:
        squared = F.mse_loss(self.mean(output), clean, reduction="none").flatten(1).sum(1)
        constant = clean.shape[1:].numel() * math.log(self.std * math.sqrt(2 * math.pi))
        return squared / (2 * self.std**2) + constant


@dataclass(frozen=True)
class Bernoulli:
    """Bernoulli(x; sigmoid(output)): cross-entropy, for images that are black or white, or nearly so."""

    def mean(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def nll(self, output: Tensor, clean: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, clean, reduction="none").flatten(1).sum(1)


def reparameterise(mean: Tensor, log_variance: Tensor, noise: Noise) -> Tensor:
    """h = μ + σ ε: samples (B, D) of N(mean, exp(log_variance)) (Kingma & Welling 2014, §2.4)."""
    return mean + (0.5 * log_variance).exp() * noise.normal(*mean.shape)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, 1)) of (B, D), (B,) nats (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
