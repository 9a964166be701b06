"""Anomalies: images of classes that a model was not trained on, told by how badly it reconstructs them."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

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
    return {
        "roc_auc": float(roc_auc_score(left_out, errors)),
        "pr_auc": float(average_precision_score(left_out, errors)),
    }
