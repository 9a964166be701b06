"""What is evaluated: a trained model, its data, and what several groups of metrics need of both.

The cost of an evaluation is bounded whatever the size of its images and codes. Up to MOST_INPUTS numbers an
image, all is computed exactly; beyond, what would grow with their square or cube is approximated, and the
row's name or the group's explanation says how.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from autoencoders.data import ImageDataModule
from autoencoders.data.modules import as_colour
from autoencoders.data.pairs import Batch, Images, to_float
from autoencoders.models import BaseModel

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
Scores = dict[str, dict[str, Any]]  # {"model": {metric: value}, "<reference row>": {...}}: a group's table

LABELLED = 10_000
MOST_INPUTS = 4096  # numbers an image: PCA of 64 x 64 gray images takes 10 s, its cost grows with the cube
MOST_NUMBERS = 160_000_000  # read at once: all of CIFAR-10, 640 MB
BATCH_NUMBERS = 4_000_000  # a batch, below its usual size for large images
MOST_DIRECTIONS = 2048  # numbers of a code up to which its covariance is decomposed


class Directions(NamedTuple):
    """The directions in which codes vary most, the largest first."""

    mean: NDArray[np.float64]  # (D,)
    basis: NDArray[np.float64]  # (R, D), orthonormal rows
    deviations: NDArray[np.float64]  # (R,), the standard deviation along each


class Subject:
    """A model in evaluation mode and its data, all three splits of which are read."""

    def __init__(self, model: BaseModel, data: ImageDataModule) -> None:
        self.model, self.data = model.eval(), data
        data.prepare_data()
        data.setup(None)
        self.inputs = data.train.images.shape[1:].numel()  # numbers of an image as it is untrusted

    @property
    def batch_size(self) -> int:
        """Images that are looked at together."""
        return max(1, min(self.data.eval_batch_size, BATCH_NUMBERS // self.inputs))

    def batches(self, images: Images, description: str, every: int = 1) -> Iterator[Batch]:
        """The pairs of one split with a fixed corruption, on the model's device; of every so many images."""
        device = self.model.device
        order = torch.arange(0, len(images), every).split(self.batch_size)
        for step, places in enumerate(tqdm(order, desc=description, leave=False, disable=None)):
            yield self.data.pair(images.take(places, step).to(device), training=False)

    @property
    def has_classes(self) -> bool:
        """Whether probes, clusters and samples can be scored by classes: all those that the test has were
        trained on."""
        return bool(self.data.classes) and not self.data.only and not self.data.without

    @cached_property
    def of_known_class(self) -> NDArray[np.bool_]:
        """Whether each test image is of a class that was trained on (N,)."""
        known = [self.data.is_trained_on(label) for label in range(len(self.data.classes))]
        return np.array(known, bool)[self.test_labels]

    def every(self, most: int) -> int:
        """k, if every k-th test image is to be looked at so that these have at most `most` numbers."""
        return -(-len(self.data.test) * self.inputs // most)

    def chosen(self, places: Tensor) -> Images:
        """The test images at some places (N,)."""
        test = self.data.test
        corrupted = None if test.corrupted is None else test.corrupted[places]
        return Images(test.images[places], test.labels[places], corrupted)

    @cached_property
    def labelled(self) -> Images:
        """Training images whose labels the probes may see, corrupted as the test images are."""
        return self.data.labelled(LABELLED)

    @torch.inference_mode()
    def codes(self, images: Images) -> Array:
        """(N, code_dim): the codes of what the encoder reads of one split, their places one after another."""
        parts = [
            self.model.encode(batch.corrupted).float().flatten(1).cpu()
            for batch in self.batches(images, "encoding")
        ]
        return torch.cat(parts).numpy()

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Iterator[Tensor]:
        """The images (B, C, H, W) of codes (N, code_dim), batch by batch, on the CPU; what a code doesn't
        tell is that of the first test image."""
        for part in codes.float().split(self.batch_size):
            yield self.model.decode_beside(part.to(self.model.device), self.beside).cpu()

    @cached_property
    def beside(self) -> Tensor:
        """The first test image as the model reads it, (1, C, H, W)."""
        return self.data.first(self.data.test, 1, self.model.device).corrupted

    @cached_property
    def train_codes(self) -> Array:
        return self.codes(self.labelled)

    @cached_property
    def test_codes(self) -> Array:
        return self.codes(self.data.test)

    @cached_property
    @torch.inference_mode()
    def test_clusters(self) -> NDArray[np.int64] | None:
        """The model's own, of the test images (N,); None where it has none."""
        codes = torch.from_numpy(self.test_codes).view(-1, *self.model.code_shape)
        clusters = self.model.clusters_of(codes.to(self.model.device))
        return None if clusters is None else clusters.cpu().numpy()

    @cached_property
    def code_clusters(self) -> Labels:
        """The clusters that k-means finds in the test images' codes (N,): as many as there are classes."""
        return k_means(self.test_codes, self.test_codes, len(self.data.classes))

    @cached_property
    def test_directions(self) -> Directions:
        return main_directions(self.test_codes)

    @cached_property
    def test_labels(self) -> NDArray[np.int64]:
        return self.data.test.labels.numpy()

    @cached_property
    def pca(self) -> PCA:
        """PCA with as many components as the code has numbers, of the images that the model was trained on,
        as its encoder reads them but uncorrupted: of images of more than MOST_INPUTS numbers by a randomized
        method (Halko et al. 2011), and of as many as MOST_NUMBERS hold."""
        with waiting("PCA"):
            parts = self.data.train.images[: self._pca_images].split(1000)
            flat = torch.cat([as_colour(to_float(part), self.data.input) for part in parts]).flatten(1)
            solver = "covariance_eigh" if flat.shape[1] <= MOST_INPUTS else "randomized"
            components = min(self.model.code_dim, *flat.shape)
            return PCA(components, svd_solver=solver, copy=False, random_state=0).fit(flat.numpy())

    @property
    def pca_name(self) -> str:
        """Of PCA's row: how many numbers, and what it was fitted on if not on all training images."""
        images = self._pca_images
        fitted = f" (fitted on {images:,} images)" if images < len(self.data.train) else ""
        return f"PCA {min(self.model.code_dim, self.inputs)}{fitted}"

    @property
    def _pca_images(self) -> int:
        return min(len(self.data.train), MOST_NUMBERS // self.inputs)

    def pca_reconstruction(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) reconstructed from as many numbers each as the code has."""
        flat = images.flatten(1).cpu().numpy()
        reconstruction = torch.from_numpy(self.pca.inverse_transform(self.pca.transform(flat)))
        return reconstruction.to(images).view_as(images)

    @cached_property
    def representations(self) -> dict[str, tuple[Array, Array]]:
        """What the encoder makes of (labelled training images, test images), and PCA, and nobody.

        The pixels of large images are averaged over squares, so that an image has at most MOST_INPUTS.
        """
        (train_pca, train_pixels, _), (test_pca, test_pixels, size) = (
            self._without_model(images) for images in (self.labelled, self.data.test)
        )
        averaged = f" (averaged to {size})" if size else ""
        return {
            "model": (self.train_codes, self.test_codes),
            self.pca_name: (train_pca, test_pca),
            f"pixels{averaged}": (train_pixels, test_pixels),
        }

    def _without_model(self, images: Images) -> tuple[Array, Array, str]:
        """PCA's code (N, code_dim) of what the encoder reads, its pixels (N, D), and the size that they were
        averaged to, if they were."""
        codes, pixels, size = list[Array](), list[Tensor](), ""
        for batch in self.batches(images, "reading"):
            read = batch.corrupted.cpu()
            codes.append(self.pca.transform(read.flatten(1).numpy()))
            small = averaged(read, -(-read.shape[1:].numel() // MOST_INPUTS))
            size = "" if small.shape == read.shape else " x ".join(map(str, small.shape[2:]))
            pixels.append(small.flatten(1))
        return np.concatenate(codes), torch.cat(pixels).numpy(), size


def averaged(images: Tensor, times: float) -> Tensor:
    """Images (B, C, H, W) made at least so many times smaller by averaging squares of pixels."""
    side = int(np.ceil(np.sqrt(times)))
    height, width = (-(-size // side) for size in images.shape[2:])
    return images if side == 1 else F.adaptive_avg_pool2d(images, (height, width))


def k_means(train: Array, test: Array, clusters: int, starts: int = 5) -> Labels:
    """The cluster of each of the codes `test` (N, D), of those that are found in `train`: the best of so many
    starts by k-means++ (Arthur & Vassilvitskii 2007)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different codes than clusters
        found = KMeans(min(clusters, len(train)), n_init=starts, random_state=0).fit(train)
    of_test: Labels = found.predict(test)
    return of_test


def main_directions(codes: Array) -> Directions:
    """The eigenvectors of the covariance of codes (N, D); where D is above MOST_DIRECTIONS, of the covariance
    of the first so many codes."""
    mean, size = codes.mean(0, dtype=np.float64), codes.shape[1]
    if size > MOST_DIRECTIONS:
        some = codes[:MOST_DIRECTIONS] - mean
        with waiting("directions"):
            _, singular, basis = np.linalg.svd(some, full_matrices=False)
        return Directions(mean, basis, singular / np.sqrt(max(1, len(some) - 1)))
    values, vectors = np.linalg.eigh(np.cov(codes, rowvar=False).reshape(size, size))
    return Directions(mean, vectors.T[::-1], np.sqrt(np.maximum(values[::-1], 0)))


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Shows on a terminal what is being waited for, while it takes."""
    with tqdm(desc=description, bar_format="{desc} …", leave=False, disable=None):
        yield
