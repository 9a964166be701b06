"""Colorization: how near the colours are, apart from how sharp the image is."""

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor
from tqdm import tqdm

from autoencoders.data.modules import as_colour
from autoencoders.data.pairs import to_float
from autoencoders.evaluation.intervals import Means
from autoencoders.evaluation.subject import Scores, Subject

LEVELS = 64  # of luminance, for the mean colour of each
MOST_TEST, MOST_TRAIN = 31_000_000, 160_000_000  # numbers of the images looked at: all of CIFAR-10's


def colorization(subject: Subject) -> Scores:
    """Means over all pixels of the test images, in CIELAB (D65); of many large images every k-th is taken,
    so that there are at most 31 million numbers:

    - `chroma_error`: the distance in the plane of a* and b*; `ciede2000`: the colour difference ΔE00;
    - `accuracy_2`, `accuracy_5`: the part of pixels whose RGB values are all within 2 % or 5 % of the
      range of the true ones (ε-accuracy, after Nazeri et al. 2018);
    - `colourfulness` of Hasler & Süsstrunk 2003, on a scale of 0..255; the ground truth has a row too.
    """
    palette = mean_colour_of_each_luminance(subject)
    every = subject.every(MOST_TEST)
    means = Means(slice(None, None, every))
    for batch in subject.batches(subject.data.test, "colours", every):
        with torch.inference_mode():
            images = {"model": subject.model(batch.corrupted)}
        levels = (batch.corrupted[:, 0].cpu() * (LEVELS - 1)).round().long()
        images |= {
            "gray as RGB": batch.input_as_output,
            "mean colour of each luminance": palette[levels].permute(0, 3, 1, 2),
            "ground truth": batch.clean,
        }
        for name, image in images.items():
            means.add(name, colour_metrics(_last(image), _last(batch.clean)))
    return means.scores()


def colour_metrics(
    predicted: NDArray[np.float32], true: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """One value an image (B,) of RGB images (B, H, W, 3) in [0, 1]."""
    lab, true_lab = rgb2lab(predicted), rgb2lab(true)
    chroma = np.linalg.norm((lab - true_lab)[..., 1:], axis=-1)
    off = np.abs(predicted - true).max(axis=-1)
    values = {
        "chroma_error": chroma, "ciede2000": deltaE_ciede2000(lab, true_lab),
        "accuracy_2": off <= 0.02, "accuracy_5": off <= 0.05,
    }  # fmt: skip
    return {**{n: v.mean(axis=(1, 2)) for n, v in values.items()}, "colourfulness": colourfulness(predicted)}


def colourfulness(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """(B,) of RGB images (B, H, W, 3) in [0, 1]: 0 for gray, some 80 for very colourful photographs."""
    red, green, blue = (255.0 * images[..., i] for i in range(3))
    opponents = np.stack([red - green, 0.5 * (red + green) - blue]).reshape(2, len(images), -1)
    spread, mean = opponents.std(axis=-1), opponents.mean(axis=-1)
    return np.hypot(*spread) + 0.3 * np.hypot(*mean)


def mean_colour_of_each_luminance(subject: Subject) -> Tensor:
    """(LEVELS, 3): what a colorizer would say that sees nothing but one pixel's luminance."""
    total, count = torch.zeros(LEVELS, 3), torch.zeros(LEVELS)
    images = subject.data.train.images[: MOST_TRAIN // subject.inputs]
    for part in tqdm(images.split(subject.batch_size), desc="luminances", leave=False, disable=None):
        colours = to_float(part)
        level = (as_colour(colours, "gray") * (LEVELS - 1)).round().long().flatten()
        total.index_add_(0, level, colours.permute(0, 2, 3, 1).reshape(-1, 3))
        count += torch.bincount(level, minlength=LEVELS)
    return total / count.clamp(min=1)[:, None]


def _last(images: Tensor) -> NDArray[np.float32]:
    return images.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
