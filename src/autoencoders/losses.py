"""Pure functions of an autoencoder's objective beside its likelihood: divergences of p_enc(h|x).

Everything is a sum over numbers of the code, in nats, one value per image (B,); the mean over the batch is
taken last. So a weight such as β means the same for every image size and in every file.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def diagonal_normal(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of a code, (B, D, ...) each, of what an encoder gives for both, (B, 2 D, ...)."""
    mean, log_variance = features.float().chunk(2, dim=1)
    return mean, log_variance.clamp(-20, 20)  # beyond, its exponential leaves float32's useful range


def kl_of_units(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, 1)) of each number, of the shape of both, in nats (Kingma &
    Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


Map = Callable[[Tensor], Tensor]
SMALLEST = 1e-6  # float32 can still tell 1 - 1e-6 from 1


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """The sum of `kl_of_units` over the numbers of each code (B, ...), (B,) nats."""
    return kl_of_units(mean, log_variance).flatten(1).sum(1)


def reparameterise(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A sample h = μ + σ ε of N(mean, exp(log_variance)), for standard normal noise ε; all of one shape
    (Kingma & Welling 2014, §2.4)."""
    return mean + (0.5 * log_variance).exp() * noise


def log_importance_weight(nll: Tensor, code: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log p(x|h) p(h) / q(h|x) of codes h, all (B, ...), for −log p(x|h) (B,), q = N(mean, exp(log_variance))
    and the prior N(0, 1); (B,) nats (Burda et al. 2016, eq. 7)."""
    # The normalising constants of p(h) and of q(h|x) cancel but for the variance.
    log_prior = -0.5 * code.square()
    log_posterior = -0.5 * ((code - mean).square() * (-log_variance).exp() + log_variance)
    return -nll + (log_prior - log_posterior).flatten(1).sum(1)


def kl_decomposition(code: Tensor, mean: Tensor, log_variance: Tensor, images: int) -> dict[str, Tensor]:
    """The KL to the prior N(0, 1), estimated from a code of each of M images and its posterior, (M, D) each;
    in three parts, () nats each (Chen et al. 2018, eq. 2): the mutual information between image and code, the
    total correlation between the numbers of a code, and the KL of each number alone.

    q(h) is estimated by minibatch-weighted sampling (appendix C.1): Σ q(h|x) over the M images, over M times
    the number of `images` in the data set. With `images` 1 it is the mean over these M images.
    """
    constant = math.log(2 * math.pi)
    squared = (code[:, None] - mean).square() * (-log_variance).exp()
    log_q_pairs = -0.5 * (squared + log_variance + constant)  # (M, M, D): of code i under image j
    log_q_own = log_q_pairs.diagonal().sum(0)
    log_q = log_q_pairs.sum(2).logsumexp(1) - math.log(images * len(code))
    log_q_alone = (log_q_pairs.logsumexp(1) - math.log(images * len(code))).sum(1)
    log_prior = -0.5 * (code.square() + constant).sum(1)
    return {
        "mutual_information": (log_q_own - log_q).mean(),
        "total_correlation": (log_q - log_q_alone).mean(),
        "dimension_wise_kl": (log_q_alone - log_prior).mean(),
    }


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


def largest(codes: Tensor, k: int) -> Tensor:
    """Codes (B, D) of which only the k largest numbers of each stay; the others are 0 (Makhzani & Frey 2014,
    algorithm 1)."""
    kept = codes.topk(k, dim=1)
    return torch.zeros_like(codes).scatter(1, kept.indices, kept.values)


def kl_of_rates(means: Tensor, rate: float) -> Tensor:
    """Σ KL(Bernoulli(rate) ‖ Bernoulli(mean)) over the mean activations (D,) of units in [0, 1], () nats
    (Ng 2011, §3)."""
    means = means.clamp(SMALLEST, 1 - SMALLEST)
    return (rate * (rate / means).log() + (1 - rate) * ((1 - rate) / (1 - means)).log()).sum()


def soft_assignments(codes: Tensor, centres: Tensor) -> Tensor:
    """How much codes (B, D) belong to each of centres (K, D), (B, K): their similarity under Student's
    t-distribution of one degree of freedom, of which rows sum to 1 (Xie et al. 2016, eq. 1)."""
    similar = 1 / (1 + (codes[:, None] - centres).square().sum(2))
    return similar / similar.sum(1, keepdim=True)


def sharpened(assignments: Tensor, frequencies: Tensor) -> Tensor:
    """What assignments (B, K) would be if they were surer, without letting clusters of high frequency (K,)
    grow: q² / f, of which rows sum to 1 (Xie et al. 2016, eq. 3)."""
    surer = assignments.square() / frequencies
    return surer / surer.sum(1, keepdim=True)


def kl_of_assignments(target: Tensor, assignments: Tensor) -> Tensor:
    """KL(target ‖ assignments) of probabilities (B, K), (B,) nats."""
    return F.kl_div(assignments.log(), target, reduction="none").sum(1)


def squared_jacobian(f: Map, x: Tensor, direction: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """f(x), and ‖J‖²_F, (B,), J being f's Jacobian at each of x (B, ...), whose value must not depend on the
    others: exactly, from as many gradients as a value has numbers; or, for a random direction v in the space
    of values, of independent numbers of mean 0 and variance 1, the unbiased estimate ‖vᵀJ‖² (Hutchinson
    1990)."""
    if torch.is_inference_mode_enabled():  # in which torch 2.11 gives gradients of 0
        with torch.inference_mode(False):
            return squared_jacobian(f, x.clone(), None if direction is None else direction.clone())
    value, gradients = torch.func.vjp(f, x)[:2]
    if direction is not None:
        (gradient,) = gradients(direction.to(value.dtype))
        return value, gradient.float().square().flatten(1).sum(1)
    shape = value.shape[1:]
    units = torch.eye(shape.numel(), device=value.device, dtype=value.dtype).view(-1, 1, *shape)
    (rows,) = torch.func.vmap(gradients)(units.expand(-1, *value.shape))
    return value, rows.float().square().flatten(2).sum((0, 2))


def with_slope(x: Tensor, slope: Tensor | tuple[()]) -> Tensor:
    """x, but what is learnt of it is multiplied by `slope`: where a loss is a sum over the numbers of x, this
    is the gradient of their weighted sum. (): x itself."""
    if not isinstance(slope, Tensor):
        return x
    return slope * x + ((1 - slope) * x).detach()


def reversed_gradient(numbers: Tensor, weight: float = 1.0) -> Tensor:
    """The same numbers, whose gradient arrives times −weight: what follows learns to make a term smaller, and
    what is before learns to make it larger (Ganin & Lempitsky 2015)."""
    return numbers.detach() - weight * (numbers - numbers.detach())
