"""Scores a trained model on the official test split, beside what one gets without it, and reports."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from autoencoders import chance, figures, runs, untrusted
from autoencoders.config import shareable
from autoencoders.data import ImageDataModule
from autoencoders.errors import UserError, suggest
from autoencoders.evaluation import (
    anomalies,
    colour,
    contraction,
    discrete,
    fine_tuning,
    generation,
    headline,
    intervals,
    latent,
    report,
    representation,
    restoration,
)
from autoencoders.evaluation.subject import Scores, Subject, waiting
from autoencoders.files import atomic_write, write_json
from autoencoders.loggers import log_evaluation
from autoencoders.metrics import metric_names, squared_error
from autoencoders.models import BaseModel
from autoencoders.terminal import say, say_next, say_where, say_wrapped, width
from autoencoders.training import build_data, build_model

Group = Callable[[Subject], Scores]

BY_LABELS: dict[str, Group] = {"clustering": representation.clustering, "features": representation.features}
OF_SOME_MODELS: dict[str, Group] = {  # of those whose `evaluations` name them
    "classes": generation.classes,
    "colorization": colour.colorization,
    "likelihood": latent.likelihood,
    "contraction": contraction.contraction,
    "codebook": discrete.codebook,
}
EXPLAINED: dict[str, Callable[..., Any]] = {  # by their docstrings, in the report
    **BY_LABELS,
    "anomalies": anomalies.anomalies,
    **OF_SOME_MODELS,
    "reconstruction": restoration.reconstruction,
    "latent space": latent.latent_space,
    "generation": generation.generation,
}


def evaluate_run(
    run: Path, cfg: DictConfig, trained_before: bool = False, overrides: Sequence[str] = ()
) -> dict[str, Scores]:
    """Rebuilds a run's data and best model and evaluates it, into `run/evaluation` and the run's W&B run.

    Args:
        overrides: what was said of data and corruption, for the report.
        trained_before: whether this process has trained it, and so has said how to look at its loggers.
    """
    start, folder = time.perf_counter(), run / "evaluation"
    bound = (cfg.evaluation.importance_samples, cfg.evaluation.importance_images)
    scores, pictures, subject = evaluate(best_model(run, cfg), build_data(cfg), cfg.figures.images, bound)
    folder.mkdir(exist_ok=True)
    for name, picture in tqdm(pictures.items(), desc="figures", leave=False, disable=None):
        figures.save(picture, folder / "figures" / f"{name}.png")
    numbers = intervals.plain(scores)
    write_json(folder / "metrics.json", numbers)
    write_json(folder / "intervals.json", intervals.of_scores(scores))
    with atomic_write(run / chance.ERRORS) as temporary, temporary.open("wb") as file:
        np.save(file, scores["reconstruction"]["model"]["mse"].values)
    OmegaConf.save(OmegaConf.create(shareable(cfg)), folder / "config.yaml")
    with waiting("report"):
        report.write(run, scores, pictures, subject, EXPLAINED, cfg, left_out(subject), overrides)
    print()
    for index, line in enumerate(headline.lines(scores, len(subject.data.test))):
        say_wrapped("" if index else "test", line)
    say("report", f"{runs.near(folder / 'report.html')}  ({time.perf_counter() - start:.0f} s)")
    for where in log_evaluation(run, cfg, numbers, folder / "figures"):
        if not trained_before:  # which has said it
            say_where(where)
    print()
    grid = run / report.GRID
    if not grid.is_file() or runs.is_outdated(run, grid):
        command = runs.command_for(runs.near(run), "evaluate.py", "run", "grid=true")
        say_next("tests it on six kinds of corruption", command)
    sys.stdout.flush()
    return scores


def score_run(run: Path, cfg: DictConfig, groups: Sequence[str]) -> dict[str, Scores]:
    """Only some groups of scores, without figures and a report, into `run/evaluation/groups.json`, and
    their intervals into `groups_intervals.json`.

    Raises:
        UserError: this model and its data have no such group.
    """
    bound = (cfg.evaluation.importance_samples, cfg.evaluation.importance_images)
    subject = Subject(best_model(run, cfg), build_data(cfg))
    known: dict[str, Group] = {
        "reconstruction": lambda of: restoration.reconstruction(of)[0],
        **groups_of(subject, bound),
        **({"generation": lambda of: generation.generation(of)[0]} if subject.model.has_code else {}),
        **only_named(subject, cfg),
    }
    groups = [name.replace("_", " ") for name in groups]
    if unknown := [name.replace(" ", "_") for name in groups if name not in known]:
        there = [name.replace(" ", "_") for name in known]
        raise UserError(f"groups={unknown[0]}: {suggest(unknown[0], there)}")
    scores = {name: known[name](subject) for name in groups}
    for name, of_group in scores.items():
        intervals.estimate(of_group, len(subject.data.test))
        print(f"\n{name}\n{table(of_group)}", flush=True)
    (run / "evaluation").mkdir(exist_ok=True)
    write_json(run / "evaluation" / "groups.json", intervals.plain(scores))
    write_json(run / "evaluation" / "groups_intervals.json", intervals.of_scores(scores))
    print()
    say("scores", str(runs.near(run / "evaluation" / "groups.json")))
    return scores


def evaluate(
    model: BaseModel, data: ImageDataModule, images: int, bound: tuple[int, int]
) -> tuple[dict[str, Scores], dict[str, figures.Picture], Subject]:
    """Scores `model` and reference rows on the test images, and draws `images` of them; `bound` is the number
    of samples and of images of a VAE's importance-weighted bound. Each group is printed once it is there.

    Returns:
        {"<group>": {"model": {metric: value}, "<reference row>": {...}, ...}, ...}, pictures by file name,
        and what was evaluated.
    """
    subject = Subject(model, data)
    groups = groups_of(subject, bound)
    named = ["reconstruction", *groups, *(["generation"] if model.has_code else [])]
    print()
    say_wrapped("evaluation", f"{len(data.test):,} test images: {', '.join(named)}")
    scores, pictures = dict[str, Scores](), figures.draw_all(model, data, data.test, images)

    def keep(group: str, of_group: Scores) -> None:
        scores[group] = of_group
        intervals.estimate(of_group, len(data.test))
        print(f"\n{group}\n{table(of_group)}", flush=True)

    reconstruction, errors = restoration.reconstruction(subject)
    keep("reconstruction", reconstruction)
    pictures["errors"] = figures.histogram(
        errors.numpy(), x="mse of an image", title="test images by their error"
    )
    pictures["best_and_worst"] = figures.Rows(best_and_worst(subject, errors, images))
    for name, group in groups.items():
        keep(name, group(subject))
    if "clustering" in scores and len(data.classes) <= representation.MOST_CONFUSED:
        pictures["clusters"] = representation.confusion(subject)
    if model.has_code:
        generated, samples = generation.generation(subject)
        if generated:
            keep("generation", generated)
        pictures.pop("samples", None)  # of the model's prior, which is among these
        for name, drawn in samples.items():
            title = f"samples: {name}"
            columns = min(100, subject.model.sample_columns) if name == "prior" else 10
            pictures["samples_" + name.replace(" ", "_")] = figures.Sheet(drawn, columns, title)
        pictures["spectrum"] = spectrum(subject)
        if between_classes := latent.interpolations(subject) if subject.has_classes else {}:
            pictures["interpolations"] = figures.Rows(between_classes)
        pictures["traversals"] = figures.Rows(latent.traversals(subject))
    if said := left_out(subject):
        print(f"\n{said}", flush=True)
    return scores, pictures, subject


def left_out(subject: Subject) -> str:
    """What an evaluation leaves out, and why; nothing where it is whole."""
    by_labels = ", ".join(BY_LABELS)
    if not subject.model.has_code:
        return (
            f"the model has no code: PCA, {by_labels}, latent space, samples, spectrum, interpolations, "
            "traversals and the map of the code are left out"
        )
    if not subject.has_classes:
        some = "the model was trained on some classes only"
        why = some if subject.data.classes else "the data set has no classes"
        return f"{why}: {by_labels}, interpolations and the scores of samples are left out"
    if not subject.model.decodes_alone:
        return "the code tells no lightness, which is the input's: the scores of samples are left out"
    return ""


def groups_of(subject: Subject, bound: tuple[int, int]) -> dict[str, Group]:
    """The groups of scores that a model and its data have, beside reconstruction and generation.

    Raises:
        ValueError: the model's `evaluations` name one that there isn't.
    """
    names = subject.model.evaluations
    if unknown := [name for name in names if name not in OF_SOME_MODELS]:
        raise ValueError(
            f"{type(subject.model).__name__}.evaluations={names} names {unknown[0]}: "
            f"there are {', '.join(OF_SOME_MODELS)}"
        )
    has_code = subject.model.has_code
    of_classes: dict[str, Group] = {}
    if subject.data.classes and 0 < subject.of_known_class.sum() < len(subject.data.test):
        of_classes = {"anomalies": anomalies.anomalies}
    by_labels = BY_LABELS if has_code and subject.has_classes else {}
    of_code: dict[str, Group] = {"latent space": latent.latent_space} if has_code else {}
    samples, images = bound
    of_some: dict[str, Group] = {
        **OF_SOME_MODELS,
        "likelihood": partial(latent.likelihood, samples=samples, images=images),
    }
    return {**by_labels, **of_classes, **of_code, **{name: of_some[name] for name in names}}


def only_named(subject: Subject, cfg: DictConfig) -> dict[str, Group]:
    """The groups that take minutes, and so are computed only where they are asked for by name."""
    if not (subject.model.has_code and subject.has_classes):
        return {}
    of_codes: dict[str, Group] = {"clustering of all images": representation.clustering_of_all_images}
    if "codebook" in subject.model.evaluations:  # symbols have no gradient that would reach the encoder
        return of_codes
    return of_codes | {
        "fine tuning": partial(
            fine_tuning.fine_tuning,
            fresh=partial(build_model, cfg, subject.data),
            epochs=cfg.evaluation.fine_tuning_epochs,
            activation=cfg.evaluation.fine_tuning_activation,
            seed=cfg.seed,
        )
    }


def spectrum(subject: Subject) -> figures.Picture:
    """The eigenvalues of the test codes' covariance, the largest first."""
    values = subject.test_directions.deviations**2
    places, none = [float(i + 1) for i in range(len(values))], [0.0] * len(values)
    series = {"eigenvalue": (places, list(values), none)}
    return figures.curves(series, x="direction", y="variance of the codes", title="spectrum of the code")


@torch.inference_mode()
def best_and_worst(subject: Subject, errors: Tensor, count: int) -> dict[str, Tensor]:
    """Images by the title of their row: the test images with the smallest, a middling and the largest error,
    and what is made of them."""
    order, shown = errors.argsort(), dict[str, Tensor]()
    start = max(0, (len(order) - count) // 2)
    parts = {
        "best": order[:count],
        "median": order[start : start + count],
        "worst": order[-count:].flip(0),
    }
    for name, chosen in parts.items():
        batch = subject.data.first(subject.chosen(chosen), count, subject.model.device)
        of_model = figures.model_rows(subject.model, batch)
        shown |= {f"{name}: {title}": images for title, images in of_model.items()}
    return shown


def best_model(run: Path, cfg: DictConfig) -> BaseModel:
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


def table(scores: Mapping[str, Mapping[str, Any]], text: Callable[[Any], str] = intervals.text) -> str:
    """A group's scores as text, a line a row; `text` makes a cell of a score. What the terminal is too narrow
    for comes below, with the rows that have it."""
    columns = metric_names(scores)
    cells = {
        row: [text(metrics[c]) if c in metrics else "" for c in columns] for row, metrics in scores.items()
    }
    widths = [max(map(len, column)) + 2 for column in zip(columns, *cells.values(), strict=True)]
    first = max(map(len, cells)) + 2
    lines, start = list[str](), 0
    while start < len(columns):
        end, used = start + 1, first + widths[start]
        while end < len(columns) and used + widths[end] <= width():
            used, end = used + widths[end], end + 1
        for row, of_row in {"": columns, **cells}.items():
            if any(of_row[start:end]):
                part = zip(of_row[start:end], widths[start:end], strict=True)
                lines.append(f"{row:<{first}}{''.join(f'{cell:>{w}}' for cell, w in part)}".rstrip())
        start = end
    return "\n".join(lines)
