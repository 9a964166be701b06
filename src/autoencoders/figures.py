"""The lecture's figures, as matplotlib figures. Images are (N, C, H, W) in [0, 1], on any device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from torchvision.utils import make_grid

from autoencoders.data import Batch, ImageDataModule
from autoencoders.data.pairs import Images
from autoencoders.files import atomic_write
from autoencoders.models import BaseModel
from autoencoders.palette import COLOURS, of_classes

IN_THUMBNAIL, LARGEST_THUMBNAIL = 8, 64  # images, and pixels a side
SCATTERED, MOST_SCATTERED = 5000, 64_000_000  # images in the latent scatter, and their numbers
COUNTED, MOST_COUNTED, BINS = 1000, 64, 60  # images, and numbers of the code, in its histograms


@dataclass(frozen=True)
class Rows:
    """One row of images (N, C, H, W) for each title."""

    images: Mapping[str, Tensor]

    def drawn(self) -> Figure:
        return image_rows(self.images)


@dataclass(frozen=True)
class Sheet:
    """Images (N, C, H, W) side by side, line by line."""

    images: Tensor
    columns: int
    title: str

    def drawn(self) -> Figure:
        return grid(self.images, self.columns, self.title)


@dataclass(frozen=True)
class Counts:
    """How many images are in each line and column, which are named by `down` and `across`."""

    counts: NDArray[np.int_]
    down: Sequence[str]
    across: Sequence[str]
    x: str
    y: str
    title: str

    def drawn(self) -> Figure:
        return heatmap(self.counts.tolist(), self.down, self.across, self.x, self.y, self.title, digits=0)


Picture = Rows | Sheet | Counts | Figure


def image_rows(images: Mapping[str, Tensor]) -> Figure:
    """One row of images for each title; what has been done to an image stands below it."""
    count = len(next(iter(images.values())))
    figure = Figure(figsize=(0.9 * count + 1.6, 1.0 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), 1, squeeze=False)[:, 0]
    for axis, (title, row) in zip(axes, images.items(), strict=True):
        _show(axis, row, columns=count)
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=11, parse_math=False)
    return figure


def grid(images: Tensor, columns: int, title: str) -> Figure:
    """Images side by side, line by line."""
    figure = Figure(figsize=(7, 7.4), layout="constrained")
    axis = figure.subplots()
    _show(axis, images, columns=columns, padding=1)
    axis.set_title(title)
    return figure


def latent_scatter(codes: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Each image at its two-dimensional code (N, 2), coloured by its class, if there are classes."""
    figure = Figure(figsize=(7.6, 6.4), layout="constrained")
    axis = figure.subplots()
    places = codes.cpu().numpy()
    if not classes:
        axis.scatter(places[:, 0], places[:, 1], s=4, alpha=0.7, color=COLOURS[0], linewidths=0)
    for index, (name, colour) in enumerate(zip(classes, of_classes(len(classes)), strict=True)):
        mine = places[(labels == index).cpu().numpy()]
        axis.scatter(mine[:, 0], mine[:, 1], s=4, alpha=0.7, color=colour, label=name, linewidths=0)
    low, high = np.quantile(places, (0.005, 0.995), axis=0)  # a few far images would take all the room
    outside = int(((places < low) | (places > high)).any(1).sum())
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    title = f"images at their two-dimensional code ({outside:,} of {len(places):,} lie further out)"
    axis.set(xlabel="code 1", ylabel="code 2", title=title)
    if classes:
        columns = -(-len(classes) // 25)
        axis.legend(markerscale=4, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, ncols=columns)
    return figure


def manifold(codes: Tensor, decode: Callable[[Tensor], Tensor], side: int = 20) -> Figure:
    """The decoder over a grid of the two-dimensional code (after Kingma & Welling 2014, Fig. 4).

    The grid's lines are the quantiles, from 1 % to 99 %, of each number of `codes` (N, 2): so a region has
    the more room the more images are there.
    """
    levels = torch.linspace(0.01, 0.99, side, device=codes.device)
    first, second = torch.quantile(codes.float(), levels, dim=0).unbind(1)
    down, right = torch.meshgrid(second.flip(0), first, indexing="ij")  # code 2 grows upwards, as in a plot
    figure = Figure(figsize=(7, 7), layout="constrained")
    axis = figure.subplots()
    places = torch.stack([right.flatten(), down.flatten()], dim=1)
    _show(axis, decode(places), columns=side, padding=0, extent=(0, side, 0, side))
    axis.set(xlabel="code 1", ylabel="code 2", title="the decoder over its two-dimensional code")
    ticks = range(0, side, max(1, side // 6))
    axis.set_xticks([tick + 0.5 for tick in ticks], [f"{first[tick]:.1f}" for tick in ticks])
    axis.set_yticks([tick + 0.5 for tick in ticks], [f"{second[tick]:.1f}" for tick in ticks])
    return figure


def curves(
    series: Mapping[str, tuple[Sequence[Any], Sequence[float], Sequence[float]]], x: str, y: str, title: str
) -> Figure:
    """Lines of (x values, y values, their standard deviations) by name; x by its logarithm where it spans
    more than a factor of eight, or named places."""
    figure = Figure(figsize=(6.8, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.set_prop_cycle(color=COLOURS)
    places = list(dict.fromkeys(place for xs, _, _ in series.values() for place in xs))
    numeric = all(isinstance(place, float) for place in places)
    for name, (xs, ys, spread) in series.items():
        at = xs if numeric else [places.index(place) for place in xs]
        axis.errorbar(at, ys, spread, marker="o", capsize=3, label=name, linestyle="-" if numeric else "")
    if numeric:
        if min(places) > 0 and max(places) > 8 * min(places):
            axis.set_xscale("log", base=2)
        ticks = sorted(places) if len(places) < 12 else sorted(places)[:: len(places) // 6]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_xticks([], minor=True)
    else:
        axis.set_xticks(range(len(places)), places, rotation=20, ha="right")
    axis.set(xlabel=x, ylabel=y, title=title)
    axis.grid(alpha=0.3)
    if len(series) > 1:
        axis.legend(frameon=False, fontsize=8)
    return figure


def pareto(points: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> Figure:
    """Points (x values, y values) by name, and the line of those that no other is better than in both."""
    figure = Figure(figsize=(6.8, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.set_prop_cycle(color=COLOURS)
    for name, (xs, ys) in points.items():
        axis.scatter(xs, ys, label=name)
    every = sorted((a, b) for xs, ys in points.values() for a, b in zip(xs, ys, strict=True))
    lowest = np.minimum.accumulate([b for _, b in every])
    front = [point for point, low in zip(every, lowest, strict=True) if point[1] == low]
    axis.step(
        *zip(*front, strict=True), where="post", color="gray", linestyle="--", label="Pareto front", zorder=0
    )
    axis.set_xscale("log", base=2)
    axis.set_xticks(sorted({a for a, _ in every}), [f"{a:g}" for a in sorted({a for a, _ in every})])
    axis.set(xlabel=x, ylabel=y, title=f"{y} against {x}")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    return figure


def histogram(values: NDArray[np.float32], x: str, title: str) -> Figure:
    """How many of the values (N,) are how large; the median is marked."""
    figure = Figure(figsize=(6.8, 4.0), layout="constrained")
    axis = figure.subplots()
    axis.hist(values, bins=60, color=COLOURS[0])
    axis.axvline(
        float(np.median(values)), color="black", linestyle="--", label=f"median {np.median(values):.4g}"
    )
    axis.set(xlabel=x, ylabel="images", title=title)
    axis.legend(frameon=False)
    return figure


def code_histograms(codes: Tensor) -> Figure:
    """How the images' values (N, D) of each number of the code are distributed: a column for each of its
    numbers, or of the MOST_COUNTED that vary most, in the code's order. One that tells nothing of the image
    is a single cell."""
    # One that is not finite would have no place; its training will be stopped for it.
    numbers = np.nan_to_num(codes.float().cpu().numpy(), posinf=0.0, neginf=0.0)
    chosen = np.sort(numbers.std(0).argsort(kind="stable")[::-1][:MOST_COUNTED])
    lows, highs = np.quantile(numbers[:, chosen], (0.001, 0.999), axis=0)
    low, high = lows.min(), highs.max()
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts = np.stack([np.histogram(numbers[:, place].clip(low, high), edges)[0] for place in chosen], axis=1)
    figure = Figure(figsize=(6.8, 4.0), layout="constrained")
    axis = figure.subplots()
    shares = counts / len(numbers)
    image = axis.imshow(
        shares, origin="lower", aspect="auto", cmap="viridis", vmax=float(np.quantile(shares, 0.99)) or None,
        extent=(-0.5, len(chosen) - 0.5, float(edges[0]), float(edges[-1])), interpolation="nearest",
    )  # fmt: skip
    places = range(0, len(chosen), -(-len(chosen) // 16))
    axis.set_xticks(places, [str(chosen[place] + 1) for place in places])
    figure.colorbar(image, label="share of the images", extend="max")
    of_all = "" if len(chosen) == numbers.shape[1] else f" (the {len(chosen)} that vary most)"
    axis.set(xlabel=f"number of the code{of_all}", ylabel="its value", title="histograms of the code")
    return figure


def heatmap(
    values: Sequence[Sequence[float]],
    down: Sequence[str],
    across: Sequence[str],
    x: str,
    y: str,
    title: str,
    digits: int = 4,
) -> Figure:
    """A table of numbers, in colours and in digits after the point; `down` and `across` name its lines and
    columns."""
    figure = Figure(figsize=(1.5 + 0.9 * len(across), 1.5 + 0.6 * len(down)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(values, cmap="viridis", aspect="auto")
    middle = (np.max(values) + np.min(values)) / 2
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            colour = "black" if value > middle else "white"
            axis.text(column, row, f"{value:.{digits}f}", ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(range(len(across)), across, parse_math=False)
    axis.set_yticks(range(len(down)), down, parse_math=False)
    axis.set(xlabel=x, ylabel=y, title=title)
    return figure


def save(picture: Picture, path: Path) -> None:
    """As a PNG."""
    figure = picture if isinstance(picture, Figure) else picture.drawn()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight")


def save_picture(pixels: NDArray[np.uint8], path: Path) -> None:
    """A picture (H, W, 3) as a PNG of as many pixels."""
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, "png", optimize=True)


def to_array(images: Tensor, columns: int, padding: int = 2) -> NDArray[np.uint8]:
    """Images (N, C, H, W) as one picture (H', W', 3) of uint8, white between them."""
    picture = make_grid(images.detach().float().clamp(0, 1).cpu(), columns, padding, pad_value=1.0)
    return (picture * 255).round().byte().permute(1, 2, 0).numpy()


def _show(
    axis: Axes,
    images: Tensor,
    columns: int,
    padding: int = 2,
    extent: tuple[float, float, float, float] | None = None,
) -> None:
    axis.imshow(to_array(images, columns, padding), extent=extent, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


# ---- what a model has to show -----------------------------------------------------------------------------


@torch.inference_mode()
def model_rows(model: BaseModel, batch: Batch) -> dict[str, torch.Tensor]:
    """Images by the title of their row, as `model.row_titles` names them; x̃ only where it is not x."""
    shown = {
        "clean": batch.clean,
        "corrupted": batch.input_as_output,
        "reconstruction": model(batch.corrupted),
    }
    if torch.equal(batch.clean, batch.input_as_output):
        del shown["corrupted"]
    return {title: shown[key] for key, title in model.row_titles.items() if key in shown}


@torch.inference_mode()
def thumbnail(model: BaseModel, data: ImageDataModule, images: Images) -> NDArray[np.uint8]:
    """A picture (H', W', 3) of what the model reads, and below of what it makes of it: the first few images
    of one split, side by side; large ones are averaged."""
    batch = data.first(images, IN_THUMBNAIL, model.device)
    both = torch.cat([batch.input_as_output, model(batch.corrupted)]).float()
    height, width = (min(side, LARGEST_THUMBNAIL) for side in both.shape[2:])
    small = both if both.shape[2:] == (height, width) else adaptive_avg_pool2d(both, (height, width))
    return to_array(small, len(batch.clean), 0)


@torch.inference_mode()
def of_code(model: BaseModel, data: ImageDataModule, images: Images) -> dict[str, Picture]:
    """Every figure of the model's code by file name, on the images of one split; none where there is none."""
    if not model.has_code:
        return {}
    drawn, wanted = dict[str, Picture](), SCATTERED if model.code_dim == 2 else COUNTED
    batch = data.first(images, min(wanted, MOST_SCATTERED // images.images.shape[1:].numel()), model.device)
    codes = torch.cat([model.encode(part).float().flatten(1) for part in batch.corrupted.split(500)])
    if model.code_dim == 2:
        drawn["latent_scatter"] = latent_scatter(codes, batch.labels, data.classes)
        drawn["manifold"] = manifold(codes, model.decode)
    drawn["code_histograms"] = code_histograms(codes)
    if (prior := model.prior_codes(100, seed=0)) is not None:
        columns = min(100, model.sample_columns)
        drawn["samples"] = Sheet(model.decode(prior), columns, "samples from the prior")
    return drawn


@torch.inference_mode()
def draw_all(model: BaseModel, data: ImageDataModule, images: Images, count: int) -> dict[str, Picture]:
    """Every picture that the model has something to show in, by file name, on the images of one split."""
    was_training = model.training
    model.eval()
    rows = Rows(model_rows(model, data.first(images, count, model.device)))
    drawn: dict[str, Picture] = {"reconstructions": rows, **of_code(model, data, images)}
    model.train(was_training)
    return drawn
