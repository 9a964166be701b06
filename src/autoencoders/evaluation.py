"""Scores a trained model on the official test split, beside what one gets without it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from sklearn.decomposition import PCA
from torch import Tensor
from tqdm import tqdm

from autoencoders import config, figures
from autoencoders.data import ImageDataModule
from autoencoders.data.modules import as_colour
from autoencoders.data.pairs import Batch, to_float
from autoencoders.files import write_json
from autoencoders.metrics import reconstruction_metrics, squared_error
from autoencoders.models import BaseAutoencoder
from autoencoders.training import build_data


def evaluate_run(run: Path, cfg: DictConfig) -> dict[str, Any]:
    """Rebuilds a run's data and best model and evaluates it, into `run/evaluation`."""
    scores = evaluate(best_model(run, cfg), build_data(cfg), run / "evaluation", cfg.figures.images)
    OmegaConf.save(cfg, run / "evaluation" / "config.yaml", resolve=True)
    return scores


def best_model(run: Path, cfg: DictConfig) -> BaseAutoencoder:
    """The best model of a run, on the GPU if there is one."""
    path, device = config.checkpoint(run, "best"), "cuda" if torch.cuda.is_available() else "cpu"
    model_class: type[BaseAutoencoder] = get_class(cfg.model._target_)
    return model_class.load_from_checkpoint(path, map_location=device, weights_only=True).eval()


@torch.inference_mode()
def test_error(run: Path, cfg: DictConfig) -> float:
    """The mean squared error of a run's best model over the test images, corrupted as `cfg` says."""
    model, data = best_model(run, cfg), build_data(cfg)
    total = torch.zeros((), dtype=torch.float64)
    for batch in _test_batches(model, data):
        total += squared_error(model(batch.corrupted), batch.clean).double().sum().cpu()
    return float(total / len(data.test))


def evaluate(model: BaseAutoencoder, data: ImageDataModule, folder: Path, images: int) -> dict[str, Any]:
    """Scores `model` and the reference rows on the test images; writes metrics.json and the figures.

    Returns:
        {"model": {metric: mean over test images}, "<reference row>": {...}, ...}
    """
    data.prepare_data()
    data.setup("fit")
    pca = fit_pca(data, model.code_dim)
    totals: dict[str, dict[str, Tensor]] = {}
    for batch in _test_batches(model, data):
        with torch.inference_mode():
            reconstruction = model(batch.corrupted)
        _add(totals, "model", model.image_metrics(batch, reconstruction))
        rows = {f"PCA {model.code_dim}": apply_pca(pca, batch.corrupted).expand_as(batch.clean)}
        for name, image in {**rows, **model.references(batch)}.items():
            _add(totals, name, reconstruction_metrics(image, batch.clean))
    scores = {row: {name: float(s / len(data.test)) for name, s in m.items()} for row, m in totals.items()}
    for name, figure in figures.draw_all(model, data, data.test, images).items():
        figures.save(figure, folder / "figures" / f"{name}.png")
    write_json(folder / "metrics.json", scores)
    print(f"{table(scores)}\n\n  evaluation  {folder}")
    return scores


def fit_pca(data: ImageDataModule, components: int) -> PCA:
    """PCA of the images that the model was trained on, as its encoder reads them but uncorrupted."""
    inputs = torch.cat([as_colour(to_float(part), data.input) for part in data.train.images.split(1000)])
    flat = inputs.flatten(1).numpy()
    return PCA(min(components, *flat.shape), svd_solver="covariance_eigh").fit(flat)


def apply_pca(pca: PCA, images: Tensor) -> Tensor:
    """Images (B, C, H, W) reconstructed from as many numbers each as `pca` has components."""
    flat = images.flatten(1).cpu().numpy()
    reconstruction = torch.from_numpy(pca.inverse_transform(pca.transform(flat)))
    return reconstruction.to(images).view_as(images)


def table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The scores as text, a line a row."""
    columns = list(scores["model"])
    width = max(map(len, scores)) + 2
    lines = [" " * width + "".join(f"{column:>12}" for column in columns)]
    for row, metrics in scores.items():
        cells = (f"{metrics[column]:>12.5f}" if column in metrics else " " * 12 for column in columns)
        lines.append(f"{row:<{width}}" + "".join(cells))
    return "\n".join(lines)


def _test_batches(model: BaseAutoencoder, data: ImageDataModule) -> Iterator[Batch]:
    """The test images, on the model's device."""
    data.prepare_data()
    data.setup("test")
    for raw in tqdm(data.test_dataloader(), desc="evaluating", leave=False, disable=None):
        batch = data.pair(raw, training=False)
        yield batch._replace(corrupted=batch.corrupted.to(model.device), clean=batch.clean.to(model.device))


def _add(totals: dict[str, dict[str, Tensor]], row: str, metrics: Mapping[str, Tensor]) -> None:
    sums = totals.setdefault(row, {})
    for name, values in metrics.items():
        sums[name] = sums.get(name, torch.zeros(())) + values.double().sum().cpu()
