"""Encoders that are trained on as classifiers: groups=fine_tuning."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Compose
from torch import Tensor, nn

from autoencoders import evaluation, runs, training
from autoencoders.data import ImageDataModule
from autoencoders.data.pairs import Images
from autoencoders.errors import UserError
from autoencoders.evaluation import fine_tuning
from autoencoders.evaluation.intervals import Mean
from autoencoders.evaluation.subject import Scores, Subject
from autoencoders.models import Autoencoder
from autoencoders.networks import MLP

OLDER = Path(__file__).parent / "versions" / "0.1" / "vae"


class Halves(ImageDataModule):
    """Noise that is brighter on the left or on the right."""

    image_shape = (1, 6, 6)
    classes = ("left", "right")

    def __init__(self, **options: Any) -> None:
        super().__init__(root="nowhere", batch_size=20, validation_size=40, **options)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(int(train))
        images = torch.randint(0, 160, (240 if train else 100, 1, 6, 6), generator=random)
        labels = torch.arange(len(images)) % 2
        images[labels == 0, ..., :3] += 40
        images[labels == 1, ..., 3:] += 40
        return images.to(torch.uint8), labels


def model() -> Autoencoder:
    return Autoencoder(MLP(hidden=[8]), (1, 6, 6), code_dim=2)


@pytest.fixture
def halves() -> Subject:
    return Subject(model(), Halves())


def tuned(subject: Subject, epochs: int = 6, activation: bool = False, seed: int = 0) -> Scores:
    return fine_tuning.fine_tuning(subject, model, epochs=epochs, activation=activation, seed=seed)


def test_an_encoder_becomes_a_classifier_and_stays_what_it_was(halves: Subject) -> None:
    before = {name: weight.clone() for name, weight in halves.model.state_dict().items()}
    scores = tuned(halves, epochs=20)
    assert set(scores) == {"model", "from scratch", "linear probe"}
    for row in ("model", "from scratch"):
        assert isinstance(scores[row]["error"], Mean)
        assert len(scores[row]["error"].values) == 100
        assert scores[row]["error"] < 0.1
        assert 1 <= scores[row]["epoch"] <= 20
    assert scores["model"]["error"] < scores["linear probe"]["error"]  # of an encoder that learnt nothing yet
    assert all(torch.equal(before[name], weight) for name, weight in halves.model.state_dict().items())


def test_fine_tuning_is_the_same_again_and_leaves_the_random_numbers_alone(halves: Subject) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = tuned(halves)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(7)
    again, other = tuned(halves), tuned(halves, seed=1)
    assert again == first
    assert other["model"] == first["model"]  # it starts from the same weights
    assert other["from scratch"]["error"].values.tolist() != first["from scratch"]["error"].values.tolist()


def test_the_linear_layer_reads_the_code_or_its_activation(halves: Subject) -> None:
    images = torch.rand(3, 1, 6, 6)
    code = halves.model.encode(images)
    for activation, read in ((False, code), (True, nn.functional.silu(code))):
        classifier = fine_tuning.Classifier(halves.model, 2, activation)
        nn.init.ones_(classifier.head.weight)
        torch.testing.assert_close(classifier(images), read.sum(1, keepdim=True).expand(-1, 2))


def test_the_epoch_is_chosen_on_validation_images_and_tested_once(
    halves: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, tested, said = list[Tensor](), list[Tensor](), iter([0.4, 0.2, 0.3, 0.2])

    def errors(_: Subject, classifier: nn.Module, images: Images) -> Mean:
        (weights if images is halves.data.val else tested).append(classifier.head.weight.detach().clone())  # type: ignore[union-attr,operator]
        return Mean([next(said) if images is halves.data.val else 0.25])

    monkeypatch.setattr(fine_tuning, "_errors", errors)
    classifier = fine_tuning.Classifier(halves.model, 2, activation=False)
    score = fine_tuning._trained(halves, classifier, 4, "fine-tuning")
    assert score == {"error": 0.25, "validation_error": pytest.approx(0.2), "epoch": 2}
    assert [torch.equal(weight, tested[0]) for weight in weights] == [False, True, False, False]
    assert len(tested) == 1


def test_an_older_run_is_fine_tuned_with_few_labels(data_root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(OLDER, tmp_path / "a run")
    few = ["data.train_size=32", "evaluation.fine_tuning_epochs=1"]
    run, cfg = runs.compose_evaluated([f"run={copy}", f"data.root={data_root}", *few])
    scores = evaluation.score_run(run, cfg, ["fine_tuning", "clustering_of_all_images"])
    written = json.loads((copy / "evaluation" / "groups.json").read_text())
    assert written["fine tuning"]["model"]["epoch"] == 1
    assert 0 < written["clustering of all images"]["model"]["accuracy"] < 1
    assert scores["fine tuning"]["model"]["error"].interval is not None
    cfg.evaluation.fine_tuning_epochs = 0
    with pytest.raises(ValueError, match=r"^evaluation\.fine_tuning_epochs=0 must be ≥ 1"):
        evaluation.score_run(run, cfg, ["fine_tuning"])


@pytest.mark.parametrize(
    "overrides",
    [["model=fsq", "model.code_dim=64"], ["model=restoration", "network.widths=[4,8]"], ["data.only=[0,1]"]],
    ids=lambda overrides: overrides[0],
)
def test_fine_tuning_needs_a_code_that_can_be_trained_and_classes(
    overrides: list[str], composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = composed("corruption=salt_pepper", "data.validation_size=4", *overrides)
    untrained = training.build_model(cfg, training.build_data(cfg))
    monkeypatch.setattr(evaluation, "best_model", lambda run, cfg: untrained)
    with pytest.raises(UserError, match=r"groups=fine_tuning: .*here are: "):
        evaluation.score_run(tmp_path, cfg, ["fine_tuning"])
    assert not list(tmp_path.iterdir())
