"""Pure functions of an autoencoder's objective: likelihoods p_dec(x|h) and divergences of p_enc(h|x).

Everything is a sum over pixels or numbers of the code, in nats, one value per image (B,); the mean over the
batch is taken last. So a weight such as β means the same for every image size and in every file.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Likelihood(Protocol):
    """p_dec(x|h), given by the decoder's output (B, C, H, W), in float32 or more."""

    def mean(self, output: Tensor) -> Tensor:
        """The reconstruction: the expected image (B, C, H, W)."""
        ...

    def nll(self, output: Tensor, clean: Tensor) -> Tensor:
        """−log p_dec(clean|h), (B,) nats."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """N(x; mean, std²). With std = √½ it is the sum of squared errors plus a constant: the lecture's MSE.

    With `squash` the mean is the sigmoid of the output, which keeps it in [0, 1]; otherwise it is the output
    itself.
    """

    std: float
    squash: bool = True

    def mean(self, output: Tensor) -> Tensor:
        return output.sigmoid() if self.squash else output

    def nll(self, output: Tensor, clean: Tensor) -> Tensor:
        squared = F.mse_loss(self.mean(output), clean, reduction="none").flatten(1).sum(1)
        constant = clean.shape[1:].numel() * math.log(self.std * math.sqrt(2 * math.pi))
        return squared / (2 * self.std**2) + constant


@dataclass(frozen=True)
class Bernoulli:
    """Cross-entropy, for images that are black or white, or nearly so.

    With `squash` the probability of white is the sigmoid of the output; otherwise it is the output itself,
    kept at least `SMALLEST` away from 0 and 1 in the loss.
    """

    squash: bool = True

    def mean(self, output: Tensor) -> Tensor:
        return output.sigmoid() if self.squash else output

    def nll(self, output: Tensor, clean: Tensor) -> Tensor:
        if self.squash:
            loss = F.binary_cross_entropy_with_logits(output, clean, reduction="none")
        else:  # by hand: under autocast torch refuses F.binary_cross_entropy
            white = output.clamp(SMALLEST, 1 - SMALLEST)
            loss = -clean * white.log() - (1 - clean) * (-white).log1p()
        return loss.flatten(1).sum(1)


SMALLEST = 1e-6  # float32 can still tell 1 - 1e-6 from 1


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, 1)) of (B, ...), (B,) nats (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


def reparameterise(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A sample h = μ + σ ε of N(mean, exp(log_variance)), for standard normal noise ε; all of one
    shape (Kingma &
    Welling 2014, §2.4)."""
    return mean + (0.5 * log_variance).exp() * noise


SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of a kernel's width, as in Tolstikhin et al. 2018
Kernel = Callable[[Tensor, float], Tensor]  # of squared distances and a width


def inverse_multiquadratic(squared: Tensor, width: float) -> Tensor:
    """c / (c + d²), whose tails are heavy enough to pull codes in from far away."""
    return width / (width + squared)


def radial_basis(squared: Tensor, width: float) -> Tensor:
    """exp(−d² / c)."""
    return (-squared / width).exp()


KERNELS: dict[str, Kernel] = {"imq": inverse_multiquadratic, "rbf": radial_basis}


def maximum_mean_discrepancy(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    """The squared distance (Gretton et al. 2012, eq. 3, unbiased, so it may be below 0) between what (N, D)
    and (M, D) are drawn from, the mean over kernels of several widths around 2 D, the mean squared distance
    of two codes of N(0, 1); (). 0 for fewer than two of either."""
    if min(len(a), len(b)) < 2:
        return a.sum() * 0

    def similarity(x: Tensor, y: Tensor) -> Tensor:
        squared = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
        width = 2.0 * x.shape[1]
        return torch.stack([kernel(squared.clamp(min=0), scale * width) for scale in SCALES]).mean(0)

    def among(x: Tensor) -> Tensor:
        """The mean over different ones."""
        similar = similarity(x, x)
        return (similar.sum() - similar.diagonal().sum()) / (len(x) * (len(x) - 1))

    return among(a) + among(b) - 2 * similarity(a, b).mean()


def of_pixels(likelihood: Likelihood) -> Likelihood:
    """The likelihood given by pixels, for a model that changes what its decoder's output becomes."""
    assert isinstance(likelihood, Gaussian | Bernoulli)
    return replace(likelihood, squash=False)
