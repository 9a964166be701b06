"""The models: what they compute, in closed form where there is one."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from command import column
from conftest import Compose
from sklearn.decomposition import PCA
from torch import Tensor
from torch import distributions as D

from autoencoders import training
from autoencoders.data import Batch
from autoencoders.errors import UserError
from autoencoders.models import (
    VAE,
    Autoencoder,
    BaseModel,
    ColorizationAutoencoder,
    DenoisingAutoencoder,
    LinearAutoencoder,
    Restoration,
)
from autoencoders.models.base import Coded
from autoencoders.networks import MLP, Conv, ResNet, UNet
from autoencoders.randomness import Randomness


def batch(clean: Tensor, corrupted: Tensor | None = None) -> Batch:
    labels = torch.zeros(len(clean), dtype=torch.long)
    return Batch(clean if corrupted is None else corrupted, clean, labels, Randomness(0, rows=len(clean)))


def build(composed: Compose, *overrides: str) -> Any:
    cfg = composed(*overrides)
    data = training.build_data(cfg)
    torch.manual_seed(0)
    return training.build_model(cfg, data)


def test_pca_is_the_linear_autoencoder_s_optimum(composed: Compose) -> None:
    """With PCA's weights it reconstructs as PCA does, and its loss has no slope (Baldi & Hornik 1989)."""
    model = build(composed, "model=linear", "model.code_dim=3").double()
    images = torch.rand(50, 1, 28, 28, dtype=torch.double)
    flat = images.flatten(1).numpy()
    pca = PCA(3, svd_solver="full").fit(flat)
    components, mean = torch.from_numpy(pca.components_), torch.from_numpy(pca.mean_)
    to_code, to_image = (
        next(layer for layer in net.modules() if isinstance(layer, torch.nn.Linear))
        for net in (model.encoder, model.decoder)
    )
    with torch.no_grad():
        to_code.weight.copy_(components)
        to_code.bias.copy_(-components @ mean)
        to_image.weight.copy_(components.T)
        to_image.bias.copy_(mean)
    expected = torch.from_numpy(pca.inverse_transform(pca.transform(flat))).view_as(images)
    torch.testing.assert_close(model(images), expected.float(), rtol=1e-5, atol=1e-6)

    def steepest_slope() -> float:
        loss = (model.decoder(model.encoder(images)) - images).square().mean()
        return max(float(slope.abs().max()) for slope in torch.autograd.grad(loss, list(model.parameters())))

    assert steepest_slope() < 1e-12
    with torch.no_grad():
        to_code.weight.mul_(1.1)
    assert steepest_slope() > 1e-5


def test_the_objective_is_the_squared_error_plus_a_constant(composed: Compose) -> None:
    model = build(composed, "model=autoencoder", "model.code_dim=4")
    images = torch.rand(5, 1, 28, 28)
    terms = model.terms(batch(images)).losses
    assert list(terms) == ["nll"]
    squared = (model(images) - images).square().flatten(1).sum(1)
    torch.testing.assert_close(terms["nll"], squared + 392 * math.log(math.pi))


def test_vae_terms_are_the_elbo(composed: Compose) -> None:
    model = build(composed, "model=vae", "model.code_dim=4", "model.beta=2.0")
    assert isinstance(model, VAE)
    images = torch.rand(5, 1, 28, 28).round()
    terms = model.terms(batch(images)).losses
    mean, log_variance = model.posterior(images)
    posterior = D.Normal(mean, (0.5 * log_variance).exp())
    kl = D.kl_divergence(posterior, D.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(terms["kl"], kl)
    code = posterior.mean + posterior.stddev * Randomness(0, rows=5).normal(5, 4)
    nll = -D.Bernoulli(logits=model.decoder(code)).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(terms["nll"], nll)
    torch.testing.assert_close(model.total(terms), nll + 2 * kl)
    assert torch.equal(model.encode(images), mean)


def test_what_beta_weighs_is_logged_without_it(composed: Compose, tmp_path: Path) -> None:
    training.train(composed("model=vae", "network=mlp", "model.code_dim=2", "model.beta=100"), tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for stage in ("train", "val"):
        logged = [row for row in rows if row[f"{stage}/loss"]]
        assert logged
        for row in logged:
            loss, nll, kl = (float(row[f"{stage}/{name}"]) for name in ("loss", "nll", "kl"))
            assert loss == pytest.approx(nll + 100 * kl, rel=1e-4)


def test_vae_samples_are_images_and_follow_their_seed(composed: Compose) -> None:
    model = build(composed, "model=vae", "model.code_dim=2")
    assert isinstance(model, VAE)
    samples = model.sample(6, seed=1)
    assert samples.shape == (6, 1, 28, 28)
    assert 0 <= samples.min() <= samples.max() <= 1
    assert torch.equal(samples, model.sample(6, seed=1))
    assert not torch.equal(samples, model.sample(6, seed=2))
    codes, few = model.prior_codes(2000, seed=0), model.prior_codes(6, seed=1)
    assert codes is not None
    assert few is not None
    assert codes.shape == (2000, 2)
    torch.testing.assert_close(codes.mean(0), torch.zeros(2), atol=0.1, rtol=0)
    torch.testing.assert_close(codes.std(0), torch.ones(2), atol=0.1, rtol=0)
    torch.testing.assert_close(model.decode(few), samples)


def test_a_model_without_a_prior_has_no_samples() -> None:
    model = Autoencoder()
    assert model.prior_codes(2, seed=0) is None
    with pytest.raises(ValueError, match="Autoencoder has no prior to sample from"):
        model.sample(2, seed=0)


def test_denoising_gain_is_measured_from_the_corrupted_image(composed: Compose) -> None:
    model = build(composed, "model=denoising")
    assert isinstance(model, DenoisingAutoencoder)
    clean = torch.full((4, 1, 28, 28), 0.5)
    pairs = batch(clean, clean + 0.1)
    assert model.image_metrics(pairs, clean + 0.1)["gain_db"].tolist() == pytest.approx([0] * 4, abs=1e-4)
    assert model.image_metrics(pairs, clean + 0.01)["gain_db"].tolist() == pytest.approx([20] * 4, abs=1e-3)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_restoration_gives_pixels_and_its_loss_is_of_what_it_gives(
    likelihood: str, composed: Compose
) -> None:
    """A Gaussian's mean is limited to [0, 1], but in the loss, which would have no slope beyond."""
    model = build(composed, "model=restoration", f"model.likelihood={likelihood}")
    clean, far = torch.rand(4, 1, 28, 28), 4 * torch.rand(4, 1, 28, 28) - 2
    restored = model(far)
    nll = model.terms(batch(clean, far)).losses["nll"]
    if likelihood == "gaussian":  # a new network changes nothing
        torch.testing.assert_close(restored, far.clamp(0, 1))
        torch.testing.assert_close(nll, (far - clean).square().flatten(1).sum(1) + 392 * math.log(math.pi))
    else:
        torch.testing.assert_close(restored, far.sigmoid())
        torch.testing.assert_close(
            nll, -D.Bernoulli(restored, validate_args=False).log_prob(clean).flatten(1).sum(1)
        )


def test_restoration_takes_any_size_and_has_no_code(composed: Compose) -> None:
    model = build(composed, "model=restoration")
    assert (model.has_code, model.code_dim, model.prior_codes(2, seed=0)) == (False, 0, None)
    assert set(model.hparams) == {
        "input_shape", "target_shape", "likelihood", "likelihood_std", "keep_known", "keep_lightness",
    }  # fmt: skip
    images = torch.rand(2, 1, 50, 31)
    assert model(images).shape == images.shape
    model.check_data(training.build_data(composed("data.size=64", "corruption=masking")))
    for part in (model.encode, model.decode):
        with pytest.raises(ValueError, match=r"^Restoration has no code: it makes an image of an image$"):
            part(images)


def test_references_of_a_colorizer(composed: Compose) -> None:
    gray, clean = torch.rand(2, 1, 32, 32), torch.rand(2, 3, 32, 32)
    (reference,) = build(composed, "model=colorization").references(batch(clean, gray)).values()
    assert torch.equal(reference, gray.repeat(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (Autoencoder, {"code_dim": 0}, "code_dim=0 must be ≥ 1 and ≤ 65536"),
        (Autoencoder, {"code_dim": "two"}, "code_dim=two must be a whole number ≥ 1 and ≤ 65536"),
        (
            Autoencoder,
            {"likelihood": "poisson"},
            "likelihood=poisson must be gaussian or gaussian_unbounded or",
        ),
        (Autoencoder, {"likelihood_std": 0}, "likelihood_std=0 must be ≥ 0.001 and ≤ 1000"),
        (Autoencoder, {"input_shape": (28, 28)}, r"input_shape=\[28, 28\] must be three numbers"),
        (Autoencoder, {"network": Conv(patch=3)}, "network.patch=3 must divide the side of a square image"),
        (VAE, {"beta": -1}, "beta=-1 must be ≥ 0 and ≤ 1000000"),
        (VAE, {"beta": math.nan}, "beta=nan must be a number"),
        (
            Autoencoder,
            {"network": UNet()},
            "network=UNet has no code, which Autoencoder needs: use model=rest",
        ),
        (
            Restoration,
            {"network": MLP()},
            "network=MLP has a code, and Restoration has none: use network=unet",
        ),
        (
            Restoration,
            {"likelihood": "poisson"},
            "likelihood=poisson must be gaussian or gaussian_unbounded or",
        ),
        (
            Restoration,
            {"input_shape": (3, 8, 8), "target_shape": (1, 8, 8)},
            "network: UNet makes no image of 1",
        ),
        (LinearAutoencoder, {"network": MLP()}, "network=MLP must be Linear in a linear autoencoder"),
        (LinearAutoencoder, {"likelihood": "bernoulli"}, "likelihood=bernoulli must be gaussian in a linear"),
    ],
)
def test_arguments_are_checked(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        model(**arguments)


def test_every_argument_has_a_default() -> None:
    models = (Autoencoder(), DenoisingAutoencoder(), VAE(code_dim=2), LinearAutoencoder(), Restoration())
    for model in models:
        images = torch.rand(2, 1, 28, 28)
        assert model(images).shape == images.shape
    assert ColorizationAutoencoder()(torch.rand(2, 1, 32, 32)).shape == (2, 3, 32, 32)


def test_models_and_data_that_do_not_go_together(composed: Compose) -> None:
    def refused(model: BaseModel, *overrides: str) -> str:
        with pytest.raises(ValueError, match=r"must|nothing|can't colour") as caught:
            model.check_data(training.build_data(composed(*overrides)))
        return str(caught.value)

    assert "leaves model=denoising nothing to denoise" in refused(DenoisingAutoencoder())
    DenoisingAutoencoder().check_data(training.build_data(composed("corruption=masking")))
    assert "leaves model=restoration nothing to restore" in refused(Restoration())
    Restoration(None, (1, 32, 32), (3, 32, 32)).check_data(training.build_data(composed("data=cifar10_gray")))
    gray = ColorizationAutoencoder(input_shape=(1, 28, 28), target_shape=(1, 28, 28))
    assert "can't colour MNIST, 1 channels in and 1 out: use data=cifar10_gray" in refused(gray)
    said = refused(Autoencoder(), "data=cifar10_gray")
    assert said == "input_shape=[1, 28, 28] must be [1, 32, 32], that of GrayCIFAR10"


def test_a_checkpoint_is_loaded_without_running_code(composed: Compose, tmp_path: Path) -> None:
    cfg = composed("model=vae", "network=mlp", "network.hidden=[8]", "model.code_dim=3")
    training.train(cfg, tmp_path)
    path = tmp_path / "checkpoints" / "best.ckpt"
    model = VAE.load_from_checkpoint(path, network=MLP(hidden=[8]), weights_only=True)
    assert model.code_dim == 3
    assert set(model.hparams) == {
        "input_shape", "target_shape", "code_dim", "likelihood", "likelihood_std", "likelihood_mixtures",
        "beta", "warmup_steps",
        "free_bits", "capacity", "capacity_steps",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_weights(composed: Compose, tmp_path: Path) -> None:
    def trained(name: str, seed: int) -> dict[str, Tensor]:
        training.train(composed("model=denoising", "network=mlp", f"seed={seed}"), tmp_path / name)
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
        return state

    first, again, other = trained("first", 1), trained("again", 1), trained("other", 2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_test_metrics_are_in_full_precision(composed: Compose, tmp_path: Path) -> None:
    """... also where the network runs in bfloat16: SSIM differed in its first digit."""
    cfg = composed("model=autoencoder", "network=mlp", "trainer.precision=bf16-mixed", "model.code_dim=2")
    training.train(cfg, tmp_path)
    tested = json.loads((tmp_path / "metrics.json").read_text())
    data, model = (
        training.build_data(cfg),
        Autoencoder.load_from_checkpoint(
            tmp_path / "checkpoints" / "best.ckpt", network=MLP(), weights_only=True
        ),
    )
    data.setup("test")
    batch = data.first(data.test, len(data.test), torch.device("cpu"))
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            reconstruction = model(batch.corrupted)
        expected = model.image_metrics(batch, reconstruction)
    for name in ("mse", "ssim", "psnr"):
        assert tested[f"test/{name}"] == pytest.approx(float(expected[name].mean()), rel=1e-3), name


@pytest.mark.parametrize(
    ("overrides", "steps", "validations"),
    [
        ("trainer.max_steps=3", 3, 1),
        ("trainer.max_steps=7", 7, 2),
        ("trainer.max_steps=3 trainer.check_val_every_n_epoch=null trainer.val_check_interval=2", 3, 2),
        ("trainer.limit_train_batches=2 trainer.max_steps=2", 2, 1),
        ("trainer.check_val_every_n_epoch=3 trainer.max_epochs=2", 10, 0),
    ],
)
def test_a_run_ends_with_a_best_model(
    overrides: str, steps: int, validations: int, composed: Compose, tmp_path: Path
) -> None:
    """... wherever in an epoch it ends, and without a validation its last one is the best."""
    training.train(composed("network=mlp", "trainer.max_epochs=9", *overrides.split()), tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["steps"] == steps
    assert {"val/mse", "test/mse"} <= set(metrics)
    table = tmp_path / "metrics.csv"
    assert len(column(tmp_path, "val/mse") if "val/mse" in table.read_text() else []) == validations


def test_a_term_that_is_not_one_value_an_image_is_named() -> None:
    class Mine(Autoencoder):
        def coded(self, batch: Batch) -> Coded:
            code = self.encode(batch.corrupted)
            return Coded(code, {"l1": code.abs()})

    said = r"the term l1 must be one value per image, \(5,\), or one of the whole batch, \(\), not \(5, 16\)"
    with pytest.raises(UserError, match=said):
        Mine().training_step(batch(torch.rand(5, 1, 28, 28)), 0)


def test_penalties_are_added_and_monitors_are_only_logged(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coded(self: Autoencoder, batch: Batch) -> Coded:
        code = self.encode(batch.corrupted)
        return Coded(code, {"two": torch.tensor(2.0)}, {"three": torch.tensor(3.0)})

    monkeypatch.setattr(Autoencoder, "coded", coded)
    training.train(composed("network=mlp", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"), tmp_path)
    assert set(column(tmp_path, "train/two")) == {2.0}
    assert set(column(tmp_path, "train/three")) == {3.0}
    assert column(tmp_path, "val/three") == [3.0]
    assert column(tmp_path, "val/loss")[0] == pytest.approx(column(tmp_path, "val/nll")[0] + 2)


def test_a_code_may_have_places() -> None:
    model = VAE(network=ResNet(widths=(4, 8, 8), depth=1, hidden=4), code_dim=32)
    images = torch.rand(3, 1, 28, 28)
    assert (model.code_shape, model.code_dim) == ((2, 4, 4), 32)
    code = model.encode(images)
    assert code.shape == (3, 2, 4, 4)
    torch.testing.assert_close(model.decode(code.flatten(1)), model.decode(code))
    assert model.decode(code).shape == images.shape
    assert model.terms(batch(images)).losses["kl"].shape == (3,)
    assert model.sample(4, seed=0).shape == (4, 1, 28, 28)
    with pytest.raises(ValueError, match=r"code_dim=30 must be a multiple of 16: .* 4 x 4 places"):
        VAE(network=ResNet(), code_dim=30)


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"network='mlp' must be a network such as MLP\(\)"):
        Autoencoder(network="mlp")  # type: ignore[arg-type]
