"""Likelihoods p_dec(x|h): what the decoder's output says of an image, and what that costs.

−log p is a sum over pixels, in nats, one value per image (B,). Pixels are in [0, 1].
"""

import math
from collections.abc import Callable
from copy import copy
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoencoders import checks

SMALLEST = 1e-6  # float32 can still tell 1 - 1e-6 from 1
SMALLEST_VARIANCE = 1e-6  # of a Gaussian whose variance is not given: without it, a perfect image costs −∞
Gathered = Callable[[Tensor], Tensor]  # what all processes have, (N, ...), of what this one has (B, ...)


def alone(of_images: Tensor) -> Tensor:
    """What all processes have where there is one."""
    return of_images


class Likelihood(nn.Module):
    """p_dec(x|h), given by the decoder's output (B, channels, H, W) in float32 or more. What it learns itself
    are its parameters and buffers.

    Args:
        squash: whether the output is squashed to become pixels, rather than being pixels.
    """

    discrete: ClassVar[bool] = False  # whether it is a probability of bytes, and so tells the bits of a file

    def __init__(self, squash: bool = True) -> None:
        super().__init__()
        self.squash = squash

    def channels(self, target: int) -> int:
        """How many the decoder gives for images of `target` channels."""
        return target

    def take_pixels(self) -> None:
        """Called where the decoder squashes its output itself."""
        self.squash = False

    def of_pixels(self) -> "Likelihood":
        """This likelihood, with the same parameters, given by pixels: for a model that changes what its
        decoder's output becomes."""
        shared = copy(self)
        shared.take_pixels()
        return shared

    def mean(self, output: Tensor) -> Tensor:
        """The reconstruction: the expected image (B, C, H, W)."""
        return output.sigmoid() if self.squash else output

    def nll(self, output: Tensor, clean: Tensor, gathered: Gathered = alone) -> Tensor:
        """−log p_dec(clean|h), (B,) nats."""
        raise NotImplementedError

    def logits(self, output: Tensor) -> Tensor:
        """Those of pixels are kept at least `SMALLEST` away from 0 and 1."""
        return output if self.squash else output.clamp(SMALLEST, 1 - SMALLEST).logit()


class Gaussian(Likelihood):
    """N(x; mean, std²). With std = √½ it is the sum of squared errors plus a constant: the lecture's MSE.

    With `squash` the mean is the sigmoid of the output, which keeps it in [0, 1]; otherwise it is the output
    itself.
    """

    def __init__(self, std: float, squash: bool = True) -> None:
        super().__init__(squash)
        self.std = std

    def nll(self, output: Tensor, clean: Tensor, gathered: Gathered = alone) -> Tensor:
        squared, numbers = (self.mean(output) - clean).square().flatten(1).sum(1), clean.shape[1:].numel()
        variance = self.variance(squared.detach() / numbers, gathered)
        return squared / (2 * variance) + 0.5 * numbers * (2 * math.pi * variance).log()

    def variance(self, mse: Tensor, gathered: Gathered) -> Tensor:
        """σ², (), where the mean squared errors of images are `mse` (B,)."""
        return mse.new_full((), self.std**2)


class LearnedGaussian(Gaussian):
    """A Gaussian whose one σ is learnt as the networks' weights are, from `std` on."""

    def __init__(self, std: float, squash: bool = True) -> None:
        super().__init__(std, squash)
        self.log_std = nn.Parameter(torch.tensor(math.log(std)))

    def variance(self, mse: Tensor, gathered: Gathered) -> Tensor:
        return (2 * self.log_std.float()).exp() + SMALLEST_VARIANCE


class OptimalGaussian(Gaussian):
    """A Gaussian whose σ² is the best one, the mean squared error (Rybkin et al. 2021): in training that of
    the global batch, without a gradient, as the loss has no slope there; afterwards its running mean."""

    running: Tensor
    steps: Tensor

    def __init__(self, squash: bool = True) -> None:
        super().__init__(math.sqrt(0.5), squash)
        self.register_buffer("running", torch.tensor(self.std**2))
        self.register_buffer("steps", torch.tensor(0.0))

    def variance(self, mse: Tensor, gathered: Gathered) -> Tensor:
        if not self.training:
            return self.running.float()
        variance = gathered(mse).mean() + SMALLEST_VARIANCE
        self.steps += 1
        # The mean of the first steps, then over about 100 of them.
        self.running.lerp_(variance.to(self.running.dtype), (1 / self.steps).clamp(min=0.01))
        return variance


class Laplace(Likelihood):
    """The sum of absolute errors, times √2/std, plus a constant; `std` is the standard deviation. `squash` is
    as for `Gaussian`."""

    def __init__(self, std: float, squash: bool = True) -> None:
        super().__init__(squash)
        self.scale = std / math.sqrt(2)

    def nll(self, output: Tensor, clean: Tensor, gathered: Gathered = alone) -> Tensor:
        absolute = (self.mean(output) - clean).abs().flatten(1).sum(1)
        return absolute / self.scale + clean.shape[1:].numel() * math.log(2 * self.scale)


class Bernoulli(Likelihood):
    """Cross-entropy, for images that are black or white, or nearly so.

    With `squash` the probability of white is the sigmoid of the output; otherwise it is the output itself.
    """

    def nll(self, output: Tensor, clean: Tensor, gathered: Gathered = alone) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(self.logits(output), clean, reduction="none")
        return loss.flatten(1).sum(1)


class ContinuousBernoulli(Likelihood):
    """The Bernoulli's cross-entropy, normalised over the pixels between black and white (Loaiza-Ganem &
    Cunningham 2019). Its parameter λ is the sigmoid of the output, or with `squash` false the output."""

    def mean(self, output: Tensor) -> Tensor:
        """½ + ½ coth(η/2) − 1/η, for η the logit of λ."""
        small, logits = _near_zero(self.logits(output))
        return torch.where(
            small, 0.5 + self.logits(output) / 12, 0.5 + 0.5 / (logits / 2).tanh() - 1 / logits
        )

    def nll(self, output: Tensor, clean: Tensor, gathered: Gathered = alone) -> Tensor:
        logits = self.logits(output)
        loss = F.binary_cross_entropy_with_logits(logits, clean, reduction="none")
        return (loss - log_normaliser(logits)).flatten(1).sum(1)


def log_normaliser(logits: Tensor) -> Tensor:
    """log C(λ) of a continuous Bernoulli, C = 2 artanh(1 − 2λ) / (1 − 2λ), which is η / tanh(η/2) for the
    logit η of λ; around λ = ½, where that is 0/0, its Taylor series."""
    small, away = _near_zero(logits)
    squared = logits.square()
    series = math.log(2) + squared / 12 - 7 / 1440 * squared.square()
    return torch.where(small, series, (away / (away / 2).tanh()).log())


def _near_zero(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Where they are, and the logits with others in their place, so that no gradient is NaN."""
    small = logits.abs() < 0.1
    return small, torch.where(small, 1.0, logits)


class DiscretizedLogistic(Likelihood):
    """A mixture of logistic distributions of each pixel's channel, integrated over the grey levels 0..255
    (Salimans et al. 2017, eq. 2, without the coupling of channels).

    The output has for each of `mixtures` a logit of its share, a mean and a logarithm of its scale, where
    pixels are in [−1, 1].
    """

    discrete = True

    def __init__(self, mixtures: int) -> None:
        checks.integer("likelihood_mixtures", mixtures, at_least=1, at_most=100)
        super().__init__()
        self.mixtures = mixtures

    def channels(self, target: int) -> int:
        return 3 * self.mixtures * target

    def take_pixels(self) -> None:
        """Refused.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "likelihood=discretized_logistic needs shares, means and scales, and the decoder gives pixels in "
            "[0, 1]: leave out its last Sigmoid, or say network.output=logits"
        )

    def _parts(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of shares, means, logarithms of scales: (B, mixtures, C, H, W) each."""
        shares, means, log_scales = output.unflatten(1, (3, self.mixtures, -1)).unbind(1)
        return shares.log_softmax(1), means, log_scales.clamp(-7, 7)

    def mean(self, output: Tensor) -> Tensor:
        """Exact but for the rounding to grey levels: the integral of σ((μ − t)/s) from black to white."""
        log_shares, means, log_scales = self._parts(output)
        scales = log_scales.exp()
        white = scales * (F.softplus((means + 1) / scales) - F.softplus((means - 1) / scales))
        return (log_shares.exp() * white).sum(1) / 2

    def nll(self, output: Tensor, clean: Tensor, gathered: Gathered = alone) -> Tensor:
        log_shares, means, log_scales = self._parts(output)
        levels = (255 * clean).round()[:, None]
        centred, precision = 2 * levels / 255 - 1 - means, (-log_scales).exp()
        above, below = (centred + 1 / 255) * precision, (centred - 1 / 255) * precision
        # log(σ(a) − σ(b)) = log σ(a) + log σ(−b) + log(1 − exp(b − a)): never 0 − 0. Black and white have all
        # that is beyond.
        up, down = F.logsigmoid(above), F.logsigmoid(-below)
        within = up + down + (-(-2 / 255 * precision).expm1()).log()
        log_p = torch.where(levels == 0, up, torch.where(levels == 255, down, within))
        return -(log_shares + log_p).logsumexp(1).flatten(1).sum(1)


LIKELIHOODS: dict[str, Callable[[float, int, bool], Likelihood]] = {  # of std, mixtures and squash
    "gaussian": lambda std, _, squash: Gaussian(std, squash),
    "gaussian_unbounded": lambda std, _, __: Gaussian(std, squash=False),
    "gaussian_learned": lambda std, _, squash: LearnedGaussian(std, squash),
    "gaussian_optimal": lambda _, __, squash: OptimalGaussian(squash),
    "laplace": lambda std, _, squash: Laplace(std, squash),
    "bernoulli": lambda *_: Bernoulli(),
    "continuous_bernoulli": lambda *_: ContinuousBernoulli(),
    "discretized_logistic": lambda _, mixtures, __: DiscretizedLogistic(mixtures),
}
