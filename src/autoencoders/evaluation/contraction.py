"""How much a code changes where the image changes a little."""

import torch
from torch import Tensor

from autoencoders.evaluation.subject import Array, Scores, Subject
from autoencoders.losses import squared_jacobian
from autoencoders.models import BaseAutoencoder
from autoencoders.randomness import Randomness

IMAGES = 1000
PART = 50  # images at once, each with as many gradients as its code has numbers
MOST_EXACT = 64  # numbers of a code up to which the Jacobian is computed whole


@torch.inference_mode()
def contraction(subject: Subject) -> Scores:
    """At 1,000 test images, `jacobian_norm`: the root of the mean of ‖J‖²_F, J being the encoder's Jacobian
    (of codes of more than 64 numbers estimated, from one random direction an image); and `per_deviation`: the
    same, divided by the standard deviation of the codes, so that a code times a constant has the same."""
    model = subject.model
    assert isinstance(model, BaseAutoencoder)
    squared = list[Tensor]()
    first = torch.arange(min(IMAGES, len(subject.data.test)))
    for batch in subject.batches(subject.chosen(first), "contraction"):
        for part in batch.corrupted.split(PART):
            exact = model.code_dim <= MOST_EXACT
            noise = Randomness(len(squared), rows=PART, device=part.device)
            direction = None if exact else noise.normal(len(part), *model.code_shape)
            squared.append(squared_jacobian(model.encode, part, direction)[1])
    of_pca = float((subject.pca.components_**2).sum() ** 0.5)
    return {
        "model": _row(float(torch.cat(squared).mean().sqrt()), subject.test_codes),
        subject.pca_name: _row(of_pca, subject.representations[subject.pca_name][1]),
    }


def _row(norm: float, codes: Array) -> dict[str, float]:
    return {"jacobian_norm": norm, "per_deviation": norm / float(codes.var(0).sum() ** 0.5)}
