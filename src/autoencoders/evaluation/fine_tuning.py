"""What pretraining is worth to a classifier (Hinton & Salakhutdinov 2006; Vincent et al. 2010, §6)."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from autoencoders import checks, hardware
from autoencoders.data.pairs import Images
from autoencoders.evaluation.intervals import Mean
from autoencoders.evaluation.representation import probe
from autoencoders.evaluation.subject import Scores, Subject
from autoencoders.models import BaseModel
from autoencoders.models.base import ADAMW
from autoencoders.schedulers import warmup_cosine

PEAK, WARMUP = 1e-3, 0.1  # of the learning rate


class Classifier(nn.Module):
    """Images (B, C, H, W) to logits (B, classes): a linear layer on the code of a copy of the model."""

    def __init__(self, model: BaseModel, classes: int, activation: bool) -> None:
        super().__init__()
        self.model, self.activation = copy.deepcopy(model), activation
        self.head = nn.Linear(model.code_dim, classes).to(model.device)
        nn.init.zeros_(self.head.weight)  # so that the encoder is not disturbed at first
        nn.init.zeros_(self.head.bias)

    def forward(self, corrupted: Tensor) -> Tensor:
        code = self.model.encode(corrupted).flatten(1).float()
        logits: Tensor = self.head(F.silu(code) if self.activation else code)
        return logits


def fine_tuning(
    subject: Subject, fresh: Callable[[], BaseModel], *, epochs: int, activation: bool, seed: int
) -> Scores:
    """The encoder with a linear layer on its code, trained end to end on the labels of all training images,
    which are corrupted and moved as in the run: the share of the test images that it gets wrong. Which epoch
    is tested is chosen on the validation images. Beside it the same network from random weights, and a linear
    probe of the code as it was (logistic regression on standardised numbers), both with the same labels.

    Args:
        fresh: makes the model anew, of random weights.
        epochs: of training, ≥ 1.
        activation: apply a SiLU to the code before the linear layer, as to a hidden layer's units.
        seed: of the random weights.

    Raises:
        ValueError: `epochs` or `activation` is out of its range.
    """
    checks.integer("evaluation.fine_tuning_epochs", epochs, 1)
    checks.boolean("evaluation.fine_tuning_activation", activation)
    data, scores = subject.data, Scores()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        begun = {"model": subject.model, "from scratch": fresh().to(subject.model.device)}
        for row, model in begun.items():
            classifier = Classifier(model, len(data.classes), activation)
            scores[row] = _trained(subject, classifier, epochs, f"fine-tuning: {row}")
    labelled = data.labelled(len(data.train))
    labels = labelled.labels.numpy()
    right = probe(subject.codes(labelled), labels, subject.test_codes, subject.test_labels)
    return {**scores, "linear probe": {"error": Mean(1 - right.values)}}


def _trained(
    subject: Subject, classifier: Classifier, epochs: int, description: str
) -> dict[str, float | int]:
    """Trains a classifier: its test error at the epoch of the smallest validation error, that error, and
    which epoch."""
    data, device = subject.data, subject.model.device
    batches = data.train_dataloader()
    optimizer = ADAMW(classifier.parameters(), lr=PEAK)
    schedule = warmup_cosine(optimizer, epochs * len(batches), WARMUP)
    fast = hardware.fast_precision(device.type) == "bf16-mixed"
    lowest, chosen, best = float("inf"), 0, dict[str, Tensor]()
    with tqdm(total=epochs * len(batches), desc=description, leave=False, disable=None) as bar:
        for epoch in range(epochs):
            batches.set_epoch(epoch)
            classifier.train()
            for raw in batches:
                batch = data.pair(raw.to(device), training=True)
                with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                    logits = classifier(batch.corrupted)
                optimizer.zero_grad()
                F.cross_entropy(logits.float(), batch.labels).backward()
                optimizer.step()
                schedule.step()
                bar.update()
            error = float(_errors(subject, classifier, data.val))
            if error < lowest:
                lowest, chosen, best = error, epoch + 1, copy.deepcopy(classifier.state_dict())
            bar.set_postfix(epoch=epoch + 1, validation_error=lowest)
    classifier.load_state_dict(best)
    return {
        "error": _errors(subject, classifier, data.test),
        "validation_error": lowest,
        "epoch": chosen,
    }


@torch.inference_mode()
def _errors(subject: Subject, classifier: Classifier, images: Images) -> Mean:
    """The share of the images of one split that are taken for another class."""
    classifier.eval()
    wrong = [
        (classifier(batch.corrupted).argmax(1) != batch.labels).cpu()
        for batch in subject.batches(images, "classifying")
    ]
    return Mean(torch.cat(wrong).numpy())
