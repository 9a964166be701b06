"""The metrics of an evaluation against closed forms, and its report."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tiny
import torch
from conftest import Compose
from omegaconf import OmegaConf
from sklearn.decomposition import PCA
from torch import Tensor, nn

from autoencoders import evaluation, figures, training
from autoencoders.corruption import Gaussian
from autoencoders.data import ImageDataModule, SamplePhotos
from autoencoders.data.pairs import Batch, Images, to_float
from autoencoders.evaluation import (
    colour,
    evaluate,
    explorer,
    generation,
    latent,
    prior,
    report,
    representation,
    restoration,
)
from autoencoders.evaluation import subject as limits
from autoencoders.evaluation.restoration import Restorers
from autoencoders.evaluation.subject import Subject, averaged, k_means, main_directions
from autoencoders.metrics import psnr, squared_error
from autoencoders.models import VAE, Autoencoder, LinearAutoencoder
from autoencoders.networks import MLP
from autoencoders.randomness import Randomness


class Blobs(ImageDataModule):
    """A data set of one's own, in memory: spots of another size in each class, which has no `source`."""

    def __init__(self, shape: tuple[int, int, int], classes: tuple[str, ...], **options: Any) -> None:
        self.image_shape, self.classes = shape, classes  # type: ignore[misc]
        super().__init__(root="nowhere", batch_size=16, validation_size=20, **options)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        channels, height, width = self.image_shape
        images = tiny.blobs(60 if train else 40, channels, max(height, width), seed=int(train))
        labels = torch.arange(len(images)) % max(1, len(self.classes))
        return torch.from_numpy(images[..., :height, :width].copy()), labels


def model_for(data: ImageDataModule, code_dim: int) -> Autoencoder:
    """An untrained linear-sized autoencoder for images of any shape."""
    torch.manual_seed(0)
    data.setup(None)
    return Autoencoder(
        MLP(hidden=[8]), data.input_shape, data.target_shape, code_dim=code_dim, likelihood_std=1.0
    )


def subject(composed: Compose, *overrides: str) -> Subject:
    torch.manual_seed(0)
    cfg = composed("network=mlp", *overrides)
    data = training.build_data(cfg)
    return Subject(training.build_model(cfg, data), data)


def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """... and what does not is below, without rows that have none of it."""
    scores = {"model": {"mse": 0.25, "ssim": 0.5, "parameters": 12}, "PCA 2": {"mse": 0.5, "ssim": 0.25}}
    monkeypatch.setenv("COLUMNS", "80")
    assert evaluation.table(scores).splitlines() == [
        "          mse  ssim  parameters",
        "model    0.25   0.5          12",
        "PCA 2     0.5  0.25",
    ]
    monkeypatch.setenv("COLUMNS", "20")
    assert evaluation.table(scores).splitlines() == [
        "          mse  ssim",
        "model    0.25   0.5",
        "PCA 2     0.5  0.25",
        "         parameters",
        "model            12",
    ]


def test_hungarian_accuracy_forgives_names_only() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert float(representation.hungarian_accuracy(np.array([2, 2, 0, 0, 1, 1]), labels, 3)) == 1
    assert representation.hungarian_accuracy(np.array([2, 2, 0, 1, 1, 1]), labels, 3) == pytest.approx(5 / 6)
    assert representation.hungarian_accuracy(np.zeros(6, int), labels, 3) == pytest.approx(1 / 3)


def test_clusters_are_named_after_their_most_frequent_class() -> None:
    labels, clusters = np.array([0, 0, 1, 1, 1, 0]), np.array([2, 2, 0, 0, 1, 0])
    counts, class_of = representation.matched(clusters, labels, 2)
    assert counts.tolist() == [[1, 2], [0, 1], [2, 0]]
    assert class_of.tolist() == [1, -1, 0]
    data = SimpleNamespace(classes=("a$", "b"))
    it: Any = SimpleNamespace(test_clusters=clusters, test_labels=labels, data=data)
    counted = representation.confusion(it)
    axis = counted.drawn().axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a$", "b", "b"]
    assert [text.get_text() for text in axis.texts] == ["2", "0", "1", "2", "0", "1"]
    shown = report.cells(counted)
    assert shown.lines[0] == ("mostly a$", [(2, 1.0), (0, 0.0)])
    assert [name for name, _ in shown.lines] == ["mostly a$", "mostly b", "mostly b"]


def test_histograms_of_a_code_tell_a_number_that_says_nothing() -> None:
    codes = torch.zeros(500, 100)
    codes[:, 7], codes[:, 70] = torch.linspace(-1, 1, 500), torch.linspace(-0.5, 0.5, 500)
    codes[0, 3] = float("nan")
    picture = figures.code_histograms(codes).axes[0].images[0].get_array()
    assert picture is not None
    assert picture.shape == (figures.BINS, figures.MOST_COUNTED)
    filled = (picture > 0).sum(0)  # of each number's bins
    silent, half, whole = sorted(filled)[-3:]
    assert (silent, whole) == (1, 60)
    assert 30 <= half <= 32
    assert np.allclose(picture.sum(0), 1)


def test_whitened_codes_vary_alike_and_cluster_by_what_hardly_varied() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    codes = np.stack([30 * rng.normal(size=400), 2 * labels + 0.1 * rng.normal(size=400), np.ones(400)], 1)
    train, test = np.split(codes.astype(np.float32), 2)
    white, of_test = representation.whitened(train, test)
    assert np.cov(white, rowvar=False)[:2, :2] == pytest.approx(np.eye(2), abs=1e-4)
    assert np.abs(white[:, 2]).max() < 1e-3  # a number that is always the same
    assert np.cov(of_test, rowvar=False)[:2, :2] == pytest.approx(np.eye(2), abs=0.4)

    def accuracy(fitted: limits.Array, scored: limits.Array) -> float:
        clusters = k_means(fitted, scored, 2, starts=5)
        return representation.hungarian_accuracy(clusters, labels[200:], 2)

    assert accuracy(test, test) < 0.7  # it splits the direction of the largest variance
    assert accuracy(white, of_test) > 0.98
    constant = np.ones((4, 2), np.float32)
    assert not np.any(representation.whitened(constant, constant))


def test_few_labels_are_so_many_of_each_class() -> None:
    labels = np.array([0, 1, 0, 1, 1, 0, 2])
    assert representation.first_of_each(labels, 2).tolist() == [0, 2, 1, 3]


def test_probe_separates_what_is_separable() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    points = (rng.normal(size=(300, 2)) + 20 * np.eye(3)[labels][:, :2]).astype(np.float32)
    assert float(representation.probe(points[:200], labels[:200], points[200:], labels[200:])) == 1
    of_one_class = representation.probe(points[:1], labels[:1], points[200:], labels[200:])
    assert float(of_one_class) == pytest.approx(np.mean(labels[200:] == labels[0]))


def test_frechet_distance_of_gaussians() -> None:
    points = np.random.default_rng(0).normal(size=(4000, 3))
    shift = np.array([1.0, -2.0, 0.5])
    assert generation.frechet_distance(points, points + shift) == pytest.approx(shift @ shift, abs=1e-6)
    scaled = generation.frechet_distance(points, 3 * points)  # |0|² + Σ (1−3)² σ², up to the means
    covariance = np.cov(points, rowvar=False)
    assert scaled == pytest.approx(4 * np.trace(covariance) + 4 * (points.mean(0) ** 2).sum(), rel=1e-6)


def test_prdc_of_the_same_and_of_far_points() -> None:
    points = np.random.default_rng(0).normal(size=(200, 4))
    same = generation.prdc(points, points.copy(), 5)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert set(generation.prdc(points, points + 100, 5).values()) == {0}
    collapsed = generation.prdc(points, np.repeat(points[:1], 200, 0) + 1e-3 * points, 5)
    assert collapsed["precision"] == 1
    assert collapsed["recall"] < 0.1
    assert collapsed["coverage"] < 0.1


def test_colour_metrics_know_gray_and_perfect() -> None:
    true = np.random.default_rng(0).random((3, 8, 8, 3)).astype(np.float32)
    perfect = colour.colour_metrics(true, true)
    assert perfect["chroma_error"].tolist() == pytest.approx([0] * 3, abs=1e-4)
    assert perfect["accuracy_2"].tolist() == [1, 1, 1]
    off = colour.colour_metrics(true + np.float32(0.03), true)
    assert (off["accuracy_2"].max(), off["accuracy_5"].min()) == (0, 1)
    gray = np.repeat(true.mean(-1, keepdims=True), 3, -1)
    assert colour.colourfulness(gray).tolist() == pytest.approx([0] * 3, abs=1e-3)
    # red − green = 255 r everywhere and ½(red + green) − blue = 127.5 r: no spread, only the means.
    red = np.zeros((1, 4, 4, 3), np.float32)
    red[..., 0] = 0.4
    assert colour.colourfulness(red)[0] == pytest.approx(0.3 * math.hypot(102, 51), rel=1e-5)


def test_interpolation_ends_at_both_codes() -> None:
    a, b = torch.tensor([1.0, 0, 0]), torch.tensor([0, 2.0, 0])
    for spherical in (False, True):
        path = latent.between(a, b, 5, spherical=spherical)
        torch.testing.assert_close(path[0], a)
        torch.testing.assert_close(path[-1], b)
    arc = latent.between(a, b, 5, spherical=True)
    torch.testing.assert_close(arc.norm(dim=1), torch.linspace(1, 2, 5))
    torch.testing.assert_close(latent.between(a, 2 * a, 3, spherical=True)[1], 1.5 * a)


def test_linear_model_made_of_pca_spans_its_subspace(composed: Compose) -> None:
    it = subject(composed, "model=linear", "network=linear", "model.code_dim=3")
    assert isinstance(it.model, LinearAutoencoder)
    assert latent.angle_to_pca(it) > 10
    (layer,) = (module for module in it.model.decoder.modules() if isinstance(module, nn.Linear))
    turn = torch.tensor([[0.0, 1, 0], [2, 0, 1], [1, 1, 0]])  # any basis of the subspace will do
    layer.weight.data = torch.from_numpy(it.pca.components_).T @ turn
    assert latent.angle_to_pca(it) == pytest.approx(0, abs=0.05)


def test_importance_weighted_bound_tightens_the_elbo(composed: Compose) -> None:
    it = subject(composed, "model=vae", "model.code_dim=2")
    assert isinstance(it.model, VAE)
    for parameter in it.model.encoder.parameters():
        parameter.data.mul_(3)  # a posterior so far from the true one that the bounds differ by far
    batch = next(iter(it.batches(it.data.test, "test")))
    with torch.inference_mode():
        one, many = (latent.importance_weighted_bound(it.model, batch, k).mean() for k in (1, 100))
        mean, log_variance = it.model.posterior(batch.corrupted)
        code = mean + (0.5 * log_variance).exp() * Randomness(0, rows=len(mean)).normal(*mean.shape)
        log_q = torch.distributions.Normal(mean, (0.5 * log_variance).exp()).log_prob(code).sum(1)
        log_p = torch.distributions.Normal(0, 1).log_prob(code).sum(1)
        nll = it.model.likelihood.nll(it.model.decoder(code), batch.clean)
    assert float(one) == pytest.approx(float((log_p - nll - log_q).mean()), rel=1e-5)
    assert many > one


def test_the_linear_restorer_undoes_an_affine_corruption(composed: Compose) -> None:
    it = subject(
        composed, "model=denoising", "corruption=gaussian", "corruption.std=1e-3", "corruption.clip=false"
    )
    restorers = Restorers(it)
    batch = it.data.first(it.data.test, 20, torch.device("cpu"))
    restored = restorers(batch)
    assert set(restored) == {"linear (Wiener)", *restorers.chosen}

    def error(images: Tensor) -> float:
        return float((images - batch.clean).square().mean())

    assert error(batch.input_as_output) == pytest.approx(0.25, abs=0.01)  # the noise's mean is ½
    assert error(restored["linear (Wiener)"]) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_filters_take_noise_from_photographs(channels: int, tmp_path: Path) -> None:
    """... the strongest of them last."""
    noise = Gaussian(mean=0.0, std=0.1)
    data = SamplePhotos(
        channels=channels, fit="crop", size=64, batch_size=4, corruption=noise, cache=tmp_path
    )
    it = Subject(cast(Any, nn.Identity()), data)
    it.model.device = torch.device("cpu")  # type: ignore[misc]
    restorers, batch = Restorers(it), data.first(data.test, 4, torch.device("cpu"))
    found = {name: float(psnr(image, batch.clean).mean()) for name, image in restorers(batch).items()}
    assert restorers.chosen["non-local means"] == pytest.approx(0.1, abs=0.06)
    assert (
        found["total variation"] > found["Gaussian filter"] > float(psnr(batch.corrupted, batch.clean).mean())
    )
    assert found["non-local means"] > found["Gaussian filter"]


def test_any_model_on_corrupted_images_stands_beside_filters(composed: Compose) -> None:
    it = subject(composed, "model=autoencoder", "corruption=salt_pepper")
    rows, errors = restoration.reconstruction(it)
    assert {"corrupted image", "median filter", "total variation", "linear (Wiener)"} < set(rows)
    assert rows["corrupted image"]["gain_db"] == pytest.approx(0, abs=1e-6)
    assert rows["model"]["mse"] == pytest.approx(float(errors.mean()), rel=1e-5)
    plain, _ = restoration.reconstruction(subject(composed, "model=autoencoder"))
    assert set(plain) == {"model", "PCA 16"}
    assert "gain_db" not in plain["model"]


@pytest.mark.parametrize(
    ("overrides", "groups"),
    [
        (["model=autoencoder", "model.code_dim=2"], set()),
        (["model=linear", "network=linear"], set()),
        (["model=denoising"], set()),
        (["model=vae", "model.code_dim=1"], {"likelihood"}),
        (["model=colorization", "model.code_dim=4"], {"colorization"}),
        (["model=cvae", "model.code_dim=1"], {"classes"}),
        (["model=contractive", "model.code_dim=2"], {"contraction"}),
        (["model=fsq", "model.code_dim=4", "model.levels=[32,32]"], {"codebook"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_every_model_is_evaluated_by_its_groups(
    overrides: list[str],
    groups: set[str],
    composed: Compose,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generation, "STEPS", 2)
    monkeypatch.setattr(prior, "STEPS", 2)
    it = subject(composed, *overrides)
    scores, pictures, _ = evaluate(it.model, it.data, images=4, bound=(3, 20))
    everyone = {"reconstruction", "clustering", "features", "latent space", "generation"}
    if overrides[0] == "model=colorization":  # whose code tells no lightness, and so no image alone
        everyone -= {"generation"}
    assert set(scores) == everyone | groups
    assert "largest_angle_to_pca" in scores["latent space"]["model"] or overrides[0] != "model=linear"
    assert {"best_and_worst", "errors", "traversals", "interpolations"} <= set(pictures)
    assert "pixels" in scores["features"]
    assert {"model", "model, whitened", "pixels"} <= set(scores["clustering"])
    if "codebook" in groups:
        assert scores["reconstruction"]["model"]["code_bits"] == 2 * 10
        assert 1 <= scores["codebook"]["model"]["perplexity"] <= scores["codebook"]["model"]["size"] == 1024
        priors = {"uniform codes", "learnt prior"}
        assert set(scores["generation"]) == {*priors, "reconstructions", "training images"}
    said = capsys.readouterr().out
    assert all(f"\n{group}\n" in said for group in scores)


def test_clusters_are_found_among_all_images_where_that_is_asked_for(composed: Compose) -> None:
    it = subject(composed, "network=mlp")

    def codes(images: Images, far: float) -> Any:
        return np.float32(np.eye(10)[images.labels] * (1 if images is it.data.test else far))

    it.codes = partial(codes, far=1)  # type: ignore[method-assign]
    assert representation.clustering_of_all_images(it)["model"]["accuracy"] == 1
    it.codes = partial(codes, far=100)  # type: ignore[method-assign]
    found = representation.clustering_of_all_images(it)["model"]
    assert len(set(found["accuracy"].values)) == 2  # all of the test are in one cluster
    assert found["nmi"] == pytest.approx(0, abs=1e-6)
    assert representation._scores_of_clusters(it, it.code_clusters, it.test_codes)["accuracy"] == 1


@pytest.mark.parametrize("colours", [False, True])
def test_a_model_without_a_code_is_evaluated_without_it(
    colours: bool, composed: Compose, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = ["data=cifar10_gray", "corruption=none"] if colours else ["corruption=salt_pepper"]
    cfg = composed("model=restoration", "network.widths=[4,8]", *data)
    module = training.build_data(cfg)
    scores, pictures, it = evaluate(training.build_model(cfg, module), module, images=4, bound=(3, 20))
    assert set(scores) == {"reconstruction", *(["colorization"] if colours else [])}
    filters = {*restoration.FILTERS} - {"non-local means"}  # which are for larger images
    beside = {"gray as RGB"} if colours else {"corrupted image", *filters, "linear (Wiener)"}
    assert set(scores["reconstruction"]) == {"model", *beside}
    assert "code_bits" not in scores["reconstruction"]["model"]
    assert set(pictures) == {"reconstructions", "errors", "best_and_worst"}
    (said,) = (line for line in capsys.readouterr().out.splitlines() if "left out" in line)
    assert said.startswith("the model has no code: PCA, clustering, features, latent space, samples")
    report.write(tmp_path, scores, {}, it, {}, cfg, said)
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert f"{said[0].upper()}{said[1:]}." in page
    assert 'id="explorer-data"' not in page


def test_pca_row_is_pca(composed: Compose) -> None:
    it = subject(composed, "model.code_dim=3")
    train = (it.data.train.images.float() / 255).flatten(1).numpy()
    batch = Batch(*it.data.first(it.data.test, 5, torch.device("cpu")))
    known = PCA(3, svd_solver="full").fit(train)
    expected = known.inverse_transform(known.transform(batch.clean.flatten(1).numpy()))
    found = it.pca_reconstruction(batch.clean).flatten(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


# ---- a bounded cost for images and codes of every size -----------------------------------------------------


def test_large_images_of_one_s_own_are_evaluated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 x 64 x 3, of another number of classes than ten, and nothing is written beside the data."""
    monkeypatch.setattr(generation, "STEPS", 2)
    monkeypatch.setattr(restoration, "WINDOWS", 4000)
    data = Blobs(
        (3, 64, 64), ("a", "b", "c"), input="color", target="color", corruption=Gaussian(0.0, 0.3, True)
    )
    scores, pictures, it = evaluate(model_for(data, 5), data, images=4, bound=(3, 20))
    assert set(scores) == {"reconstruction", "clustering", "features", "latent space", "generation"}
    assert {"model", "PCA 5", "corrupted image", "median filter"} < set(scores["reconstruction"])
    assert "linear (Wiener, 11 x 11 window)" in scores["reconstruction"]
    assert "pixels (averaged to 32 x 32)" in scores["features"]
    assert it.representations["pixels (averaged to 32 x 32)"][0].shape[1] == 3 * 32 * 32
    assert {"interpolations", "samples_mixture_of_Gaussians"} < set(pictures)
    assert not Path("nowhere").exists()
    assert "no classes" not in capsys.readouterr().out


def test_images_without_classes_have_the_scores_that_need_none(capsys: pytest.CaptureFixture[str]) -> None:
    data = Blobs((1, 28, 28), ())
    scores, pictures, it = evaluate(model_for(data, 2), data, images=4, bound=(3, 20))
    assert set(scores) == {"reconstruction", "latent space"}
    assert {"samples_Gaussian_of_the_codes", "traversals", "latent_scatter"} < set(pictures)
    assert "interpolations" not in pictures
    said = [line for line in capsys.readouterr().out.splitlines() if "no classes" in line]
    assert len(said) == 1
    assert all(group in said[0] for group in ("clustering", "features", "interpolations"))
    assert explorer.explorer(it)["data"]["classes"] == []


def test_digitnet_is_trained_where_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "STEPS", 20)
    data = Blobs((1, 8, 8), ("a", "b"))
    data.setup(None)
    with torch.inference_mode():
        net = generation.classifier(data)
    torch.manual_seed(0)
    assert not torch.equal(net.head.weight, generation.DigitNet(1, 2).head.weight)


def test_classes_left_out_of_training_are_anomalies() -> None:
    data = Blobs((1, 8, 8), ("a", "b", "c"), without=[0])
    model = model_for(data, 2)
    scores, _, _ = evaluate(model, data, images=4, bound=(3, 20))
    errors = squared_error(model(to_float(data.test.images)), to_float(data.test.images))
    known = data.test.labels != 0
    pairs = (errors[~known][:, None] > errors[known]).double().mean()  # what the area under the curve is
    assert scores["anomalies"]["model"]["roc_auc"] == pytest.approx(float(pairs), abs=1e-6)
    assert set(scores["anomalies"]) == {"model", "PCA 2", "mean image"}
    assert set(scores["anomalies"]["model"]) == {"roc_auc", "pr_auc"}
    assert 0 < known.sum() < len(known)
    assert "clustering" not in scores
    everything = Blobs((1, 8, 8), ("a", "b", "c"))
    assert "anomalies" not in evaluate(model_for(everything, 2), everything, images=4, bound=(3, 20))[0]


def test_many_large_images_are_restored_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration, "MOST_RESTORED", 14 * 28 * 28)
    data = Blobs((1, 28, 28), ("a", "b"), corruption=Gaussian(0.0, 0.3, True))
    scores, errors = restoration.reconstruction(Subject(model_for(data, 2), data))
    assert len(errors) == len(data.test) == 40
    batch = data.first(data.test, 40, torch.device("cpu"))
    some = batch._replace(corrupted=batch.corrupted[::3], clean=batch.clean[::3])
    filtered = Restorers(Subject(model_for(data, 2), data))(some)["median filter, on 1 in 3 images"]
    known = float((filtered - some.clean).square().mean())
    assert scores["median filter, on 1 in 3 images"]["mse"] == pytest.approx(known, rel=1e-5)


def test_the_window_is_wiener_s_filter() -> None:
    """Of pixels that are independent: x̃ weighed by s² / (s² + σ²), whose error is s² σ² / (s² + σ²)."""

    class White(Blobs):
        def _read(self, *, train: bool) -> tuple[Tensor, Tensor]:
            random = torch.Generator().manual_seed(int(train))
            images = 128 + 25.5 * torch.randn(60, 1, 40, 40, generator=random)
            return images.round().to(torch.uint8), torch.zeros(60, dtype=torch.long)

    data = White((1, 40, 40), (), corruption=Gaussian(0.2, 0.1, False))
    it = Subject(model_for(data, 2), data)
    batch = data.first(data.test, 60, torch.device("cpu"))
    error = float((restoration.local_wiener(it)(batch) - batch.clean).square().mean())
    assert error == pytest.approx(0.01 * 0.01 / (0.01 + 0.01), rel=0.05)


def test_the_window_is_as_good_as_the_whole_image_where_pixels_are_neighbours(composed: Compose) -> None:
    it = subject(
        composed, "model=denoising", "corruption=gaussian", "corruption.mean=0", "corruption.std=0.3"
    )
    batch = it.data.first(it.data.test, 37, torch.device("cpu"))
    whole, window = (
        float((restore(batch) - batch.clean).square().mean())
        for restore in (restoration.global_wiener(it), restoration.local_wiener(it))
    )
    assert window < 1.2 * whole


def test_randomized_pca_is_pca_nearly(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Blobs((1, 28, 28), ())
    exact = Subject(model_for(data, 4), data)
    images = data.first(data.test, 40, torch.device("cpu")).clean
    error = float((exact.pca_reconstruction(images) - images).square().mean())
    monkeypatch.setattr(limits, "MOST_INPUTS", 100)
    nearly = Subject(model_for(data, 4), data)
    assert float((nearly.pca_reconstruction(images) - images).square().mean()) == pytest.approx(
        error, rel=0.01
    )
    assert nearly.pca_name == "PCA 4"
    monkeypatch.setattr(limits, "MOST_NUMBERS", 30 * 28 * 28)
    assert Subject(model_for(data, 4), data).pca_name == "PCA 4 (fitted on 30 images)"


def test_the_main_directions_of_long_codes_are_those_of_the_first_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    exact = main_directions(codes)
    monkeypatch.setattr(limits, "MOST_DIRECTIONS", 35)
    nearly = main_directions(codes)
    np.testing.assert_allclose(nearly.deviations[:29], exact.deviations[:29], rtol=1e-5)
    cosines = np.abs((nearly.basis[:29] * exact.basis[:29]).sum(1))
    np.testing.assert_allclose(cosines, 1, atol=1e-4)


@pytest.mark.parametrize("limit", [64, 2])
def test_samples_have_the_codes_mean_and_covariance(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """... also where the mixture is fitted to the main directions alone."""
    monkeypatch.setattr(generation, "MIXED", limit)
    data = Blobs((1, 28, 28), ())
    it = Subject(model_for(data, 4), data)
    stretch = np.random.default_rng(1).normal(size=(4, 4))
    codes = (np.random.default_rng(0).normal(size=(500, 4)) @ stretch + 3).astype(np.float32)
    it.__dict__["train_codes"] = codes
    priors = generation.prior_codes(it, 20_000)
    assert set(priors) == {"Gaussian of the codes", "mixture of Gaussians"}
    scale = np.cov(codes, rowvar=False).max()
    for drawn in priors.values():
        np.testing.assert_allclose(drawn.mean(0), codes.mean(0), atol=0.05 * scale)
        np.testing.assert_allclose(np.cov(drawn.T), np.cov(codes.T), atol=0.08 * scale)


def test_averaging_keeps_the_mean() -> None:
    images = torch.rand(2, 3, 12, 8)
    assert averaged(images, 1) is images
    small = averaged(images, 3)
    assert small.shape == (2, 3, 6, 4)
    torch.testing.assert_close(small.mean((2, 3)), images.mean((2, 3)))


# ---- what a model says of itself ---------------------------------------------------------------------------


def test_a_model_s_evaluations_are_groups_that_there_are() -> None:
    data = Blobs((1, 28, 28), ())
    model = model_for(data, 2)
    model.evaluations = ("likelyhood",)
    with pytest.raises(ValueError, match="names likelyhood: there are classes, colorization, likelihood"):
        evaluate(model, data, images=4, bound=(3, 20))


def test_the_kl_is_not_weighted(composed: Compose) -> None:
    for beta in (1, 4):
        it = subject(composed, "model=vae", "model.code_dim=2", f"model.beta={beta}")
        batch = it.data.first(it.data.test, 37, torch.device("cpu"))
        assert isinstance(it.model, VAE)
        with torch.inference_mode():
            mean, log_variance = it.model.posterior(batch.corrupted)
        known = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
        assert latent.likelihood(it, 2, 5)["model"]["kl"] == pytest.approx(float(known), rel=1e-5)


def test_bits_are_counted_where_the_likelihood_is_of_bytes(composed: Compose) -> None:
    it = subject(composed, "model=iwae", "model.code_dim=2", "model.likelihood=discretized_logistic")
    row = latent.likelihood(it, 2, 5)["model"]
    assert row["bits_per_dim"] == pytest.approx(row["nll_2"] / (28 * 28 * math.log(2)))
    gaussian = subject(composed, "model=tc_vae", "model.code_dim=2", "model.likelihood=gaussian_optimal")
    row = latent.likelihood(gaussian, 2, 5)["model"]
    assert "bits_per_dim" not in row
    parts = row["mutual_information"] + row["total_correlation"] + row["dimension_wise_kl"]
    assert parts == pytest.approx(row["kl"], abs=0.3)  # of one sample of each code


def test_interpolations_find_classes_that_come_late() -> None:
    class Sorted(Blobs):
        def _read(self, *, train: bool) -> tuple[Tensor, Tensor]:
            images, _ = super()._read(train=train)
            images = images.repeat(8, 1, 1, 1)
            return images, (torch.arange(len(images)) >= len(images) - 5).long()

    data = Sorted((1, 28, 28), ("common", "rare"))
    shown = latent.interpolations(Subject(model_for(data, 2), data))
    assert list(shown) == ["common → rare, linear", "common → rare, spherical"]


def test_the_report_s_facts_come_from_classes_and_the_user_s_command() -> None:
    cfg = OmegaConf.create(
        {
            "model": {"_target_": "mymodels.Flow"},  # without a code of so many numbers
            "network": {
                "_target_": "autoencoders.networks.Own",
                "encoder": {"_target_": "mynet.Encoder"},
                "decoder": {"_target_": "mynet.Decoder"},
            },
            "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3},
            "data": {"_target_": "mydata.Faces"},
            "corruption": {"_target_": "autoencoders.corruption.Masking"},
            "seed": 3,
        }
    )
    environment = {"command": ["train.py", "model=vae", "data.root=/my data/faces"]}
    facts = report._facts(cfg, cfg, environment, {"epochs": 2, "seconds": 3.4})
    assert facts["model"] == "Flow"
    assert facts["trained"] == "2 epochs (3 s)"
    assert facts["network"] == "Own (Encoder, Decoder)"
    assert (facts["optimizer"], facts["data"], facts["corruption"]) == ("AdamW", "Faces", "Masking")
    assert "code" not in facts
    assert facts["command"] == "python train.py model=vae 'data.root=/my data/faces'"
    assert "command" not in report._facts(cfg, cfg, {}, {})
