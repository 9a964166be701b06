"""Reconstruction and restoration: how near r = g(f(x̃)) is to x, and what one gets without the model."""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle
from torch import Tensor
from torch.nn import functional as F

from autoencoders.data.pairs import Batch
from autoencoders.evaluation.intervals import Means, Places, Statistic
from autoencoders.evaluation.subject import MOST_INPUTS, MOST_NUMBERS, Scores, Subject, waiting
from autoencoders.metrics import squared_error, with_gain
from autoencoders.networks import parameter_count

TUNED_ON, MOST_TUNED = (
    200,
    1_000_000,
)  # validation images, and their numbers, that choose a filter's parameter
MOST_RESTORED = 41_000_000  # numbers of the test images that are restored without the model
WINDOW, WINDOWS, WINDOW_IMAGES = 11, 400_000, 2000  # of the local linear map: pixels a side; how many fit it
Filter = Callable[[NDArray[np.float32], float], NDArray[np.float32]]
Restorer = Callable[[Batch], Tensor]


def non_local_means(images: NDArray[np.float32], std: float) -> NDArray[np.float32]:
    """Images (B, C, H, W), each pixel the mean of those that are surrounded alike (Buades et al. 2005), under
    noise of a standard deviation."""
    gray = images.shape[1] == 1  # which scikit-image gets wrong if it is told of the one channel
    options = {"patch_size": 5, "patch_distance": 6, "h": 0.6 * std, "sigma": std}
    means = [
        denoise_nl_means(image[0] if gray else image, channel_axis=None if gray else 0, **options)
        for image in images
    ]
    return np.stack(means).reshape(images.shape)


# A filter of images (B, C, H, W) with one parameter, and the values that are tried.
FILTERS: dict[str, tuple[Filter, tuple[float, ...]]] = {
    "median filter": (lambda x, size: median_filter(x, size=(1, 1, int(size), int(size))), (3, 5, 7)),
    "Gaussian filter": (lambda x, sigma: gaussian_filter(x, sigma=(0, 0, sigma, sigma)), (0.5, 1, 1.5, 2, 3)),
    "total variation": (  # Chambolle 2004
        lambda x, weight: np.stack(
            [denoise_tv_chambolle(i, weight, max_num_iter=50, channel_axis=0) for i in x]
        ),
        (0.03, 0.05, 0.07, 0.1, 0.15, 0.3, 0.6, 1.0, 2.0),
    ),
    "non-local means": (non_local_means, (0.03, 0.06, 0.1, 0.15, 0.25)),
}
PHOTOGRAPH = 48  # pixels a side from which on images are like each other within: below, no non-local means


class Restorers:
    """What can be done about a corruption without the model: filters whose parameter is the best on
    validation images, and the linear map that is the best on training images.

    Those of many large images restore every k-th test image only, which their names say.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject, self.every = subject, subject.every(MOST_RESTORED)
        some = f", on 1 in {self.every} images" if self.every > 1 else ""
        small = min(subject.data.target_shape[1:]) < PHOTOGRAPH
        names = [name for name in FILTERS if not (small and name == "non-local means")]
        self.chosen = {name: self._tuned(name) for name in names}
        self.by_name: dict[str, Restorer] = {
            f"{name}{some}": partial(_filtered, FILTERS[name][0], parameter)
            for name, parameter in self.chosen.items()
        }
        target = subject.data.first(subject.data.test, 1, torch.device("cpu")).clean
        exact = max(subject.inputs, target.numel()) <= MOST_INPUTS
        name = "linear (Wiener)" if exact else f"linear (Wiener, {WINDOW} x {WINDOW} window)"
        self.by_name[f"{name}{some}"] = global_wiener(subject) if exact else local_wiener(subject)

    def _tuned(self, name: str) -> float:
        """The filter's parameter that is the best on validation images."""
        apply, values = FILTERS[name]
        count = max(1, min(TUNED_ON, MOST_TUNED // self.subject.inputs))
        batch = self.subject.data.first(self.subject.data.val, count, torch.device("cpu"))
        with waiting(name):
            errors = [squared_error(_filtered(apply, value, batch), batch.clean).mean() for value in values]
        return values[int(np.argmin(errors))]

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Images (B, C, H, W) by the name of what restored them."""
        return {name: restore(batch) for name, restore in self.by_name.items()}


def _filtered(apply: Filter, parameter: float, batch: Batch) -> Tensor:
    return torch.from_numpy(apply(batch.input_as_output.cpu().numpy(), parameter)).to(batch.clean)


def global_wiener(subject: Subject) -> Restorer:
    """The affine map x̃ → x of least squares over the training images: Wiener's filter for images of one
    frame."""
    data = subject.data
    known = data.labelled(min(len(data.train), MOST_NUMBERS // subject.inputs))
    weights = least_squares(
        (batch.corrupted.flatten(1).cpu(), batch.clean.flatten(1).cpu())
        for batch in subject.batches(known, "linear map")
    )

    def restore(batch: Batch) -> Tensor:
        flat = _with_one(batch.corrupted.flatten(1).cpu()) @ weights
        return flat.view_as(batch.clean).to(batch.clean)

    return restore


def local_wiener(subject: Subject) -> Restorer:
    """The affine map of least squares from a window of x̃ to its middle pixel of x, the same at all places:
    Wiener's filter for stationary images, whose cost grows with the pixels and not with their square."""
    known = subject.data.labelled(WINDOW_IMAGES)
    each, random = -(-WINDOWS // len(known)), torch.Generator().manual_seed(0)

    def windows() -> Iterable[tuple[Tensor, Tensor]]:
        for batch in subject.batches(known, "linear map"):
            corrupted, clean = _edges_repeated(batch.corrupted.cpu()), batch.clean.cpu()
            count, _, height, width = clean.shape
            image = torch.arange(count).repeat_interleave(each)
            row, column = (torch.randint(n, (count * each,), generator=random) for n in (height, width))
            every_window = corrupted.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)  # (B, C, H, W, 11, 11), a view
            yield every_window[image, :, row, column].flatten(1), clean[image, :, row, column]

    weights = least_squares(windows())
    kernel = weights[:-1].T.reshape(weights.shape[1], -1, WINDOW, WINDOW)

    def restore(batch: Batch) -> Tensor:
        return F.conv2d(_edges_repeated(batch.corrupted.cpu()), kernel, weights[-1]).to(batch.clean)

    return restore


def _edges_repeated(images: Tensor) -> Tensor:
    return F.pad(images, (WINDOW // 2,) * 4, mode="replicate")


def least_squares(parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """(D + 1, E): the affine map of least squares, with a little ridge, from numbers (N, D) to (N, E)."""
    square, mixed = torch.zeros(()), torch.zeros(())
    for numbers, wanted in parts:
        with_one = _with_one(numbers)
        square = square + with_one.T @ with_one
        mixed = mixed + with_one.T @ wanted
    ridge = 1e-3 * square.diagonal().mean() * torch.eye(len(square))
    return torch.linalg.solve(square + ridge, mixed)


def _with_one(numbers: Tensor) -> Tensor:
    return torch.cat([numbers, torch.ones(len(numbers), 1)], dim=1)


def unaided(subject: Subject, batch: Batch) -> dict[str, Tensor]:
    """Images (B, C, H, W) by the name of what makes them of x̃ without the model, and without restoring."""
    images = dict[str, Tensor]()
    if subject.model.has_code:
        images[subject.pca_name] = subject.pca_reconstruction(batch.corrupted).expand_as(batch.clean)
    images |= subject.model.references(batch)
    return images | (
        {} if subject.data.test.corrupted is None else {"corrupted image": batch.input_as_output}
    )


def reconstruction(
    subject: Subject, beside: bool = True, restorers: Restorers | None = None
) -> tuple[Scores, Tensor]:
    """Means over the test images of mse = Σ(r − x)²/pixels, mae = Σ|r − x|/pixels, psnr = −10 log₁₀ mse (dB)
    and ssim (Wang et al. 2004), with the 5 %, 50 % and 95 % quantiles of the images' mse, how many numbers
    the model learns, and `code_bits`, the size of a code: of float32 numbers, or of symbols log₂ of how many
    there are. Of the model; where it has a code, of PCA with as many numbers, fitted on the same training
    images (randomized above 4,096 inputs); and of what needs no model. Where the images are corrupted,
    `gain_db` is the psnr above that of the corrupted image, and filters, tuned on validation images, and the
    best linear map (above 4,096 inputs of a window) stand beside the model.

    Args:
        beside: whether to score what stands beside the model, too.
        restorers: of this data, if they are there already.

    Returns:
        The scores, and the model's squared error of each test image (N,).
    """
    model, test = subject.model, subject.data.test
    noisy = test.corrupted is not None
    restore = (restorers or Restorers(subject)) if noisy and beside else None
    means, restored = Means(), Means(slice(None, None, restore.every if restore else 1))

    def add(means: Means, batch: Batch, images: dict[str, Tensor]) -> None:
        for name, image in images.items():
            metrics = model.image_metrics(batch, image)
            if noisy:
                metrics = with_gain(metrics, batch.input_as_output, batch.clean)
            means.add(name, metrics)

    for batch in subject.batches(test, "reconstruction"):
        with torch.inference_mode():
            images = {"model": model(batch.corrupted)}
        images |= unaided(subject, batch) if beside else {}
        add(means, batch, images)
    if restore:
        for batch in subject.batches(test, "filters", restore.every):
            add(restored, batch, restore(batch))
    scores = means.scores() | restored.scores()
    errors = scores["model"]["mse"].values
    for metric, level in {"mse_p05": 0.05, "mse_median": 0.5, "mse_p95": 0.95}.items():
        scores["model"][metric] = Statistic(partial(_quantile, errors, level), len(errors))
    scores["model"]["parameters"] = parameter_count(model)
    if model.has_code:
        scores["model"]["code_bits"] = model.code_bits
    return scores, torch.from_numpy(errors)


def _quantile(errors: NDArray[np.float32], level: float, places: Places) -> float:
    return float(np.quantile(errors[places], level))
