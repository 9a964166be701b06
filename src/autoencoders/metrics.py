"""How good a reconstruction is: one value an image (B,), so that a mean over images is exact however the
images are cut into batches and spread over devices. Images are (B, C, H, W) in [0, 1].
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure


def squared_error(reconstruction: Tensor, clean: Tensor) -> Tensor:
    """The mean over pixels (and channels) of the squared error."""
    return (reconstruction - clean).square().flatten(1).mean(1)


def psnr(reconstruction: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, of each image: −10 log10(its mse)."""
    values = peak_signal_noise_ratio(reconstruction, clean, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=100)  # a perfect image has infinitely many dB, which no mean survives


def ssim(reconstruction: Tensor, clean: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004): Gaussian window of 11 pixels, σ = 1.5."""
    values = []
    # In blocks that stay in the cache: 2.5 times faster than 1,000 images at once, and 1 GB less memory.
    for some, some_clean in zip(reconstruction.split(50), clean.split(50), strict=True):
        value = structural_similarity_index_measure(some, some_clean, data_range=1.0, reduction="none")
        assert isinstance(value, Tensor)
        values.append(value.view(-1))
    return torch.cat(values)


def reconstruction_metrics(reconstruction: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """mse, mae, psnr and ssim of each image."""
    return {
        "mse": squared_error(reconstruction, clean),
        "mae": (reconstruction - clean).abs().flatten(1).mean(1),
        "psnr": psnr(reconstruction, clean),
        "ssim": ssim(reconstruction, clean),
    }


def chroma_squared_error(reconstruction: Tensor, clean: Tensor) -> Tensor:
    """The mean squared error of what is left of RGB images (B, 3, H, W) without their luma (BT.601)."""
    luma = torch.tensor([0.299, 0.587, 0.114], device=clean.device).view(1, 3, 1, 1)
    difference = reconstruction - clean
    return (difference - (difference * luma).sum(1, keepdim=True)).square().flatten(1).mean(1)


def metric_names(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The columns of a table of scores: every metric that a row has, in the order of appearance."""
    return list(dict.fromkeys(metric for metrics in rows.values() for metric in metrics))
