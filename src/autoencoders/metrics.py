"""How good a reconstruction is: one value per image (B,), so that a mean over images is exact however they
are split into batches and over devices. Images are (B, C, H, W) in [0, 1].
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import peak_signal_noise_ratio

from autoencoders.colours import luma


def squared_error(reconstruction: Tensor, clean: Tensor, weights: Tensor | tuple[()] = ()) -> Tensor:
    """The mean over pixels (and channels) of the squared error, times what each pixel counts (B, 1, H, W)."""
    squared = (reconstruction - clean).square()
    return (weights * squared if isinstance(weights, Tensor) else squared).flatten(1).mean(1)


def psnr(reconstruction: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, of each image: −10 log10(its mse)."""
    values = peak_signal_noise_ratio(reconstruction, clean, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=100)  # a perfect image has infinitely many dB, which no mean survives


def ssim(reconstruction: Tensor, clean: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004): Gaussian window of 11 pixels, σ = 1.5, edges
    reflected. As torchmetrics computes it, but one axis at a time and 5 to 10 times faster."""
    # On a CPU in blocks that stay in its cache.
    block = max(1, (2**22 if clean.is_cuda else 2**16) // clean.shape[1:].numel())
    values = []
    for some, some_clean in zip(reconstruction.split(block), clean.split(block), strict=True):
        a, b = (F.pad(images, (5, 5, 5, 5), mode="reflect") for images in (some, some_clean))
        mean_a, mean_b, aa, bb, ab = _blurred(torch.stack([a, b, a * a, b * b, a * b]))
        covariance = ab - mean_a * mean_b
        variances = (aa - mean_a.square()).clamp(min=0) + (bb - mean_b.square()).clamp(min=0)
        luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a.square() + mean_b.square() + 0.01**2)
        structure = (2 * covariance + 0.03**2) / (variances + 0.03**2)
        values.append((luminance * structure).flatten(1).mean(1))
    return torch.cat(values)


def _blurred(images: Tensor) -> Tensor:
    """(..., H, W) to (..., H − 10, W − 10), by the window of `ssim`: weighted sums of the images moved, as
    matrix products could be of less than float32's precision."""
    weights = [math.exp(-((place - 5) ** 2) / (2 * 1.5**2)) for place in range(11)]
    for axis in (-1, -2):
        size = images.shape[axis] - 10
        total = torch.zeros_like(images.narrow(axis, 0, size))
        for place, weight in enumerate(weights):
            total.add_(images.narrow(axis, place, size), alpha=weight / sum(weights))
        images = total
    return images


def reconstruction_metrics(reconstruction: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """mse, mae, psnr and ssim of each image."""
    return {
        "mse": squared_error(reconstruction, clean),
        "mae": (reconstruction - clean).abs().flatten(1).mean(1),
        "psnr": psnr(reconstruction, clean),
        "ssim": ssim(reconstruction, clean),
    }


def with_gain(metrics: dict[str, Tensor], corrupted: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Adds `gain_db`, the dB of PSNR by which an image is better than the corrupted one; not where nothing is
    corrupted."""
    if torch.equal(corrupted, clean):
        return metrics
    return {**metrics, "gain_db": metrics["psnr"] - psnr(corrupted, clean)}


def chroma_squared_error(reconstruction: Tensor, clean: Tensor) -> Tensor:
    """The mean squared error of what is left of RGB images (B, 3, H, W) without their luma (BT.601)."""
    difference = reconstruction - clean
    return (difference - luma(difference)).square().flatten(1).mean(1)


def metric_names(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The columns of a table of scores: every metric that a row has, in the order of appearance."""
    return list(dict.fromkeys(metric for metrics in scores.values() for metric in metrics))
