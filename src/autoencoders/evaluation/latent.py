"""The latent space: how many of its dimensions are used, and what lies between two images."""

import math

import numpy as np
import torch
from scipy.linalg import subspace_angles
from torch import Tensor
from tqdm import trange

from autoencoders.data.pairs import Batch
from autoencoders.evaluation.subject import Rows, Subject
from autoencoders.losses import kl_to_standard_normal
from autoencoders.models import VAE, LinearAutoencoder
from autoencoders.randomness import Randomness

ACTIVE = 0.01  # the variance of a posterior mean above which a unit is active (Burda et al. 2016, §5.2)


def latent_space(subject: Subject) -> Rows:
    """`effective_dimension`: the participation ratio (Σλ)²/Σλ² of the eigenvalues of the test codes'
    covariance, which are given too; for a linear autoencoder the largest angle, in degrees, between
    the subspace of its decoder and that of PCA."""
    _, deviations = main_directions(subject)
    values = deviations**2
    row = {"effective_dimension": float(values.sum() ** 2 / (values**2).sum())}
    row |= {f"eigenvalue_{i + 1}": float(value) for i, value in enumerate(values[:8])}
    if isinstance(subject.model, LinearAutoencoder):
        row["largest_angle_to_pca"] = angle_to_pca(subject)
    return {"model": row}


def angle_to_pca(subject: Subject) -> float:
    """The largest principal angle in degrees (Björck & Golub 1973); 0 where the code spans PCA's subspace."""
    codes = torch.cat([torch.zeros(1, subject.model.code_dim), torch.eye(subject.model.code_dim)])
    with torch.inference_mode():
        images = subject.model.decode(codes.to(subject.model.device)).flatten(1).cpu()
    directions = (images[1:] - images[0]).T.numpy()
    return float(np.degrees(subspace_angles(directions, subject.pca.components_.T).max()))


@torch.inference_mode()
def likelihood(subject: Subject, samples: int = 50, images: int = 1000) -> Rows:
    """Of a VAE, in nats a test image: the ELBO and its terms, the number of active units (Burda et al. 2016,
    §5.2), and nll_<samples>, the negative of the tighter importance-weighted bound (eq. 8) on the first so
    many test images (evaluation.importance_samples, evaluation.importance_images)."""
    model, count = subject.model, len(subject.data.test)
    assert isinstance(model, VAE)
    reconstruction, kl, means, bounds = 0.0, 0.0, list[Tensor](), list[Tensor]()
    for batch in subject.batches(subject.data.test, "likelihood"):
        mean, log_variance = model.posterior(batch.corrupted)
        code = mean + (0.5 * log_variance).exp() * batch.noise.normal(*mean.shape)
        nll = model.likelihood.nll(model.decoder(code).float(), batch.clean)
        reconstruction += float(nll.double().sum()) / count
        kl += float(kl_to_standard_normal(mean, log_variance).double().sum()) / count
        means.append(mean.cpu())
        if (done := sum(map(len, bounds))) < images:
            first = batch._replace(
                corrupted=batch.corrupted[: images - done], clean=batch.clean[: images - done]
            )
            bounds.append(importance_weighted_bound(model, first, samples).cpu())
    return {
        "model": {
            "elbo": -reconstruction - kl,
            "reconstruction_nll": reconstruction,
            "kl": kl,
            f"nll_{samples}": -float(torch.cat(bounds).mean()),
            "active_units": float((torch.cat(means).var(0) > ACTIVE).sum()),
        }
    }


def importance_weighted_bound(model: VAE, batch: Batch, samples: int) -> Tensor:
    """log 1/k Σ p(x|h) p(h) / q(h|x) over k samples of q(h|x), (B,) nats (Burda et al. 2016, eq. 8)."""
    mean, log_variance = model.posterior(batch.corrupted)
    noise = Randomness(0, rows=len(mean), device=mean.device)
    weights = []
    for _ in trange(samples, desc="importance weighting", leave=False, disable=None):
        epsilon = noise.normal(*mean.shape)
        code = mean + (0.5 * log_variance).exp() * epsilon
        log_prior = -0.5 * (code.square() + math.log(2 * math.pi)).sum(1)
        log_posterior = -0.5 * (epsilon.square() + log_variance + math.log(2 * math.pi)).sum(1)
        log_likelihood = -model.likelihood.nll(model.decoder(code).float(), batch.clean)
        weights.append(log_likelihood + log_prior - log_posterior)
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
    """Rows of images by their title: between test images of different classes, straight and spherical."""
    batch, rows = subject.data.first(subject.data.test, 200, subject.model.device), dict[str, Tensor]()
    codes = subject.model.encode(batch.corrupted).float().cpu()
    first = [int((batch.labels == label).nonzero()[0]) for label in batch.labels.unique()][: 2 * pairs]
    for start, end in zip(first[::2], first[1::2], strict=False):
        for kind in ("linear", "spherical"):
            places = between(codes[start], codes[end], steps, spherical=kind == "spherical")
            names = (subject.data.classes[int(batch.labels[i])] for i in (start, end))
            images = subject.model.decode(places.to(subject.model.device)).cpu()
            rows[f"{' → '.join(names)}, {kind}"] = images
    return rows


@torch.inference_mode()
def traversals(subject: Subject, most: int = 8, steps: int = 10) -> dict[str, Tensor]:
    """Rows of images by their title: the code's mean, moved along each of the main directions of the test
    codes from −3 to 3 standard deviations."""
    codes, rows = subject.test_codes, dict[str, Tensor]()
    directions, deviations = main_directions(subject)
    for index in range(min(most, subject.model.code_dim)):
        along = np.linspace(-3, 3, steps)[:, None] * deviations[index] * directions[index]
        places = torch.from_numpy(codes.mean(0) + along).float()
        rows[f"direction {index + 1}"] = subject.model.decode(places.to(subject.model.device)).cpu()
    return rows


def main_directions(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvectors (D, D), by row, of the test codes' covariance, the largest first, and deviations."""
    covariance = np.cov(subject.test_codes, rowvar=False).reshape(subject.model.code_dim, -1)
    values, vectors = np.linalg.eigh(covariance)
    return vectors.T[::-1], np.sqrt(np.maximum(values[::-1], 0))
