"""Targets where there are no clean images: another noisy one, or the noisy image itself at blind spots.

Both learn the mean of what an image could be under its noise, so that mean must be the clean image.
"""

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from autoencoders.corruption import (
    Blur,
    Compose,
    Corruption,
    Gaussian,
    Grayscale,
    Masking,
    Patches,
    SaltPepper,
    Speckle,
)
from autoencoders.randomness import Randomness

SUPERVISIONS = ("clean", "noise2noise", "noise2void")
WINDOW = 5  # pixels a side: where what stands at a blind spot is taken from
BIASED = (Blur, Grayscale, Masking, Patches, SaltPepper, Speckle)


def with_blind_spots(noisy: Tensor, fraction: float, randomness: Randomness) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) in which a random fraction of the pixels are each replaced by another one of the
    window around it, and what each pixel counts then, (B, 1, H, W): 0, or at blind spots 1 / fraction, on
    average 1 (Krull et al. 2019).

    At the edge the window is moved into the image, so that every pixel has as many others to be replaced by.
    """
    count, channels, height, width = noisy.shape
    chance, choice = randomness.uniform(count, 2, height, width).unbind(1)
    tall, wide = min(WINDOW, height), min(WINDOW, width)
    row, column = torch.arange(height, device=noisy.device)[:, None], torch.arange(width, device=noisy.device)
    top = (row - WINDOW // 2).clamp(0, height - tall)  # (H, 1): of the window of a pixel
    left = (column - WINDOW // 2).clamp(0, width - wide)  # (W,)
    itself = (row - top) * wide + column - left  # (H, W): where in its window a pixel is
    other = (choice * (tall * wide - 1)).long()
    other += other >= itself
    source = ((top + other // wide) * width + left + other % wide).flatten(1)  # (B, H W)
    others = noisy.flatten(2).gather(2, source[:, None].expand(-1, channels, -1)).view_as(noisy)
    spots = (chance < fraction)[:, None]
    return torch.where(spots, others, noisy), spots / fraction


def is_unbiased(corruption: Corruption) -> bool:
    """Whether the mean of x̃ is x; one of the user's own is believed to be so."""
    if isinstance(corruption, Compose):
        return all(is_unbiased(step) for step in corruption.steps.values())
    if isinstance(corruption, Gaussian):
        return corruption.mean == 0 and not corruption.clip
    return not isinstance(corruption, BIASED)


def warn_of_bias(supervision: str, corruption: Corruption) -> None:
    """... in one line, where the supervision learns something else than the clean image."""
    if supervision != "clean" and not is_unbiased(corruption):
        rank_zero_warn(
            f"data.supervision={supervision} learns the mean of noisy images (with likelihood=laplace the "
            f"median), which under this {type(corruption).__name__} is not the clean image: use "
            "corruption=gaussian corruption.mean=0 corruption.clip=false, or, where your images are noisy "
            "themselves, data.supervision=noise2void corruption=none"
        )
