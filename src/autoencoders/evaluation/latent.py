"""The latent space: how many of its dimensions are used, and what lies between two images."""

import math
from typing import Protocol, cast

import numpy as np
import torch
from scipy.linalg import subspace_angles
from torch import Tensor
from tqdm import trange

from autoencoders.data.pairs import Batch
from autoencoders.evaluation.intervals import Mean, Means
from autoencoders.evaluation.subject import Scores, Subject
from autoencoders.likelihoods import Likelihood
from autoencoders.losses import kl_decomposition, kl_to_standard_normal, log_importance_weight, reparameterise
from autoencoders.randomness import Randomness

MOST_PAIRS = 16_000_000  # numbers of codes of one image by posteriors of another: 1,000 images' codes of 16
ACTIVE = 0.01  # the variance of a posterior mean above which a unit is active (Burda et al. 2016, §5.2)


class Variational(Protocol):
    """What a model has whose `evaluations` name "likelihood"."""

    likelihood: Likelihood

    def output(self, code: Tensor) -> Tensor:
        """What defines p_dec(x|h), (B, C, H, W)."""
        ...

    def posterior(self, corrupted: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of p_enc(h|x), (B, *code_shape) each."""
        ...


def latent_space(subject: Subject) -> Scores:
    """`effective_dimension`: the participation ratio (Σλ)²/Σλ² of the eigenvalues of the test codes'
    covariance (where they have more than 2,048 numbers, of the first 2,048 codes'), which are given too;
    where the decoder is affine the largest angle, in degrees, between its subspace and that of PCA."""
    values = subject.test_directions.deviations**2
    varies = values.sum() > 0  # rounded codes may be one and the same
    row = {"effective_dimension": float(values.sum() ** 2 / (values**2).sum()) if varies else 0.0}
    row |= {f"eigenvalue_{i + 1}": float(value) for i, value in enumerate(values[:8])}
    if subject.model.affine:
        row["largest_angle_to_pca"] = angle_to_pca(subject)
    return {"model": row}


def angle_to_pca(subject: Subject) -> float:
    """The largest principal angle in degrees (Björck & Golub 1973); 0 where the code spans PCA's subspace."""
    codes = torch.cat([torch.zeros(1, subject.model.code_dim), torch.eye(subject.model.code_dim)])
    images = torch.cat(list(subject.decode(codes))).flatten(1)
    directions = (images[1:] - images[0]).T.numpy()
    return float(np.degrees(subspace_angles(directions, subject.pca.components_.T).max()))


@torch.inference_mode()
def likelihood(subject: Subject, samples: int = 50, images: int = 1000) -> Scores:
    """In nats a test image: the ELBO and its terms (`kl` is not weighted as in the loss), the number of
    active units (Burda et al. 2016, §5.2), and nll_<samples>, the negative of the tighter
    importance-weighted bound (eq. 8) on the first so many test images (evaluation.importance_samples,
    evaluation.importance_images); with a likelihood of bytes also `bits_per_dim`, that bound in bits for each
    number of an image. `mutual_information`, `total_correlation` and `dimension_wise_kl` are the parts of the
    KL (Chen et al. 2018), q(h) being the mixture of the posteriors of the first test images, 1,000 of
    them with a code of 16: compare them only between evaluations with codes of one size."""
    model = cast(Variational, subject.model)
    means, bounds, of_images = list[Tensor](), list[Tensor](), Means()
    posteriors = list[Tensor]()
    for batch in subject.batches(subject.data.test, "likelihood"):
        mean, log_variance = model.posterior(batch.corrupted)
        code = reparameterise(mean, log_variance, batch.noise.normal(*mean.shape))
        nll = model.likelihood.nll(model.output(code), batch.clean)
        kl = kl_to_standard_normal(mean, log_variance)
        of_images.add("model", {"elbo": -nll - kl, "reconstruction_nll": nll, "kl": kl})
        means.append(mean.flatten(1).cpu())
        posteriors.append(torch.stack([part.flatten(1).cpu() for part in (code, mean, log_variance)]))
        if (done := sum(map(len, bounds))) < images:
            first = batch._replace(
                corrupted=batch.corrupted[: images - done], clean=batch.clean[: images - done]
            )
            bounds.append(importance_weighted_bound(model, first, samples).cpu())
    nll_of_bound = -torch.cat(bounds)
    first_images = slice(len(nll_of_bound))
    row = of_images.scores()["model"] | {
        f"nll_{samples}": Mean(nll_of_bound, first_images),
        "active_units": float((torch.cat(means).var(0) > ACTIVE).sum()),
    }
    of_all = torch.cat(posteriors, dim=1)
    codes, of_means, of_log_variances = of_all[:, : math.isqrt(MOST_PAIRS // of_all.shape[2])]
    parts = kl_decomposition(codes, of_means, of_log_variances, images=1)
    row |= {name: float(part) for name, part in parts.items()}
    if model.likelihood.discrete:
        bits = nll_of_bound / math.log(2) / batch.clean.shape[1:].numel()
        row["bits_per_dim"] = Mean(bits, first_images)
    return {"model": row}


def importance_weighted_bound(model: Variational, batch: Batch, samples: int) -> Tensor:
    """log 1/k Σ p(x|h) p(h) / q(h|x) over k samples of q(h|x), (B,) nats (Burda et al. 2016, eq. 8)."""
    mean, log_variance = model.posterior(batch.corrupted)
    noise = Randomness(0, rows=len(mean), device=mean.device)
    weights = []
    for _ in trange(samples, desc="importance weighting", leave=False, disable=None):
        code = reparameterise(mean, log_variance, noise.normal(*mean.shape))
        nll = model.likelihood.nll(model.output(code), batch.clean)
        weights.append(log_importance_weight(nll, code, mean, log_variance))
    return torch.logsumexp(torch.stack(weights), 0) - math.log(samples)


def between(a: Tensor, b: Tensor, steps: int, *, spherical: bool) -> Tensor:
    """Codes (steps, D) from a to b (D,): on the straight line, or on the arc of a great circle with the
    length changing evenly (Shoemake 1985)."""
    t = torch.linspace(0, 1, steps)[:, None]
    if not spherical:
        return (1 - t) * a + t * b
    angle = torch.arccos((_unit(a) @ _unit(b)).clamp(-1, 1))
    if angle.sin().abs() < 1e-6:
        return between(a, b, steps, spherical=False)
    direction = (((1 - t) * angle).sin() * _unit(a) + (t * angle).sin() * _unit(b)) / angle.sin()
    return direction * ((1 - t) * a.norm() + t * b.norm())


def _unit(code: Tensor) -> Tensor:
    return code / code.norm().clamp(min=1e-12)


@torch.inference_mode()
def interpolations(subject: Subject, pairs: int = 3, steps: int = 10) -> dict[str, Tensor]:
    """Images by the title of their row: between test images of different classes, straight and spherical."""
    labels, shown = subject.data.test.labels, dict[str, Tensor]()
    first = [int((labels == label).nonzero()[0]) for label in labels.unique()][: 2 * pairs]
    batch = subject.data.first(subject.chosen(torch.tensor(first)), len(first), subject.model.device)
    codes = subject.model.encode(batch.corrupted).float().flatten(1).cpu()
    for start in range(0, len(first) - 1, 2):
        names = (subject.data.classes[int(label)] for label in batch.labels[start : start + 2])
        title = " → ".join(names)
        for kind in ("linear", "spherical"):
            path = between(codes[start], codes[start + 1], steps, spherical=kind == "spherical")
            shown[f"{title}, {kind}"] = torch.cat(list(subject.decode(path)))
    return shown


def traversals(subject: Subject, most: int = 8, steps: int = 10) -> dict[str, Tensor]:
    """Images by the title of their row: the code's mean, moved along each of the main directions of the test
    codes from −3 to 3 standard deviations."""
    mean, basis, deviations = subject.test_directions
    shown = dict[str, Tensor]()
    for index in range(min(most, len(basis))):
        path = mean + np.linspace(-3, 3, steps)[:, None] * deviations[index] * basis[index]
        shown[f"direction {index + 1}"] = torch.cat(list(subject.decode(torch.from_numpy(path))))
    return shown
