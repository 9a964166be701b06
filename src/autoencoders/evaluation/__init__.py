"""Scores a trained model on the official test split, beside what one gets without it, and reports."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from autoencoders import figures, runs, untrusted
from autoencoders.config import shareable
from autoencoders.data import ImageDataModule
from autoencoders.evaluation import colour, generation, latent, report, representation, restoration
from autoencoders.evaluation.subject import Rows, Subject
from autoencoders.files import write_json
from autoencoders.loggers import log_evaluation
from autoencoders.metrics import metric_names, squared_error
from autoencoders.models import VAE, BaseAutoencoder, ColorizationAutoencoder
from autoencoders.training import build_data, build_model

# Groups of metrics that are rows and nothing else.
GROUPS: dict[str, Callable[[Subject], Rows]] = {
    "colorization": colour.colorization,
    "clustering": representation.clustering,
    "features": representation.features,
    "latent space": latent.latent_space,
}
EXPLAINED: dict[str, Callable[..., Any]] = {  # by their docstrings, in the report
    **GROUPS,
    "likelihood": latent.likelihood,
    "reconstruction": restoration.reconstruction,
    "generation": generation.generation,
}


def evaluate_run(run: Path, cfg: DictConfig) -> dict[str, Rows]:
    """Rebuilds a run's data and best model and evaluates it, into `run/evaluation` and the run's W&B run."""
    start, folder = time.perf_counter(), run / "evaluation"
    bound = (cfg.evaluation.importance_samples, cfg.evaluation.importance_images)
    scores, pictures, subject = evaluate(best_model(run, cfg), build_data(cfg), cfg.figures.images, bound)
    folder.mkdir(exist_ok=True)
    for name, figure in pictures.items():
        figures.save(figure, folder / "figures" / f"{name}.png")
    write_json(folder / "metrics.json", scores)
    OmegaConf.save(OmegaConf.create(shareable(cfg)), folder / "config.yaml")
    report.write(run, scores, list(pictures), subject, EXPLAINED, cfg)
    print(f"\n  report  {folder / 'report.html'}  ({time.perf_counter() - start:.0f} s)")
    for where in log_evaluation(run, cfg, scores, folder / "figures"):
        print(f"  {where}")
    return scores


def evaluate(
    model: BaseAutoencoder, data: ImageDataModule, images: int, bound: tuple[int, int]
) -> tuple[dict[str, Rows], dict[str, Figure], Subject]:
    """Scores `model` and reference rows on the test images, and draws `images` of them; `bound` is the number
    of samples and of images of a VAE's importance-weighted bound. Each group is printed once it is there.

    Returns:
        {"<group>": {"model": {metric: value}, "<reference row>": {...}, ...}, ...}, figures by file name, and
        what was evaluated.
    """
    subject = Subject(model, data)
    scores, pictures = dict[str, Rows](), figures.draw_all(model, data, data.test, images)

    def keep(group: str, rows: Rows) -> None:
        scores[group] = rows
        print(f"\n{group}\n{table(rows)}", flush=True)

    reconstruction, errors = restoration.reconstruction(subject)
    keep("reconstruction", reconstruction)
    pictures["errors"] = figures.histogram(
        errors.numpy(), x="mse of an image", title="test images by their error"
    )
    pictures["best_and_worst"] = figures.rows(best_and_worst(subject, errors, images))
    for name, group in GROUPS.items():
        if name != "colorization" or isinstance(model, ColorizationAutoencoder):
            keep(name, group(subject))
    if isinstance(model, VAE):
        keep("likelihood", latent.likelihood(subject, *bound))
    generated, samples = generation.generation(subject)
    keep("generation", generated)
    pictures.pop("samples", None)  # of a VAE's prior, which is among these
    for name, drawn in samples.items():
        title = f"samples: {name}"
        pictures["samples_" + name.replace(" ", "_")] = figures.grid(drawn, columns=10, title=title)
    pictures["spectrum"] = spectrum(subject)
    pictures["interpolations"] = figures.rows(latent.interpolations(subject))
    pictures["traversals"] = figures.rows(latent.traversals(subject))
    return scores, pictures, subject


def spectrum(subject: Subject) -> Figure:
    """The eigenvalues of the test codes' covariance, the largest first."""
    _, deviations = latent.main_directions(subject)
    places, none = [float(i + 1) for i in range(len(deviations))], [0.0] * len(deviations)
    series = {"eigenvalue": (places, list(deviations**2), none)}
    return figures.curves(series, x="direction", y="variance of the codes", title="spectrum of the code")


@torch.inference_mode()
def best_and_worst(subject: Subject, errors: Tensor, count: int) -> dict[str, Tensor]:
    """Rows of images: the test images with the smallest and the largest error, and what is made of them."""
    order, test, rows = errors.argsort(), subject.data.test, dict[str, Tensor]()
    for name, chosen in (("best", order[:count]), ("worst", order[-count:].flip(0))):
        corrupted = None if test.corrupted is None else test.corrupted[chosen]
        some = type(test)(test.images[chosen], test.labels[chosen], corrupted)
        shown = figures.model_rows(subject.model, subject.data.first(some, count, subject.model.device))
        rows |= {f"{name}: {title}": images for title, images in shown.items()}
    return rows


def best_model(run: Path, cfg: DictConfig) -> BaseAutoencoder:
    """The best model of a run, on the GPU if there is one."""
    model = build_model(cfg, build_data(cfg))
    untrusted.load_weights(model, runs.best_checkpoint(run))
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


@torch.inference_mode()
def test_errors(run: Path, cfg: DictConfig) -> tuple[float, float]:
    """The mean squared error over the test images, corrupted as `cfg` says, of a run's best model, and of the
    corrupted images themselves."""
    subject = Subject(best_model(run, cfg), build_data(cfg))
    model = corrupted = 0.0
    for batch in subject.batches(subject.data.test, "testing"):
        model += float(squared_error(subject.model(batch.corrupted), batch.clean).double().sum())
        corrupted += float(squared_error(batch.input_as_output, batch.clean).double().sum())
    count = len(subject.data.test)
    return model / count, corrupted / count


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A group's scores as text, a line a row."""
    columns = metric_names(rows)
    width = max(map(len, rows)) + 2
    widths = [max(10, len(column) + 2) for column in columns]
    lines = [" " * width + "".join(f"{column:>{w}}" for column, w in zip(columns, widths, strict=True))]
    for row, metrics in rows.items():
        cells = (
            f"{metrics[c]:>{w}.4g}" if c in metrics else " " * w for c, w in zip(columns, widths, strict=True)
        )
        lines.append(f"{row:<{width}}" + "".join(cells))
    return "\n".join(lines)
