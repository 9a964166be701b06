"""Variational models: their bounds and terms against closed forms and brute force."""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from autoencoders.data import Batch
from autoencoders.likelihoods import Gaussian
from autoencoders.losses import kl_decomposition
from autoencoders.models import CVAE, IWAE, TCVAE, VAE
from autoencoders.networks import MLP, Linear, ResNet
from autoencoders.randomness import Randomness

SHAPE = (1, 4, 4)


def batch(count: int, seed: int = 0) -> Batch:
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return Batch(images, images, torch.arange(count) % 3, Randomness(seed, rows=count))


def small(model: Any, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return model(network=MLP(hidden=(8,)), input_shape=SHAPE, **{"code_dim": 3, **arguments})


def at_step(model: Any, step: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(type(model), "global_step", step)
    return model


def loss_of(model: Any, losses: Mapping[str, Tensor]) -> Tensor:
    """As a training step has it."""
    loss: Tensor = model.total({name: term.mean() for name, term in losses.items()})
    return loss


def kl_of(model: Any, images: Tensor) -> Tensor:
    """Of each number of each code (B, D), as torch has it."""
    mean, log_variance = (part.detach() for part in model.posterior(images))
    return D.kl_divergence(D.Normal(mean, (0.5 * log_variance).exp()), D.Normal(0.0, 1.0))


def test_free_bits_are_not_penalised() -> None:
    images, free = batch(6), 0.025
    model = small(VAE, free_bits=free, beta=2.0)
    losses, monitors = model.terms(images)
    of_units = kl_of(model, images.clean)
    assert of_units.mean(0).min() < free < of_units.mean(0).max()
    penalised = sum(max(free, float(kl)) for kl in of_units.mean(0))
    assert float(losses["penalised_kl"].detach()) == pytest.approx(penalised)
    torch.testing.assert_close(monitors["kl"], of_units.sum(1))
    torch.testing.assert_close(loss_of(model, losses), losses["nll"].mean() + 2 * penalised)


@pytest.mark.parametrize("step", [0, 5, 10, 99])
def test_the_capacity_grows_with_the_steps(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = batch(6)
    model = at_step(small(VAE, capacity=2.0, capacity_steps=10, beta=7.0), step, monkeypatch)
    losses, monitors = model.terms(images)
    distance = abs(float(kl_of(model, images.clean).sum(1).mean()) - 2 * min(1, step / 10))
    assert float(losses["penalised_kl"].detach()) == pytest.approx(distance)
    torch.testing.assert_close(loss_of(model, losses), losses["nll"].mean() + 7 * distance)
    torch.testing.assert_close(monitors["kl"], kl_of(model, images.clean).sum(1))


@pytest.mark.parametrize(("step", "beta"), [(0, 0), (5, 2), (10, 4), (99, 4)])
def test_beta_warms_up(step: int, beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = at_step(small(VAE, warmup_steps=10, beta=4.0), step, monkeypatch)
    losses = model.terms(batch(6)).losses
    torch.testing.assert_close(model.total(losses), losses["nll"] + beta * losses["kl"])
    validated = model.eval().terms(batch(6)).losses
    torch.testing.assert_close(model.total(validated), validated["nll"] + 4 * validated["kl"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"free_bits": -1}, "free_bits=-1 must be ≥ 0"),
        ({"warmup_steps": 0.5}, "warmup_steps=0.5 must be a whole number"),
        ({"capacity": 5.0, "free_bits": 0.1}, "capacity=5.0 and free_bits=0.1 both say"),
        ({"capacity": 5.0, "warmup_steps": 3}, "capacity=5.0 and warmup_steps=3 both say"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        VAE(**arguments)


def linear_gaussian(
    samples: int, gradient: str = "standard", code_dim: int = 2, variance: float = 0.2
) -> tuple[IWAE, D.MultivariateNormal]:
    """p(h) = N(0, 1) and p(x|h) = N(W h + b, variance), whose p(x) is known, and any affine encoder."""
    torch.manual_seed(1)
    model = IWAE(samples, gradient, network=Linear(), input_shape=SHAPE, code_dim=code_dim)
    model.likelihood = Gaussian(math.sqrt(variance), squash=False)
    (layer,) = (module for module in model.decoder.modules() if isinstance(module, torch.nn.Linear))
    weight = layer.weight.detach()
    return model, D.MultivariateNormal(layer.bias.detach(), weight @ weight.T + variance * torch.eye(16))


def test_one_importance_sample_is_the_elbo() -> None:
    images = batch(6)
    (negative_bound,) = small(IWAE, samples=1).terms(images).losses.values()
    vae = small(VAE)
    noise = Randomness(0, rows=6).normal(6, 1, 3)[:, 0]
    mean, log_variance = vae.posterior(images.clean)
    code = mean + (0.5 * log_variance).exp() * noise
    nll = -D.Bernoulli(logits=vae.decoder(code), validate_args=False).log_prob(images.clean)
    posterior = D.Normal(mean, (0.5 * log_variance).exp())
    sampled_kl = (posterior.log_prob(code) - D.Normal(0.0, 1.0).log_prob(code)).sum(1)
    torch.testing.assert_close(negative_bound, nll.flatten(1).sum(1) + sampled_kl)


def test_the_bound_grows_with_its_samples_to_the_evidence() -> None:
    images = batch(1)
    many = images._replace(corrupted=images.clean.expand(64, *SHAPE), clean=images.clean.expand(64, *SHAPE))
    bounds = []
    with torch.no_grad():
        for samples in (1, 5, 50, 2000):
            model, evidence = linear_gaussian(samples)
            noise = Randomness(0, rows=64)
            bounds.append(-float(model.terms(many._replace(noise=noise)).losses["iwae"].mean()))
    assert bounds == sorted(bounds)
    known = float(evidence.log_prob(images.clean.flatten()))
    assert bounds[0] < known - 0.5
    assert bounds[-1] == pytest.approx(known, abs=0.02)


def test_the_doubly_reparameterised_gradient_is_that_of_the_bound() -> None:
    """... in expectation, which is a sum over the nodes of Gauss and Hermite for each of two samples."""
    nodes, shares = (torch.from_numpy(part).float() for part in np.polynomial.hermite_e.hermegauss(100))
    grid = torch.cartesian_prod(nodes, nodes)
    share = torch.cartesian_prod(*[shares / shares.sum()] * 2).prod(1)
    one = batch(1)
    clean = one.clean.expand(len(grid), *SHAPE)
    noise: Any = SimpleNamespace(normal=lambda *shape: grid.view(shape))
    every = one._replace(corrupted=clean, clean=clean, noise=noise)

    def slopes(gradient: str, weights: Tensor) -> dict[str, Tensor]:
        model = linear_gaussian(2, gradient, code_dim=1, variance=3.0)[0]
        loss = (weights * model.terms(every).losses["iwae"]).sum()
        names = [name for name, _ in model.named_parameters()]
        return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))

    standard, doubly = (slopes(gradient, share) for gradient in ("standard", "dreg"))
    for name, slope in standard.items():
        torch.testing.assert_close(doubly[name], slope, atol=2e-4, rtol=2e-3)
    first = torch.zeros(len(grid))
    first[4951] = 1  # where both are near 0
    once, twice = (slopes(gradient, first) for gradient in ("standard", "dreg"))
    for name in standard:
        assert torch.allclose(once[name], twice[name], rtol=1e-3) == name.startswith("decoder"), name


def test_the_parts_of_the_kl_are_those_of_brute_force_and_add_up() -> None:
    made = torch.Generator().manual_seed(0)
    code, mean, log_variance = (torch.randn(5, 3, generator=made) for _ in range(3))
    normals = [D.Normal(m, (0.5 * v).exp()) for m, v in zip(mean, log_variance, strict=True)]
    images, prior = 20, D.Normal(0.0, 1.0)
    joint, alone = torch.zeros(5), torch.ones(5)
    for i in range(5):
        joint[i] = sum(float(q.log_prob(code[i]).sum().exp()) for q in normals) / (5 * images)
        for d in range(3):
            alone[i] *= sum(float(q.log_prob(code[i])[d].exp()) for q in normals) / (5 * images)
    own = torch.stack([q.log_prob(z).sum() for q, z in zip(normals, code, strict=True)])
    information, correlation, each = kl_decomposition(code, mean, log_variance, images).values()
    torch.testing.assert_close(information, (own - joint.log()).mean())
    torch.testing.assert_close(correlation, (joint.log() - alone.log()).mean())
    torch.testing.assert_close(each, (alone.log() - prior.log_prob(code).sum(1)).mean())
    torch.testing.assert_close(information + correlation + each, (own - prior.log_prob(code).sum(1)).mean())


def test_independent_numbers_have_no_total_correlation_and_equal_ones_have_much() -> None:
    means = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    noise = 0.3 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(1))
    narrow = torch.full_like(means, 2 * math.log(0.3))
    equal = means[:, :1].expand(2000, 2)
    found = [float(kl_decomposition(m + noise, m, narrow, 1)["total_correlation"]) for m in (means, equal)]
    # Of two sums of one standard normal number and noise: −½ log(1 − ρ²), ρ = 1 / 1.09.
    known = -0.5 * math.log(1 - (1 / 1.09) ** 2)
    assert found == pytest.approx([0, known], abs=0.05)


def test_the_parts_are_weighed_one_by_one() -> None:
    model = small(TCVAE, alpha=2.0, beta=3.0, gamma=5.0)
    for known in (None, 1000):  # images of the data set; the batch is all of it if nobody says
        images, model.images = batch(6), known
        losses, monitors = model.terms(images)
        mean, log_variance = model.posterior(images.clean)
        code = mean + (0.5 * log_variance).exp() * Randomness(0, rows=6).normal(6, 3)
        parts = kl_decomposition(code, mean, log_variance, known or 6)
        weighted = sum(w * part for w, part in zip((2, 3, 5), parts.values(), strict=True))
        torch.testing.assert_close(loss_of(model, losses), losses["nll"].mean() + weighted)
        torch.testing.assert_close(monitors["kl"].detach(), kl_of(model, images.clean).sum(1))


def test_the_decoder_is_told_the_label_and_the_encoder_guesses_it() -> None:
    model, images = small(CVAE, classes=3, label_weight=7.0, beta=2.0), batch(6)
    assert (model.code_shape, model.code_dim) == ((6,), 6)
    code, penalties, _ = model.coded(images)
    mean, log_variance, logits = model.posterior(images.clean)
    noise = Randomness(0, rows=6).normal(6, 3)
    torch.testing.assert_close(code[:, :3], mean + (0.5 * log_variance).exp() * noise)
    assert torch.equal(code[:, 3:], torch.eye(3)[images.labels])
    known = -D.Categorical(logits=logits).log_prob(images.labels)
    torch.testing.assert_close(penalties["label"], known)
    kl = D.kl_divergence(D.Normal(mean, (0.5 * log_variance).exp()), D.Normal(0.0, 1.0)).sum(1)
    losses = model.terms(batch(6)).losses
    torch.testing.assert_close(model.total(losses), losses["nll"] + 2 * kl + 7 * known)
    torch.testing.assert_close(model.encode(images.clean), torch.cat([mean, logits.softmax(1)], 1))


def test_a_class_is_asked_for() -> None:
    model = small(CVAE, classes=3)
    in_turn, of_one = model.prior_codes(7, seed=1), model.prior_codes(7, seed=1, label=2)
    assert in_turn[:, 3:].argmax(1).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert of_one[:, 3:].tolist() == [[0, 0, 1]] * 7
    assert torch.equal(in_turn[:, :3], of_one[:, :3])
    torch.testing.assert_close(model.sample(7, seed=1, label=2), model.decode(of_one))
    with pytest.raises(ValueError, match=r"^label=3 must be ≥ 0 and ≤ 2"):
        model.sample(1, seed=0, label=3)


def test_a_class_stands_at_every_place_of_a_code() -> None:
    network = ResNet(widths=(4, 8), depth=1, hidden=4)
    model = CVAE(network=network, input_shape=(1, 8, 8), code_dim=8, classes=3)
    assert model.code_shape == (5, 2, 2)
    codes = model.prior_codes(3, seed=0)
    assert torch.equal(codes[:, 2:], torch.eye(3)[:, :, None, None].expand(3, 3, 2, 2))
    images = model.decode(codes)
    assert images.shape == (3, 1, 8, 8)
    code = model.encode(images)
    assert code.shape == (3, 5, 2, 2)
    torch.testing.assert_close(code[:, 2:].sum(1), torch.ones(3, 2, 2))
    assert model.posterior(images)[2].shape == (3, 3)


def test_classes_that_do_not_fit_are_refused() -> None:
    def data(**of: Any) -> Any:
        return SimpleNamespace(input_shape=SHAPE, target_shape=SHAPE, **of)

    model = small(CVAE, classes=3)
    model.check_data(data(classes=("a", "b", "c")))
    for wrong, message in (
        (data(), "^model=cvae needs classes to be told, and SimpleNamespace has none"),
        (data(classes=("a", "b")), "^classes=3 must be 2, as many as SimpleNamespace has"),
        (data(classes=("a", "b", "c"), only=(1,)), "^model=cvae learns all classes"),
    ):
        with pytest.raises(ValueError, match=message):
            model.check_data(wrong)
