"""What is evaluated: a trained model, its data, and what several groups of metrics need of both."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor
from tqdm import tqdm

from autoencoders.data import ImageDataModule
from autoencoders.data.modules import as_colour
from autoencoders.data.pairs import Batch, Images, to_float
from autoencoders.models import BaseAutoencoder

Array = NDArray[np.float32]
LABELLED = 10_000


class Subject:
    """A model in evaluation mode and its data, all three splits of which are read."""

    def __init__(self, model: BaseAutoencoder, data: ImageDataModule) -> None:
        self.model, self.data = model.eval(), data
        data.prepare_data()
        data.setup(None)

    def batches(self, images: Images, description: str) -> Iterator[Batch]:
        """The pairs of one split with a fixed corruption, on the model's device."""
        order = torch.arange(len(images)).split(self.data.eval_batch_size)
        for step, rows in enumerate(tqdm(order, desc=description, leave=False, disable=None)):
            yield self.data.pair(images.take(rows, step).to(self.model.device), training=False)

    @cached_property
    def labelled(self) -> Images:
        """Training images whose labels the probes may see, corrupted as the test images are."""
        return self.data.labelled(LABELLED)

    @torch.inference_mode()
    def codes(self, images: Images) -> Array:
        """(N, code_dim): the codes of what the encoder reads of one split."""
        parts = [
            self.model.encode(batch.corrupted).float().cpu() for batch in self.batches(images, "encoding")
        ]
        return torch.cat(parts).numpy()

    @cached_property
    def train_codes(self) -> Array:
        return self.codes(self.labelled)

    @cached_property
    def test_codes(self) -> Array:
        return self.codes(self.data.test)

    @cached_property
    def test_labels(self) -> NDArray[np.int64]:
        return self.data.test.labels.numpy()

    def pixels(self, images: Images) -> Array:
        """(N, D): what the encoder reads of one split, flat."""
        parts = [batch.corrupted.flatten(1).cpu() for batch in self.batches(images, "reading")]
        return torch.cat(parts).numpy()

    @cached_property
    def test_pixels(self) -> Array:
        return self.pixels(self.data.test)

    @cached_property
    def pca(self) -> PCA:
        """PCA with as many components as the code has numbers, of the images that the model was trained on,
        as its encoder reads them but uncorrupted."""
        parts = self.data.train.images.split(1000)
        flat = torch.cat([as_colour(to_float(part), self.data.input) for part in parts]).flatten(1).numpy()
        return PCA(min(self.model.code_dim, *flat.shape), svd_solver="covariance_eigh").fit(flat)

    def pca_reconstruction(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) reconstructed from as many numbers each as the code has."""
        flat = images.flatten(1).cpu().numpy()
        reconstruction = torch.from_numpy(self.pca.inverse_transform(self.pca.transform(flat)))
        return reconstruction.to(images).view_as(images)

    @property
    def representations(self) -> dict[str, tuple[Array, Array]]:
        """What the encoder makes of (labelled training images, test images), and PCA, and nobody."""
        train, test = self.pixels(self.labelled), self.test_pixels
        return {
            "model": (self.train_codes, self.test_codes),
            f"PCA {self.model.code_dim}": (self.pca.transform(train), self.pca.transform(test)),
            "pixels": (train, test),
        }


Rows = dict[str, dict[str, Any]]  # {"model": {metric: value}, "<reference row>": {...}}
