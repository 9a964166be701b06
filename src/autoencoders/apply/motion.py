"""Animations of what a decoder makes of a path through the code."""

import importlib.util
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from autoencoders.errors import UserError
from autoencoders.evaluation.latent import between
from autoencoders.evaluation.subject import main_directions
from autoencoders.figures import to_array
from autoencoders.files import atomic_write

SIDE = 168  # pixels, about, that small images are enlarged to
FRAME_S = 0.08
MOST = 8  # directions
REACH = 3.0  # standard deviations


def check_format(kind: str) -> None:
    """Raises UserError where the library for it is missing."""
    if kind == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError("format=mp4 needs imageio-ffmpeg: pip install imageio-ffmpeg, or take format=gif")


def walk(codes: Sequence[Tensor], steps: int) -> Tensor:
    """Codes (N, D) on straight lines from each to the next, and back."""
    legs = [between(a, b, steps + 1, spherical=False)[:-1] for a, b in pairwise(codes)]
    there = torch.cat([*legs, codes[-1][None]])
    return torch.cat([there, there[1:-1].flip(0)])


def traversals(codes: np.ndarray[Any, Any], steps: int) -> Iterator[Tensor]:
    """For each main direction of codes (N, D) the codes (2 steps, D) from their mean to REACH standard
    deviations, to as many on the other side, and back."""
    if len(codes) < 2:
        raise UserError("traverse=true needs at least two pictures whose codes differ")
    mean, basis, deviations = main_directions(codes)
    swing = np.sin(math.pi * np.arange(2 * steps) / steps)[:, None]
    for index in range(min(MOST, len(basis))):
        if deviations[index] > 1e-9:
            yield torch.from_numpy(mean + REACH * swing * deviations[index] * basis[index]).float()


def frames(model: Any, codes: Tensor, batch: int = 256) -> list[Image.Image]:
    """What the model decodes of codes (N, D), enlarged if it is small."""
    with torch.inference_mode():
        images = torch.cat([model.decode(part.to(model.device)).float().cpu() for part in codes.split(batch)])
    times = max(1, SIDE // max(images.shape[2:]))
    images = images.repeat_interleave(times, 2).repeat_interleave(times, 3)
    return [Image.fromarray(to_array(image[None], 1, padding=0)) for image in images]


def save(shown: Sequence[Image.Image], path: Path) -> None:
    """As a GIF that goes on for ever, or as an MP4, as the name says."""
    with atomic_write(path) as temporary:
        if path.suffix == ".mp4":
            import imageio_ffmpeg

            writer = imageio_ffmpeg.write_frames(
                str(temporary),
                shown[0].size,
                fps=1 / FRAME_S,
                macro_block_size=2,  # H.264 takes even sides
                output_params=["-f", "mp4"],  # which the name of what is not finished doesn't tell
            )
            writer.send(None)
            for frame in shown:
                writer.send(np.asarray(frame).tobytes())
            writer.close()
        else:
            first, *others = shown
            milliseconds = round(1000 * FRAME_S)
            first.save(temporary, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
