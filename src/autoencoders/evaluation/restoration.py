"""Reconstruction and restoration: how near r = g(f(x̃)) is to x, and what one gets without the model."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from skimage.restoration import denoise_tv_chambolle
from torch import Tensor

from autoencoders.data.pairs import Batch
from autoencoders.evaluation.subject import Rows, Subject
from autoencoders.metrics import psnr, squared_error

TUNED_ON = 200  # validation images on which a filter's one parameter is chosen
Filter = Callable[[NDArray[np.float32], float], NDArray[np.float32]]

# A filter of images (B, C, H, W) with one parameter, and the values that are tried.
FILTERS: dict[str, tuple[Filter, tuple[float, ...]]] = {
    "median filter": (lambda x, size: median_filter(x, size=(1, 1, int(size), int(size))), (3, 5, 7)),
    "Gaussian filter": (lambda x, sigma: gaussian_filter(x, sigma=(0, 0, sigma, sigma)), (0.5, 1, 1.5, 2, 3)),
    "total variation": (  # Chambolle 2004
        lambda x, weight: np.stack(
            [denoise_tv_chambolle(i, weight, max_num_iter=50, channel_axis=0) for i in x]
        ),
        (0.1, 0.3, 0.6, 1.0, 2.0),
    ),
}


class Restorers:
    """What can be done about a corruption without the model: filters whose parameter is the best on
    validation images, and the linear map that is the best on training images."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        batch = subject.data.first(subject.data.val, TUNED_ON, torch.device("cpu"))
        corrupted, clean = batch.input_as_output.numpy(), batch.clean
        self.chosen: dict[str, float] = {}
        for name, (apply, values) in FILTERS.items():
            errors = [
                float(squared_error(torch.from_numpy(apply(corrupted, v)), clean).mean()) for v in values
            ]
            self.chosen[name] = values[int(np.argmin(errors))]
        self.linear = self._fit_linear()

    def _fit_linear(self) -> Tensor:
        """The affine map x̃ → x of least squares: Wiener's filter for images of one frame. (D+1, D)."""
        data, square, mixed = self.subject.data, torch.zeros(()), torch.zeros(())
        for batch in self.subject.batches(data.labelled(len(data.train)), "fitting"):
            corrupted = _with_one(batch.corrupted.cpu())
            square = square + corrupted.T @ corrupted
            mixed = mixed + corrupted.T @ batch.clean.flatten(1).cpu()
        ridge = 1e-3 * square.diagonal().mean() * torch.eye(len(square))
        return torch.linalg.solve(square + ridge, mixed)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Images (B, C, H, W) by the name of what restored them."""
        corrupted = batch.input_as_output.cpu().numpy()
        restored = {"corrupted image": batch.input_as_output}
        for name, (apply, _) in FILTERS.items():
            restored[name] = torch.from_numpy(apply(corrupted, self.chosen[name])).to(batch.clean)
        flat = _with_one(batch.corrupted.cpu()) @ self.linear
        restored["linear (Wiener)"] = flat.view_as(batch.clean).to(batch.clean)
        return restored


def _with_one(images: Tensor) -> Tensor:
    return torch.cat([images.flatten(1), torch.ones(len(images), 1)], dim=1)


def reconstruction(subject: Subject) -> tuple[Rows, Tensor]:
    """Means over the test images of mse = Σ(r − x)²/pixels, mae = Σ|r − x|/pixels, psnr = −10 log₁₀ mse (dB)
    and ssim (Wang et al. 2004), with the 5 %, 50 % and 95 % quantiles of the images' mse, and `code_bits`,
    the size of a code of float32 numbers. Of the model; of PCA with as many numbers, fitted on the same
    training images; and of what needs no model. Where the images are corrupted, `gain_db` is the psnr above
    that of the corrupted image, and filters, tuned on validation images, and the best linear map stand
    beside the model.

    Returns:
        The rows, and the model's squared error of each test image (N,).
    """
    totals: dict[str, dict[str, Tensor]] = {}
    errors: list[Tensor] = []
    model = subject.model
    restore = Restorers(subject) if subject.data.test.corrupted is not None else None
    for batch in subject.batches(subject.data.test, "evaluating"):
        with torch.inference_mode():
            images = {"model": model(batch.corrupted)}
        pca = subject.pca_reconstruction(batch.corrupted).expand_as(batch.clean)
        images |= {
            f"PCA {model.code_dim}": pca,
            **model.references(batch),
            **(restore(batch) if restore else {}),
        }
        before = psnr(batch.input_as_output, batch.clean)
        for name, image in images.items():
            metrics = model.image_metrics(batch, image)
            if restore:
                metrics["gain_db"] = metrics["psnr"] - before
            sums = totals.setdefault(name, {})
            for metric, values in metrics.items():
                sums[metric] = sums.get(metric, torch.zeros(())) + values.double().sum().cpu()
        errors.append(squared_error(images["model"], batch.clean).cpu())
    count = len(subject.data.test)
    rows: Rows = {name: {m: float(s / count) for m, s in sums.items()} for name, sums in totals.items()}
    spread = torch.quantile(torch.cat(errors), torch.tensor([0.05, 0.5, 0.95])).tolist()
    rows["model"] |= dict(zip(("mse_p05", "mse_median", "mse_p95"), spread, strict=True))
    rows["model"]["code_bits"] = 32 * model.code_dim
    return rows, torch.cat(errors)
