"""Lightness and colour: luma, CIELAB, and classes of colour. Images are (B, 3, H, W) in [0, 1], sRGB.

A gray image tells the lightness of the coloured one, so a colorizer that keeps it has only the colour to
find: two numbers a pixel, a* and b* of CIELAB or two of what is left of RGB without its luma.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
# Linear sRGB to XYZ of its white (D65, 2°), which is (1, 1, 1) here (IEC 61966-2-1).
XYZ = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)
RGB = np.linalg.inv(XYZ).tolist()  # and back
DARK = 6 / 29  # where the cube root of CIELAB becomes a line
NEAREST = 5  # bins that a colour is encoded by, as in Zhang et al. 2016


def luma(images: Tensor) -> Tensor:
    """(B, 1, H, W)."""
    weights = torch.tensor(LUMA, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def with_luma(gray: Tensor, colours: Tensor) -> Tensor:
    """r = gray + (c − luma(c)), whose luma is the gray image's (B, 1, H, W); it may leave [0, 1]."""
    return gray + (colours - luma(colours))


def in_gamut(gray: Tensor, coloured: Tensor) -> Tensor:
    """Pixels that leave [0, 1] become less colourful, so far as they must, where clipping would change their
    luma. `coloured` has the luma of `gray`, which is in [0, 1]."""
    colour = coloured - gray
    room = torch.where(colour > 0, 1 - gray, gray)
    most = (room / colour.abs().clamp(min=1e-6)).amin(1, keepdim=True).clamp(max=1)
    return (gray + most * colour).clamp(0, 1)  # rounding


def to_lab(images: Tensor) -> Tensor:
    """sRGB to CIELAB (D65): L* in 0..100, a* and b* some −110..110; (B, 3, H, W)."""
    linear = torch.where(images > 0.04045, ((images + 0.055) / 1.055).clamp(min=0) ** 2.4, images / 12.92)
    xyz = _mixed(torch.tensor(XYZ, dtype=torch.float64), linear)
    x, y, z = torch.where(
        xyz > DARK**3, xyz.clamp(min=DARK**3) ** (1 / 3), xyz / (3 * DARK**2) + 4 / 29
    ).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def from_lab(lab: Tensor) -> Tensor:
    """CIELAB to sRGB; colours that there are none of in sRGB are clipped."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    xyz = torch.where(roots > DARK, roots**3, 3 * DARK**2 * (roots - 4 / 29))
    linear = _mixed(torch.tensor(RGB, dtype=torch.float64), xyz).clamp(0, 1)
    return torch.where(
        linear > 0.0031308, 1.055 * linear.clamp(min=1e-6) ** (1 / 2.4) - 0.055, 12.92 * linear
    )


def _mixed(matrix: Tensor, images: Tensor) -> Tensor:
    """Each pixel's three numbers times a matrix (3, 3), by sums, as matrix products may be of bfloat16."""
    return (matrix.to(images)[:, :, None, None] * images[:, None]).sum(2)


@cache
def bins(side: float) -> Tensor:
    """The centres (K, 2) of those squares of the plane of a* and b*, `side` wide, that some colour of sRGB is
    in; with 10, some 250 of them (Zhang et al. 2016, §2.2)."""
    levels = torch.linspace(0, 1, 33, dtype=torch.float64)  # all machines have to find the same
    colours = torch.cartesian_prod(levels, levels, levels)[:, :, None, None]
    places = (to_lab(colours)[:, 1:, 0, 0] / side).round()
    return (places.unique(dim=0) * side).float()


def soft_encoded(ab: Tensor, centres: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """The bins (N, 5) nearest to places (N, 2), the nearest first, and their weights (N, 5), which add up to
    1: a Gaussian of the distance, with σ = width."""
    squared = torch.cdist(ab, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
    nearest, index = squared.topk(min(NEAREST, len(centres)), dim=1, largest=False)
    return index, (-nearest / (2 * width**2)).softmax(1)


def class_weights(frequencies: Tensor, centres: Tensor, width: float, uniform: float) -> Tensor:
    """How much a pixel of each bin (K,) counts, so that the rare colours are learnt too (Zhang et al. 2016,
    §2.2): w ∝ 1 / ((1 − λ) p̃ + λ / K), with p̃ the frequencies smoothed over a* and b*; on average 1.

    Args:
        frequencies: (K,), which add up to 1.
        centres: (K, 2), of the bins.
        width: σ of the Gaussian that they are smoothed by.
        uniform: λ, in 0..1; with 1 all count the same.
    """
    near = (-torch.cdist(centres, centres).square() / (2 * width**2)).exp()
    smooth = near @ (frequencies / near.sum(0))
    weights = 1 / ((1 - uniform) * smooth + uniform / len(centres)).clamp(min=1e-6)
    return weights / (frequencies * weights).sum()


def annealed_mean(logits: Tensor, centres: Tensor, temperature: float) -> Tensor:
    """Logits of bins (B, K, H, W) to a* and b* (B, 2, H, W): the mean of the distribution sharpened to the
    power 1/T: T = 1 is the mean, T → 0 the mode (Zhang et al. 2016, §2.3)."""
    p = (logits / temperature).softmax(1)
    # Not as a matrix product, which would be one of bfloat16 under autocast.
    return torch.stack([(p * values[:, None, None]).sum(1) for values in centres.unbind(1)], dim=1)


def enlarged(images: Tensor, height: int, width: int) -> Tensor:
    """(B, C, h, w) to (B, C, height, width), between the pixels in straight lines."""
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
