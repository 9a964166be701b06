"""The decoder as a generative model: samples, scored in the features of a classifier of our own.

The Fréchet distance here is not the FID: that is of Inception's features, these are of `DigitNet`, a small
convolutional classifier that is trained on the data set's training images when it is first needed.
"""

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from autoencoders.data import ImageDataModule
from autoencoders.data.modules import as_colour
from autoencoders.data.pairs import to_float
from autoencoders.evaluation.subject import Rows, Subject
from autoencoders.files import atomic_write
from autoencoders.models import VAE
from autoencoders.randomness import Randomness

SAMPLES = 5000
NEIGHBOURS = 5  # of precision, recall, density and coverage, as in Naeem et al. 2020
COMPONENTS = 20  # of the Gaussian mixture
STEPS, BATCH = 800, 128  # of the classifier's training
Array = NDArray[np.float64]


class DigitNet(nn.Module):
    """Images (B, C, H, W) to 64 features and from them to class scores."""

    def __init__(self, channels: int, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def classifier(data: ImageDataModule) -> DigitNet:
    """The classifier of a data set's target images, from its file beside the data or trained anew."""
    images, labels = data.train.images, data.train.labels
    channels = 1 if data.target == "gray" else images.shape[1]
    path = Path(data.root) / data.source.name / f"digitnet-{channels}-{len(images)}.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = DigitNet(channels)
    if path.is_file():
        known = DigitNet(channels)
        with suppress(Exception):  # a damaged file is trained anew
            known.load_state_dict(torch.load(path, weights_only=True))
            return known.eval()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    order = torch.Generator().manual_seed(0)
    for _ in trange(STEPS, desc="training DigitNet", leave=False, disable=None):
        chosen = torch.randint(len(images), (BATCH,), generator=order)
        loss = F.cross_entropy(net(as_colour(to_float(images[chosen]), data.target)), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with atomic_write(path) as temporary:
        torch.save(net.state_dict(), temporary)
    return net.eval()


def generation(subject: Subject) -> tuple[Rows, dict[str, Tensor]]:
    """Samples of the decoder from three priors: the model's own (VAE), and a Gaussian and a mixture of 20
    Gaussians fitted to training codes; beside them the test images' reconstructions, and other real images.

    Each against 5,000 test images in DigitNet's features: the Fréchet distance (smaller is better), and
    precision, recall, density and coverage (Naeem et al. 2020; nearer to 1 is better).

    Returns:
        The rows, and 100 samples (100, C, H, W) of each prior.
    """
    model, data = subject.model, subject.data
    net, codes = classifier(data), subject.train_codes.astype(np.float64)
    count = min(SAMPLES, len(data.test))
    rng = np.random.default_rng(0)
    spread = np.cov(codes, rowvar=False).reshape(model.code_dim, model.code_dim)
    priors = {"Gaussian of the codes": rng.multivariate_normal(codes.mean(0), spread, count)}
    mixture = GaussianMixture(min(COMPONENTS, len(codes)), random_state=0, reg_covar=1e-4).fit(codes)
    priors["mixture of Gaussians"] = rng.permutation(mixture.sample(count)[0])
    if isinstance(model, VAE):
        priors["prior"] = Randomness(0, rows=count).normal(count, model.code_dim).numpy().astype(np.float64)
    samples = {name: _decoded(subject, torch.from_numpy(places).float()) for name, places in priors.items()}

    @torch.inference_mode()
    def of(images: Tensor) -> Array:
        return torch.cat([net.body(part) for part in images.split(1000)]).double().numpy()

    # At random: the first half of MNIST's test images was written by other people than the second.
    chosen = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:count]
    real = of(as_colour(to_float(data.test.images[chosen]), data.target))
    other = of(as_colour(to_float(data.train.images[:count]), data.target))
    reconstructed = of(_decoded(subject, torch.from_numpy(subject.test_codes[chosen.numpy()])))
    compared = {
        **{n: of(s) for n, s in samples.items()},
        "reconstructions": reconstructed,
        "training images": other,
    }
    rows: Rows = {
        name: {"frechet": frechet_distance(real, fake), **prdc(real, fake, NEIGHBOURS)}
        for name, fake in compared.items()
    }
    return rows, {name: images[:100] for name, images in samples.items()}


@torch.inference_mode()
def _decoded(subject: Subject, codes: Tensor) -> Tensor:
    """(N, C, H, W) on the CPU."""
    device = subject.model.device
    return torch.cat([subject.model.decode(part.to(device)).cpu() for part in codes.split(1000)])


def frechet_distance(a: Array, b: Array) -> float:
    """Of Gaussians fitted to features (N, D): |μ−μ'|² + tr(Σ + Σ' − 2 (ΣΣ')^½) (Dowson & Landau 1982)."""
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # (ΣΣ')^½ has the eigenvalues of (Σ^½ Σ' Σ^½)^½, which is symmetric and so is safe to compute.
    mixed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_b @ root), 0)).sum()
    difference = a.mean(0) - b.mean(0)
    return float(difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * mixed)


def prdc(real: Array, fake: Array, k: int) -> dict[str, float]:
    """Precision and recall, density and coverage (Naeem et al. 2020) of features (N, D)."""

    def radii(points: Array) -> Array:
        return NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, -1]

    distances = np.sqrt(np.maximum(_squared_distances(real, fake), 0))  # (real, fake)
    in_real, in_fake = distances < radii(real)[:, None], distances < radii(fake)[None, :]
    return {
        "precision": float(in_real.any(axis=0).mean()),
        "recall": float(in_fake.any(axis=1).mean()),
        "density": float(in_real.sum(axis=0).mean() / k),
        "coverage": float(in_real.any(axis=1).mean()),
    }


def _squared_distances(a: Array, b: Array) -> Array:
    return (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
