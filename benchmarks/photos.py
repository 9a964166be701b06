"""python -m benchmarks.photos <run>: PSNR of whole held-out photographs with noise, beside that of filters.

The run is one of experiment=photo_denoising, the noise N(0, 25/255²). Each filter has, for each picture, the
parameter that is best for it: more than one can know, so the filters are flattered, and the model isn't. BM3D
and wavelets need `pip install bm3d PyWavelets`; without them their rows are left out.
"""

import sys
import time
from collections.abc import Callable
from importlib import import_module, util

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

import autoencoders
from autoencoders.data import pictures
from autoencoders.data.collections import Photos

Picture = NDArray[np.float64]  # (H, W), 0 to 1
Restore = Callable[[Picture, float], Picture]
STD = 25 / 255
FILTERS: dict[str, tuple[Restore, tuple[float, ...]]] = {
    "median filter": (lambda y, size: median_filter(y, int(size)), (3, 5, 7)),
    "Gaussian filter": (gaussian_filter, (0.6, 0.8, 1.0, 1.2, 1.5)),
    "total variation": (
        lambda y, weight: denoise_tv_chambolle(y, weight, eps=1e-5, max_num_iter=400),
        (0.05, 0.07, 0.09, 0.11, 0.13),
    ),
    "non-local means": (
        lambda y, h: denoise_nl_means(
            y, patch_size=5, patch_distance=8, h=h * STD, sigma=STD, fast_mode=True
        ),
        (0.4, 0.6, 0.8, 1.0),
    ),
}


def psnr(restored: Picture, clean: Picture) -> float:
    """In dB, of pixels limited to [0, 1]."""
    return float(-10 * np.log10(((np.clip(restored, 0, 1) - clean) ** 2).mean()))


def main() -> None:
    run, random, photos = autoencoders.load(sys.argv[1]), np.random.default_rng(0), Photos()
    places = photos.splits()["test"]
    clean = [photos.reader(place, 1, None, "crop")()[0] / 255 for place in places]
    noisy = [picture + STD * random.standard_normal(picture.shape) for picture in clean]
    rows = dict(FILTERS)
    if util.find_spec("pywt"):
        rows["wavelets"] = (lambda y, _: denoise_wavelet(y, sigma=STD, rescale_sigma=False), (0,))
    if util.find_spec("bm3d"):
        rows["BM3D"] = (lambda y, _: import_module("bm3d").bm3d(y, STD), (0,))
    rows["model"] = (lambda y, _: run.reconstruct(y.astype(np.float32)), (0,))
    print(f"{'':16}", *(f"{photos.names[place]:>12}" for place in places), f"{'mean':>8} {'seconds':>8}")
    for name, (restore, parameters) in rows.items():
        start = time.perf_counter()
        found = [
            max(psnr(restore(y, parameter), x) for parameter in parameters)
            for x, y in zip(clean, noisy, strict=True)
        ]
        taken = (time.perf_counter() - start) / len(parameters)
        numbers = "".join(f"{value:13.2f}" for value in found)
        print(f"{name:16}{numbers} {np.mean(found):8.2f} {taken:8.1f}", flush=True)


if __name__ == "__main__":
    with pictures.no_bomb_warnings():
        main()
