"""Deep embedded clustering, by brute force and beside k-means; layers that are trained one after another."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Compose
from lightning import Trainer, seed_everything
from numpy.typing import NDArray
from omegaconf import OmegaConf
from sklearn.cluster import KMeans
from torch import Tensor, nn

from autoencoders import training
from autoencoders.data import MNIST, Batch
from autoencoders.data.modules import flipped_and_shifted
from autoencoders.errors import UserError
from autoencoders.losses import kl_of_assignments, sharpened, soft_assignments
from autoencoders.models import DEC, StackedAutoencoder
from autoencoders.networks import MLP, Conv, Linear, fully_connected_layers
from autoencoders.randomness import Randomness
from autoencoders.trained import TrainedRun

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*num_workers", "ignore:.*log_every")
TINY = MLP(hidden=[8])
IMAGES = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def batch(images: Tensor = IMAGES) -> Batch:
    labels = torch.zeros(len(images), dtype=torch.long)
    return Batch(images, images, labels, Randomness(0, rows=len(images)))


# ---- DEC ----


def test_assignments_and_targets_are_those_of_brute_force() -> None:
    codes, centres = torch.randn(5, 3), torch.randn(4, 3)
    q = np.array([[1 / (1 + ((code - m) ** 2).sum()) for m in centres.numpy()] for code in codes.numpy()])
    q /= q.sum(1, keepdims=True)
    soft = soft_assignments(codes, centres)
    np.testing.assert_allclose(soft, q, rtol=1e-5)
    f = q.sum(0)
    p = np.array([[q[i, j] ** 2 / f[j] for j in range(4)] for i in range(5)])
    p /= p.sum(1, keepdims=True)
    target = sharpened(soft, soft.mean(0))  # frequencies may have any common factor
    np.testing.assert_allclose(target, p, rtol=1e-5)
    kl = (p * np.log(p / q)).sum(1)
    np.testing.assert_allclose(kl_of_assignments(target, soft), kl, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_the_clustering_is_the_paper_s() -> None:
    """... of eq. 4 and 5 of Xie et al. 2016: codes go to the centres that they are nearest to."""
    codes = torch.randn(5, 3, requires_grad=True)
    centres = torch.randn(4, 3, requires_grad=True)
    q = soft_assignments(codes, centres)
    p = sharpened(q.detach(), q.detach().mean(0))
    kl_of_assignments(p, q).sum().backward()
    apart = (codes[:, None] - centres).detach()
    pull = 2 * ((p - q.detach()) / (1 + apart.square().sum(2)))[..., None] * apart
    torch.testing.assert_close(codes.grad, pull.sum(1))
    torch.testing.assert_close(centres.grad, -pull.sum(0))


def test_far_codes_have_finite_gradients() -> None:
    codes = torch.full((2, 3), 1e6, requires_grad=True)
    q = soft_assignments(codes, torch.randn(4, 3))
    kl_of_assignments(sharpened(q.detach(), q.detach().mean(0)), q).sum().backward()
    assert codes.grad is not None
    assert codes.grad.isfinite().all()


def clustered(**options: Any) -> DEC:
    """A model that has found three centres."""
    model = DEC(network=TINY, clusters=3, code_dim=2, pretraining_steps=0, **options)
    model.found.fill_(True)
    return model


def test_what_is_aimed_at_stays_while_encoder_and_centres_learn() -> None:
    model = clustered()
    with torch.no_grad():
        start = sharpened(model.assignments(model.encode(IMAGES)), torch.full((3,), 1 / 3))
        torch.testing.assert_close(model.surer(IMAGES), start)
        for parameter in [*model.encoder.parameters(), model.centres]:
            parameter.add_(0.1)
    torch.testing.assert_close(model.surer(IMAGES), start)
    losses = model.terms(batch()).losses
    torch.testing.assert_close(
        losses["clustering"], kl_of_assignments(start, model.assignments(model.encode(IMAGES)))
    )


def test_the_encoder_learns_from_moved_images_what_it_is_sure_of_in_others() -> None:
    """... what is to be decoded being the image as it is."""
    model = clustered(shift=2)
    moved = flipped_and_shifted(IMAGES, None, batch().noise, 2)
    assert not torch.equal(moved, IMAGES)
    code = model.encode(moved)
    losses = model.terms(batch()).losses
    torch.testing.assert_close(losses["nll"], model.likelihood.nll(model.output(code), IMAGES))
    kl = kl_of_assignments(model.surer(IMAGES), model.assignments(code))
    torch.testing.assert_close(losses["clustering"], kl)
    plain = model.likelihood.nll(model.output(model.encode(IMAGES)), IMAGES)
    torch.testing.assert_close(model.eval().terms(batch()).losses["nll"], plain)


def test_a_run_tells_the_clusters_of_images() -> None:
    model = clustered().eval()
    run = TrainedRun(Path(), OmegaConf.create(), model)
    with torch.no_grad():
        expected = model.assignments(model.encode(IMAGES)).argmax(1)
    found = run.clusters(IMAGES.numpy())
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, expected)
    assert run.clusters(IMAGES[0].numpy()) == expected[0]
    model.found.fill_(False)
    with pytest.raises(UserError, match="DEC has no clusters yet"):
        run.clusters(IMAGES)


def test_an_untrained_encoder_is_warned_of(composed: Compose, tmp_path: Path) -> None:
    """... unless it was initialized."""
    options = ("model=dec", "model.clusters=3", "model.pretraining_steps=0", "trainer.max_steps=1")
    with pytest.warns(UserWarning, match=r"not trained: start from one with init=<run>"):
        fitted(composed, tmp_path, *options)


def test_layers_that_leave_no_step_for_the_whole_are_warned_of(composed: Compose, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"layer_steps=9 for each of 2 layers leaves none of the 2 steps"):
        fitted(composed, tmp_path, "model=stacked", "model.layer_steps=9", "trainer.max_steps=2")


def test_pretraining_is_of_the_reconstruction_alone() -> None:
    model = DEC(network=TINY, clusters=3, code_dim=2, reconstruction_weight=0.5, pretraining_steps=1)
    losses = model.terms(batch()).losses
    torch.testing.assert_close(model.total(losses), losses["nll"])
    assert not losses["clustering"].any()
    model = clustered(reconstruction_weight=0.5)
    losses = model.terms(batch()).losses
    torch.testing.assert_close(model.total(losses), 0.5 * losses["nll"] + losses["clustering"])


def fitted(composed: Compose, tmp_path: Path, *more: str) -> tuple[Any, MNIST]:
    """A model after a run, and its data."""
    cfg = composed("network=mlp", "network.hidden=[8]", "model.code_dim=2", "logger=none", *more)
    data = training.build_data(cfg)
    seed_everything(0, verbose=False)
    model = training.build_model(cfg, data)
    trainer = Trainer(
        max_steps=cfg.trainer.max_steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        limit_val_batches=0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, data)
    return model, data


def test_the_centres_are_those_of_k_means(composed: Compose, tmp_path: Path) -> None:
    """... of all training images' codes at the end of the pretraining; they are found once."""
    options = ("model=dec", "model.clusters=3", "optimizer.lr=1e-30", "scheduler=constant")
    model, data = fitted(composed, tmp_path, *options, "model.pretraining_steps=2", "trainer.max_steps=4")
    with torch.no_grad():
        codes = model.encode(data.train.images.float() / 255).numpy()
    means = KMeans(3, n_init=20, random_state=0).fit(codes)
    np.testing.assert_allclose(model.centres.detach(), means.cluster_centers_, rtol=1e-5, atol=1e-6)
    assert np.array_equal(own(model, codes), means.labels_)
    model.centres.data.zero_()
    Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, default_root_dir=tmp_path,
    ).fit(model, data)  # fmt: skip
    assert model.centres.abs().max() < 1e-20


def own(model: DEC, codes: NDArray[Any]) -> NDArray[Any]:
    clusters = model.clusters_of(torch.from_numpy(codes))
    assert clusters is not None
    return clusters.numpy()


def test_a_run_that_is_too_short_says_that_it_has_no_clusters(composed: Compose, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"no clusters yet: .*model\.pretraining_steps=2$"):
        model, _ = fitted(composed, tmp_path, "model=dec", "model.pretraining_steps=2", "trainer.max_steps=2")
    assert model.clusters_of(torch.zeros(1, 2)) is None


def test_centres_need_a_data_module() -> None:
    model = DEC(network=TINY, clusters=3, code_dim=2, pretraining_steps=0)
    model.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match="among the images of an ImageDataModule"):
        model.on_train_batch_start(batch(), 0)


# ---- stacked ----


def layers() -> tuple[StackedAutoencoder, Any]:
    """A model of three layers, and the modules of each pair by hand."""
    model = StackedAutoencoder(MLP(hidden=[8, 5]), code_dim=2, layer_steps=2)
    encoder, decoder = [*model.encoder.children()], [*model.decoder.children()]
    return (
        model,
        [  # of Flatten L S L S L, and of L S L S L Unflatten
            (encoder[0:3], decoder[4:6]),
            (encoder[3:5], decoder[2:4]),
            (encoder[5:6], decoder[0:2]),
        ],
    )


def test_each_layer_reconstructs_what_the_ones_below_make_of_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, pairs = layers()
    read = IMAGES
    for layer, (down, up) in enumerate(pairs):
        monkeypatch.setattr(StackedAutoencoder, "global_step", 2 * layer + 1)
        made = nn.Sequential(*down)(read)
        back = nn.Sequential(*up)(made)
        nll, squared = model.likelihood.nll, (back - read.view_as(back)).square()
        expected = squared.flatten(1).sum(1) if layer else nll(back, IMAGES)
        torch.testing.assert_close(model.terms(batch()).losses, {"layer": expected})
        read = made.detach()
    monkeypatch.setattr(StackedAutoencoder, "global_step", 6)
    assert [*model.terms(batch()).losses] == ["nll"]


def test_only_the_layer_changes_whose_turn_it_is(composed: Compose, tmp_path: Path) -> None:
    """... also under momentum and weight decay."""
    changed = list[set[str]]()
    step = StackedAutoencoder.optimizer_step

    def watched(self: StackedAutoencoder, *arguments: Any, **more: Any) -> None:
        before = {name: parameter.detach().clone() for name, parameter in self.named_parameters()}
        step(self, *arguments, **more)
        different = {name for name, p in self.named_parameters() if not torch.equal(p, before[name])}
        changed.append({name.rpartition(".")[0] for name in different})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StackedAutoencoder, "optimizer_step", watched)
        options = ("model=stacked", "model.layer_steps=2", "model.noise=[0.2,0.1]", "trainer.max_steps=6")
        fitted(composed, tmp_path, *options, "scheduler=constant", "optimizer.weight_decay=0.1")
    first, second = {"encoder.1", "decoder.2"}, {"encoder.3", "decoder.0"}
    assert changed == [first, first, second, second, first | second, first | second]


def test_noise_sets_a_fraction_of_what_a_layer_reads_to_0(monkeypatch: pytest.MonkeyPatch) -> None:
    model = StackedAutoencoder(MLP(hidden=[400]), code_dim=2, layer_steps=1, noise=[0.3, 1.0])
    seen = list[Tensor]()
    for layer, _ in model._pairs:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.ones(50, 1, 28, 28)
    model.terms(batch(images))
    assert float((seen[0] == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    monkeypatch.setattr(StackedAutoencoder, "global_step", 1)
    model.terms(batch(images))
    assert seen[1].min() == 1  # the layer below reads the image as it is
    assert not seen[2].any()


def test_the_layers_of_a_network() -> None:
    for network, count in ((MLP(hidden=[8, 5], norm=True), 3), (Linear(), 1)):
        for part, start in (
            (network.encoder((1, 4, 4), 2), (1, 4, 4)),
            (network.decoder(2, (1, 4, 4)), (2,)),
        ):
            found = fully_connected_layers(part)
            assert len(found) == count
            x = torch.rand(3, *start)
            torch.testing.assert_close(nn.Sequential(*found)(x), part(x))
    assert fully_connected_layers(Conv().encoder((1, 28, 28), 2)) == []
    assert fully_connected_layers(Conv(linear_path=False).encoder((1, 28, 28), 2)) == []


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (DEC, {"clusters": 1}, "clusters=1 must be ≥ 2"),
        (DEC, {"reconstruction_weight": -1}, "reconstruction_weight=-1 must be ≥ 0"),
        (DEC, {"pretraining_steps": -1}, "pretraining_steps=-1 must be ≥ 0"),
        (DEC, {"update_steps": 0}, "update_steps=0 must be ≥ 1"),
        (StackedAutoencoder, {"layer_steps": -1}, "layer_steps=-1 must be ≥ 0"),
        (StackedAutoencoder, {"noise": 2}, "noise=2 must be ≥ 0 and ≤ 1"),
        (StackedAutoencoder, {"noise": [0.1, math.nan]}, "noise=nan must be a number"),
        (StackedAutoencoder, {"noise": [0.1]}, r"noise=\[0.1\] must be one number, or 2"),
        (
            StackedAutoencoder,
            {"network": MLP(linear_path=True)},
            "network=MLP must be fully connected layers",
        ),
        (StackedAutoencoder, {"network": Conv()}, "network=Conv must be fully connected layers"),
    ],
)
def test_arguments_are_checked(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        model(**{"network": TINY, **arguments})
