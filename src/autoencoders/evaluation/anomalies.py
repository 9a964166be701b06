"""Anomalies: images of classes that a model was not trained on, told by how badly it reconstructs them."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from autoencoders.evaluation.intervals import Places, Statistic
from autoencoders.evaluation.subject import Scores, Subject
from autoencoders.metrics import squared_error


@torch.inference_mode()
def anomalies(subject: Subject) -> Scores:
    """How well an image's mean squared error tells the test images of classes that were left out of training
    from all others: the areas under the ROC curve (0.5 by chance) and under the precision-recall curve (by
    chance, the share of such images); beside the error of PCA's reconstruction, and the distance to the mean
    training image."""
    mean = torch.cat([b.clean.cpu() for b in subject.batches(subject.labelled, "mean image")]).mean(0)
    errors: dict[str, list[Tensor]] = {}
    for batch in subject.batches(subject.data.test, "anomalies"):
        images = {"model": subject.model(batch.corrupted)}
        if subject.model.has_code:
            images[subject.pca_name] = subject.pca_reconstruction(batch.corrupted).expand_as(batch.clean)
        images["mean image"] = mean.to(batch.clean).expand_as(batch.clean)
        for name, made in images.items():
            errors.setdefault(name, []).append(squared_error(made, batch.clean).double().cpu())
    left_out = ~subject.of_known_class
    return {name: _scores(left_out, torch.cat(parts).numpy()) for name, parts in errors.items()}


def _scores(left_out: NDArray[np.bool_], errors: NDArray[np.float64]) -> dict[str, float]:
    def area(under: Callable[..., float], places: Places) -> float:
        told = left_out[places]
        return under(told, errors[places]) if 0 < told.sum() < len(told) else float("nan")

    areas = {"roc_auc": roc_auc, "pr_auc": average_precision}
    return {name: Statistic(partial(area, under), len(errors)) for name, under in areas.items()}


# As scikit-learn computes them, whose checks of its input would take longer than all else.


def roc_auc(told: NDArray[np.bool_], errors: NDArray[np.float64]) -> float:
    """The area under the ROC curve of errors (N,) that should tell which images are `told`: how often one of
    these has a larger error than one of the others, half of the times where they are the same."""
    ranks, these = rankdata(errors), int(told.sum())
    return float((ranks[told].sum() - these * (these + 1) / 2) / (these * (len(told) - these)))


def average_precision(told: NDArray[np.bool_], errors: NDArray[np.float64]) -> float:
    """The area under the precision-recall curve, by steps: Σ (Rₙ − Rₙ₋₁) Pₙ over thresholds n."""
    order = np.argsort(-errors, kind="stable")
    last = np.flatnonzero(np.append(np.diff(errors[order]) != 0, True))  # of those with the same error
    found = np.cumsum(told[order])[last]
    return float((np.diff(found, prepend=0) * found / (last + 1)).sum() / told.sum())
