"""The explorer of a report: a plane of the code with test images on it, and a decoder that runs in the page,
or pictures of what it makes of places of the plane.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoencoders import figures
from autoencoders.evaluation import browser
from autoencoders.evaluation.subject import Subject, averaged
from autoencoders.pages import png
from autoencoders.palette import of_classes

SIDE = 41  # places of the plane's grid, each way
MOST_POINTS, MOST_PIXELS, MOST_CODES = 1000, 1_000_000, 300_000  # test images on the map, and their numbers
LARGEST = 64  # pixels a side of its images: larger ones are averaged
COLUMNS = 25  # of the sheet of test images
DIRECTIONS = 8  # in which a slider moves the code
CHECKED = 3  # test images whose decoded codes the page compares with the model's


class Plane(NamedTuple):
    """A grid over a plane of the code, whose lines are quantiles of the test codes: so a region has the more
    room the more images are there.

    The plane is the code itself if it has two numbers; else that of its two main directions through its mean.
    """

    origin: NDArray[np.float64]  # (D,)
    basis: NDArray[np.float64]  # (2, D)
    edges: NDArray[np.float64]  # (SIDE + 1, 2), of the places, along both
    axes: str  # what they are

    def places(self) -> Tensor:
        """The codes (SIDE², D) in the middle of each place, line by line from the top."""
        middles = (self.edges[1:] + self.edges[:-1]) / 2
        right, down = np.meshgrid(middles[:, 0], middles[::-1, 1])
        codes = self.origin + np.stack([right.ravel(), down.ravel()], 1) @ self.basis
        return torch.from_numpy(codes).float()

    def project(self, codes: Any) -> Any:
        """Codes (N, D) to (right, down) (N, 2) in [0, 1]."""
        along, levels = (codes - self.origin) @ self.basis.T, np.linspace(0, 1, SIDE + 1)
        x, y = (np.interp(along[:, axis], self.edges[:, axis], levels) for axis in (0, 1))
        return np.stack([x, 1 - y], 1)

    def far(self, codes: Any) -> int:
        """How many codes (N, D) lie beyond its edges, on which they are shown."""
        along = (codes - self.origin) @ self.basis.T
        return int(((along < self.edges[0]) | (along > self.edges[-1])).any(1).sum())


def plane(subject: Subject) -> Plane:
    codes, size = subject.test_codes, subject.model.code_dim
    if size == 2:
        origin, basis, axes = (
            np.zeros(2),
            np.eye(2),
            "the code's two numbers (the first to the right, the second up)",
        )
    else:
        origin, directions, _ = subject.test_directions
        basis = np.zeros((2, size))
        basis[: min(2, size)] = directions[:2]
        axes = "the two main directions of the codes (the first to the right, the second up)"
    edges = np.quantile((codes - origin) @ basis.T, np.linspace(0.005, 0.995, SIDE + 1), axis=0)
    return Plane(origin, basis, edges, axes)


@torch.inference_mode()
def explorer(subject: Subject, refused: str = "") -> dict[str, Any]:
    """What the page needs: {"data": for explorer.js, and words for the text around it}; pictures of places
    instead of a decoder where that is refused, for a reason."""
    flat, test, classes = plane(subject), subject.data.test, list(subject.data.classes)
    codes, images = _points(subject)
    sheet, (height, width) = _sheet(images, COLUMNS), images.shape[2:]
    live, difference = None, 0.0
    try:
        if not refused:
            live, difference = browser.program(subject.model, codes, subject.beside)
    except browser.Undecodable as error:
        refused = str(error)
    mean, directions, deviations = subject.test_directions
    data = {
        "width": width,
        "height": height,
        "channels": images.shape[1],
        "columns": COLUMNS,
        "places": flat.project(codes.numpy()).round(4).tolist(),
        "labels": test.labels[: len(codes)].tolist(),
        "classes": classes,
        "colours": of_classes(len(classes)),
        "codes": browser.base64_of(codes.numpy(), "<f4"),
        "origin": _short(flat.origin),
        "basis": _short(flat.basis),
        "edges": _short(flat.edges.T),
        "mean": _short(mean),
        "directions": _short(directions[:DIRECTIONS]),
        "deviations": _short(deviations[:DIRECTIONS]),
        "side": SIDE,
        "live": live,
        "checked": _checked(subject, codes) if live else None,
    }
    return {
        "data": data,
        "sheet": sheet,
        "sprite": None if live else _sprite(subject, flat),
        "axes": flat.axes,
        "far": flat.far(codes.numpy()),
        "count": len(codes),
        "some": len(codes) < len(test),
        "why": refused,
        "difference": f"{difference:.1g}",
        "of_first": not subject.model.decodes_alone,
    }


def _points(subject: Subject) -> tuple[Tensor, Tensor]:
    """The codes (N, D) of the first test images and, small, the images (N, C, H, W) that are to be made."""
    data = subject.data
    first = data.first(data.test, 1, torch.device("cpu")).clean
    numbers = averaged(first, (max(first.shape[2:]) / LARGEST) ** 2).numel()
    count = min(MOST_POINTS, MOST_PIXELS // numbers, MOST_CODES // subject.model.code_dim, len(data.test))
    count = max(1, count)
    clean = data.first(data.test, count, torch.device("cpu")).clean
    return torch.from_numpy(subject.test_codes[:count]).float(), _small(clean)


def _checked(subject: Subject, codes: Tensor) -> str:
    """What the model makes of the first codes, exactly."""
    images = torch.cat(list(subject.decode(codes[:CHECKED])))
    return browser.base64_of(images.float().numpy(), "<f4")


def _sprite(subject: Subject, flat: Plane) -> str:
    """What the decoder makes of all places of the plane, side by side."""
    return _sheet(torch.cat([_small(part) for part in subject.decode(flat.places())]), SIDE)


def _sheet(images: Tensor, columns: int) -> str:
    picture = figures.to_array(images, columns, 0)
    return png(picture if images.shape[1] == 3 else picture[..., 0])


def _small(images: Tensor) -> Tensor:
    return averaged(images.float(), (max(images.shape[2:]) / LARGEST) ** 2)


def _short(numbers: NDArray[np.float64]) -> Any:
    """Lists of numbers with as many digits as a single precision number has."""
    if numbers.ndim > 1:
        return [_short(row) for row in numbers]
    return [float(f"{number:.7g}") for number in numbers]
