"""Likelihoods against torch's distributions, numerical integration and sums."""

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as D

from autoencoders import likelihoods
from autoencoders.models import Autoencoder, LinearAutoencoder, Restoration
from autoencoders.networks import MLP, Own

X = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
OUTPUT = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))
LOGITS = torch.tensor([-60, -9, -1, -0.11, -0.09, -1e-3, 0, 1e-4, 0.0999, 0.1001, 0.5, 7, 40])


def of_each(log_prob: Tensor) -> Tensor:
    return -log_prob.flatten(1).sum(1)


def test_laplace_is_that_of_torch() -> None:
    expected = of_each(D.Laplace(OUTPUT.sigmoid(), 0.3 / math.sqrt(2)).log_prob(X))
    torch.testing.assert_close(likelihoods.Laplace(0.3).nll(OUTPUT, X), expected)
    assert float(D.Laplace(0.0, 0.3 / math.sqrt(2)).stddev) == pytest.approx(0.3)


def test_continuous_bernoulli_is_that_of_torch() -> None:
    likelihood = likelihoods.ContinuousBernoulli()
    torch_s = D.ContinuousBernoulli(logits=OUTPUT.double())
    torch.testing.assert_close(
        likelihood.nll(OUTPUT, X), of_each(torch_s.log_prob(X.double())), check_dtype=False
    )
    torch.testing.assert_close(likelihood.mean(OUTPUT), torch_s.mean, check_dtype=False, rtol=1e-4, atol=1e-5)
    pixels = likelihoods.ContinuousBernoulli(squash=False)
    torch.testing.assert_close(pixels.nll(OUTPUT.sigmoid(), X), likelihood.nll(OUTPUT, X))


def test_continuous_bernoulli_is_normalised_also_around_a_half() -> None:
    """Its density integrates to 1, and times x to its mean; no slope is NaN where 0/0 would be."""
    x = (torch.arange(20_000).double() + 0.5) / 20_000
    for logit in LOGITS:
        density = (logit.double() * x - torch.nn.functional.softplus(logit.double())).exp()
        known = -float(density.mean().log())
        assert float(likelihoods.log_normaliser(logit)) == pytest.approx(known, rel=2e-5), logit
        mean = float((x * density).mean() / density.mean())
        assert float(likelihoods.ContinuousBernoulli().mean(logit)) == pytest.approx(mean, abs=2e-5), logit
    output = LOGITS.view(1, 1, 1, -1).clone().requires_grad_()
    likelihood = likelihoods.ContinuousBernoulli()
    for made in (likelihood.nll(output, torch.full_like(output, 0.5)), likelihood.mean(output)):
        (slope,) = torch.autograd.grad(made.sum(), output)
        assert slope.isfinite().all()


@pytest.mark.parametrize("spread", [1.0, 5.0, 30.0])  # means beyond black and white, scales from e⁻⁷ to e⁷
def test_the_grey_levels_probabilities_sum_to_one(spread: float) -> None:
    likelihood = likelihoods.DiscretizedLogistic(mixtures=3)
    assert likelihood.channels(2) == 18
    output = spread * torch.randn(20, 9, 1, 1, generator=torch.Generator().manual_seed(0))
    levels = (torch.arange(256) / 255).view(256, 1, 1, 1)
    p = torch.stack([(-likelihood.nll(of_image.expand(256, 9, 1, 1), levels)).exp() for of_image in output])
    torch.testing.assert_close(p.sum(1), torch.ones(20), rtol=0, atol=1e-5)
    mean = (p * levels.flatten()).sum(1)
    torch.testing.assert_close(likelihood.mean(output).flatten(), mean, rtol=0, atol=0.5 / 255 + 1e-5)
    output.requires_grad_()
    (slope,) = torch.autograd.grad(likelihood.nll(output, levels[:20]).sum(), output)
    assert slope.isfinite().all()


def test_a_discretised_logistic_is_a_difference_of_its_cdf() -> None:
    likelihood = likelihoods.DiscretizedLogistic(mixtures=3)
    output = torch.randn(4, 18, 2, 1, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([3, 77, 128, 251]).double()
    shares, means, log_scales = output.double().view(4, 3, 3, 2, 2, 1).unbind(1)

    def cdf(x: Tensor) -> Tensor:
        return ((x.view(4, 1, 1, 1, 1) - means) / log_scales.exp()).sigmoid()

    x = 2 * levels / 255 - 1
    p = (shares.softmax(1) * (cdf(x + 1 / 255) - cdf(x - 1 / 255))).sum(1)
    clean = (levels / 255).float().view(4, 1, 1, 1).expand(4, 2, 2, 1)
    torch.testing.assert_close(likelihood.nll(output, clean), of_each(p.log()), check_dtype=False)


def test_a_learned_deviation_ends_at_the_root_mean_squared_error() -> None:
    likelihood = likelihoods.LearnedGaussian(0.7)
    optimizer = torch.optim.Adam(likelihood.parameters(), 0.02)
    for _ in range(300):
        optimizer.zero_grad()
        likelihood.nll(OUTPUT, X).mean().backward()
        optimizer.step()
    expected = float((OUTPUT.sigmoid() - X).square().mean().sqrt())
    assert float(likelihood.log_std.detach().exp()) == pytest.approx(expected, rel=1e-3)


def test_the_optimal_deviation_is_the_best_and_has_its_gradient() -> None:
    """... that of (D/2) log mse, the loss with the minimum put in."""
    likelihood, output = likelihoods.OptimalGaussian(), OUTPUT.clone().requires_grad_()
    nll = likelihood.nll(output, X).mean()
    mse = (output.sigmoid() - X).square().mean()
    best = math.sqrt(float(mse.detach()))
    costs = [float(likelihoods.Gaussian(best * by).nll(OUTPUT, X).mean()) for by in (0.9, 1.0, 1.1)]
    assert float(nll.detach()) == pytest.approx(costs[1], rel=1e-4)
    assert costs[1] < min(costs[0], costs[2])
    slopes = [torch.autograd.grad(cost, output)[0] for cost in (nll, 18 * mse.log())]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-6)


def test_the_optimal_deviation_is_of_all_processes_and_kept_for_evaluation() -> None:
    likelihood = likelihoods.OptimalGaussian()
    others = torch.rand(7)
    likelihood.nll(OUTPUT, X, lambda mine: torch.cat([mine, others]))
    mine = (OUTPUT.sigmoid() - X).square().flatten(1).mean(1)
    everyone = float(torch.cat([mine, others]).mean())
    assert float(likelihood.running) == pytest.approx(everyone, rel=1e-4)
    likelihood.nll(OUTPUT, X)  # then the mean of both steps
    kept = (everyone + float(mine.mean())) / 2
    copy = likelihoods.OptimalGaussian().eval()
    copy.load_state_dict(likelihood.state_dict())
    torch.testing.assert_close(
        copy.nll(OUTPUT, X), likelihoods.Gaussian(math.sqrt(kept)).nll(OUTPUT, X), rtol=1e-4, atol=1e-4
    )
    assert copy.state_dict() == likelihood.state_dict()


@pytest.mark.parametrize("name", likelihoods.LIKELIHOODS)
def test_every_likelihood_learns_to_overfit(name: str) -> None:
    torch.manual_seed(0)
    model = Autoencoder(network=MLP(hidden=(32,)), input_shape=(1, 6, 6), code_dim=8, likelihood=name)
    assert all(parameter.requires_grad for parameter in model.parameters())
    images = (255 * X).round() / 255
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model.likelihood.nll(model.output(model.encode(images)), images).mean().backward()
        optimizer.step()
    assert float((model.eval()(images) - images).detach().square().mean()) < 0.02


def test_an_unbounded_gaussian_s_mean_is_the_decoder_s_output() -> None:
    model = Autoencoder(network=MLP([8]), input_shape=(1, 6, 6), likelihood="gaussian_unbounded")
    code = 1000 * torch.randn(20, 16)
    images = model.decode(code)
    torch.testing.assert_close(images, model.decoder(code))
    assert float(images.detach().min()) < 0
    assert float(images.detach().max()) > 1
    assert not model.bounded


def test_likelihoods_that_do_not_fit_are_refused() -> None:
    decoder = torch.nn.Sequential(torch.nn.Linear(4, 15 * 36), torch.nn.Unflatten(1, (15, 6, 6)))
    decoder.append(torch.nn.Sigmoid())
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 4))
    with pytest.raises(ValueError, match=r"^likelihood=discretized_logistic needs shares, means and scales"):
        Autoencoder(Own(encoder, decoder), (1, 6, 6), code_dim=4, likelihood="discretized_logistic")
    with pytest.raises(ValueError, match=r"^likelihood=discretized_logistic needs several numbers a pixel"):
        Restoration(likelihood="discretized_logistic")
    with pytest.raises(ValueError, match=r"^likelihood=laplace must be gaussian in a linear"):
        LinearAutoencoder(likelihood="laplace")
    with pytest.raises(ValueError, match=r"^likelihood_mixtures=0 must be ≥ 1"):
        Autoencoder(likelihood="discretized_logistic", likelihood_mixtures=0)
