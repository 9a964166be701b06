"""The decoder as a generative model: samples, scored in the features of a classifier of our own.

The Fréchet distance here is not the FID: that is of Inception's features, these are of `DigitNet`, a small
convolutional classifier that is trained on the data set's training images when it is first needed.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm, trange

from autoencoders.data import ImageDataModule
from autoencoders.data.modules import as_colour
from autoencoders.data.pairs import to_float
from autoencoders.evaluation import discrete
from autoencoders.evaluation.subject import Scores, Subject, main_directions, waiting
from autoencoders.files import atomic_write

SAMPLES = 5000
NEIGHBOURS = 5  # of precision, recall, density and coverage, as in Naeem et al. 2020
COMPONENTS, MIXED = 20, 64  # of the Gaussian mixture, and numbers of a code that it is fitted to
STEPS, BATCH = 800, 128  # of the classifier's training
LARGEST = 32  # pixels a side of what it sees
Array = NDArray[np.float64]


class DigitNet(nn.Module):
    """Images (B, C, H, W) to 64 features and from them to class scores; sides of more than LARGEST pixels are
    averaged to so many."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, classes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 64)."""
        height, width = (min(side, LARGEST) for side in images.shape[2:])
        small = images.shape[2:] == (height, width)
        return self.body(images if small else F.adaptive_avg_pool2d(images, (height, width)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


@torch.inference_mode(False)
@torch.enable_grad()
def classifier(data: ImageDataModule) -> DigitNet:
    """The classifier of a data set's target images: from its file beside the data, or trained anew
    where there is none. A data set without a `source` keeps no file."""
    images, labels = data.train.images, data.train.labels
    channels, source = as_colour(to_float(images[:1]), data.target).shape[1], getattr(data, "source", None)
    side = f"-{images.shape[-1]}" if data.size else ""
    bits = "-binarized" if data.binarize == "static" else ""
    name = f"digitnet-{channels}-{len(images)}{side}{bits}.pt"
    path = Path(data.root) / source.name / name if source else None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = DigitNet(channels, len(data.classes))
    if path and path.is_file():
        known = DigitNet(channels, len(data.classes))
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
    if path:
        with atomic_write(path) as temporary:
            torch.save(net.state_dict(), temporary)
    return net.eval()


def generation(subject: Subject) -> tuple[Scores, dict[str, Tensor]]:
    """Samples of the decoder from priors: the model's own (VAE), and a Gaussian and a mixture of 20
    Gaussians fitted to training codes (of codes of more than 64 numbers to their 64 main directions, the
    others being Gaussian). Of a code of symbols (VQ-VAE, FSQ) they are uniform ones, and an autoregressive
    prior that is learnt from those of 10,000 training images (of codes of up to 1,024 symbols). Beside them
    the test images' reconstructions, and other real images.

    Each against 5,000 test images, or all if there are fewer, in the features of DigitNet, a small classifier
    trained on this data set's training images (not of Inception: it is no FID): the Fréchet distance (smaller
    is better), and precision, recall, density and coverage (Naeem et al. 2020; nearer to 1 is better).

    Returns:
        The scores, none where the images have no classes to train DigitNet on, or are not of their codes
        alone; and 100 samples (100, C, H, W) of each prior.
    """
    count = min(SAMPLES, len(subject.data.test))
    priors = prior_codes(subject, count)
    samples = {name: torch.cat(list(subject.decode(codes[:100]))) for name, codes in priors.items()}
    scored = subject.has_classes and subject.model.decodes_alone and count > 1
    return scores(subject, priors, count) if scored else {}, samples


@torch.inference_mode()
def classes(subject: Subject) -> Scores:
    """Samples of each class in turn, as many as 5,000 or the test images: `as_asked` is the share of those
    that DigitNet takes for the class that was asked for, and then that of each class; beside them the test
    images, whose share is how far DigitNet can be trusted."""
    net, names = classifier(subject.data), subject.data.classes
    codes = subject.model.prior_codes(min(SAMPLES, len(subject.data.test)), seed=0)
    assert codes is not None
    asked = torch.arange(len(codes)) % len(names)
    taken = torch.cat([net(images).argmax(1) for images in subject.decode(codes.flatten(1))])
    real = [net(batch.clean.cpu()).argmax(1) for batch in subject.batches(subject.data.test, "classes")]
    of = {"model": (taken == asked, asked)}
    of["test images"] = (torch.cat(real) == subject.data.test.labels, subject.data.test.labels)
    return {
        row: {"as_asked": float(right.double().mean())}
        | {
            name: float(right[labels == label].double().mean())
            for label, name in enumerate(names)
            if (labels == label).any()
        }
        for row, (right, labels) in of.items()
    }


def prior_codes(subject: Subject, count: int) -> dict[str, Tensor]:
    """Codes (count, code_dim) by the name of what they are drawn from."""
    if "codebook" in subject.model.evaluations:
        return discrete.prior_codes(subject, count)
    codes, rng = subject.train_codes, np.random.default_rng(0)
    directions = main_directions(codes)
    mean, basis, deviations = directions
    normal = rng.standard_normal((count, len(basis))) * deviations
    drawn = {"Gaussian of the codes": mean + normal @ basis}
    along = (codes - mean) @ basis[:MIXED].T if codes.shape[1] > MIXED else codes.astype(np.float64)
    with waiting("mixture of Gaussians"):
        mixture = GaussianMixture(min(COMPONENTS, len(codes)), random_state=0, reg_covar=1e-4).fit(along)
    mixed = rng.permutation(mixture.sample(count)[0])
    if codes.shape[1] > MIXED:
        rest = rng.standard_normal((count, len(basis) - MIXED)) * deviations[MIXED:]
        mixed = mean + np.hstack([mixed, rest]) @ basis
    drawn["mixture of Gaussians"] = mixed
    priors = {name: torch.from_numpy(places).float() for name, places in drawn.items()}
    own = subject.model.prior_codes(count, seed=0)
    return priors if own is None else {**priors, "prior": own.flatten(1)}


def scores(subject: Subject, priors: dict[str, Tensor], count: int) -> Scores:
    """Of samples of the priors, reconstructions and training images, against `count` test images."""
    data, net = subject.data, classifier(subject.data)
    size = subject.batch_size

    @torch.inference_mode()
    def of(images: Iterable[Tensor]) -> Array:
        return torch.cat([net.features(part) for part in images]).double().numpy()

    def of_real(images: Tensor) -> Array:
        return of(as_colour(to_float(part), data.target) for part in images.split(size))

    # At random: the first half of MNIST's test images was written by other people than the second.
    chosen = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:count]
    codes = {**priors, "reconstructions": torch.from_numpy(subject.test_codes[chosen.numpy()])}
    fakes = tqdm(codes.items(), desc="samples", leave=False, disable=None)
    compared = {name: of(subject.decode(places)) for name, places in fakes}
    compared["training images"] = of_real(data.train.images[:count])
    real = of_real(data.test.images[chosen])
    return {
        name: {"frechet": frechet_distance(real, fake), **prdc(real, fake, NEIGHBOURS)}
        for name, fake in tqdm(compared.items(), desc="distances", leave=False, disable=None)
    }


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
    k = min(k, len(real) - 1, len(fake) - 1)

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
