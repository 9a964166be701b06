"""Losses and metrics against the libraries' own and closed forms."""

import math

import pytest
import torch
from torch import distributions as D
from torchmetrics.functional.image import structural_similarity_index_measure

from autoencoders import likelihoods, losses, metrics
from autoencoders.randomness import Randomness

X = torch.rand(5, 1, 6, 6)
OUTPUT = torch.randn(5, 1, 6, 6)


def test_the_gain_is_over_what_is_corrupted() -> None:
    clean, corrupted = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.1)
    known = {"psnr": torch.tensor([30.0, 15.0])}
    gain = metrics.with_gain(known, corrupted, clean)["gain_db"]
    torch.testing.assert_close(gain, torch.tensor([10.0, -5.0]))
    assert metrics.with_gain(known, clean, clean) == known


def test_gaussian_nll_is_that_of_torch() -> None:
    likelihood = likelihoods.Gaussian(0.3)
    expected = -D.Normal(OUTPUT.sigmoid(), 0.3).log_prob(X).flatten(1).sum(1)
    torch.testing.assert_close(likelihood.nll(OUTPUT, X), expected)


def test_gaussian_nll_is_the_squared_error_plus_a_constant() -> None:
    likelihood = likelihoods.Gaussian(math.sqrt(0.5), squash=False)
    squared = (OUTPUT - X).square().flatten(1).sum(1)
    constant = likelihood.nll(OUTPUT, X) - squared
    torch.testing.assert_close(constant, torch.full((5,), 18 * math.log(math.pi)))
    assert torch.equal(likelihood.mean(OUTPUT), OUTPUT)


def test_bernoulli_nll_is_that_of_torch() -> None:
    black_or_white = X.round()
    expected = -D.Bernoulli(logits=OUTPUT).log_prob(black_or_white).flatten(1).sum(1)
    torch.testing.assert_close(likelihoods.Bernoulli().nll(OUTPUT, black_or_white), expected)
    torch.testing.assert_close(likelihoods.Bernoulli().mean(OUTPUT), OUTPUT.sigmoid())


def test_kl_is_that_of_torch() -> None:
    mean, log_variance = torch.randn(4, 3), torch.randn(4, 3)
    posterior = D.Normal(mean, (0.5 * log_variance).exp())
    expected = D.kl_divergence(posterior, D.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(losses.kl_to_standard_normal(mean, log_variance), expected)


def test_metrics_of_a_known_error() -> None:
    clean = torch.rand(3, 3, 32, 32) * 0.5
    values = metrics.reconstruction_metrics(clean + 0.1, clean)
    torch.testing.assert_close(values["mse"], torch.full((3,), 0.01))
    torch.testing.assert_close(values["psnr"], torch.full((3,), 20.0))
    assert ((values["ssim"] > 0) & (values["ssim"] < 1)).all()
    perfect = metrics.reconstruction_metrics(clean, clean)
    assert perfect["psnr"].tolist() == [100] * 3
    assert perfect["ssim"].tolist() == pytest.approx([1] * 3)


def test_chroma_error_does_not_see_luma() -> None:
    clean = torch.rand(2, 3, 4, 4)
    assert metrics.chroma_squared_error(clean + 0.2, clean).abs().max() < 1e-6
    red = torch.tensor([0.1, 0, 0]).view(1, 3, 1, 1)
    expected = ((0.1 - 0.0299) ** 2 + 2 * 0.0299**2) / 3
    torch.testing.assert_close(metrics.chroma_squared_error(clean + red, clean), torch.full((2,), expected))


def test_ssim_in_blocks_is_that_of_each_image() -> None:
    made = torch.Generator().manual_seed(0)
    images, others = (torch.rand(120, 1, 16, 16, generator=made) for _ in range(2))
    alone = torch.cat([metrics.ssim(a[None], b[None]) for a, b in zip(images, others, strict=True)])
    assert torch.allclose(metrics.ssim(images, others), alone, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (2, 3, 32, 48), (90, 1, 16, 16)])
def test_ssim_is_that_of_torchmetrics(shape: tuple[int, ...]) -> None:
    clean = torch.rand(shape)
    noisy = (clean + 0.2 * torch.randn(shape)).clamp(0, 1)
    expected = structural_similarity_index_measure(noisy, clean, data_range=1.0, reduction="none")
    torch.testing.assert_close(metrics.ssim(noisy, clean), expected, atol=1e-5, rtol=1e-4)


def test_samples_of_a_posterior_have_its_mean_and_variance() -> None:
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, math.log(4)]])
    drawn = losses.reparameterise(
        mean.expand(20_000, 2), log_variance.expand(20_000, 2), Randomness(0, rows=20_000).normal(20_000, 2)
    )
    torch.testing.assert_close(drawn.mean(0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.var(0), torch.tensor([1.0, 4.0]), atol=0.1, rtol=0)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_discrepancy_of_shifted_normals_is_its_closed_form(shift: float) -> None:
    """E exp(−|x − y|² / c) of x ~ N(0, 1) and y ~ N(m, 1) is (1 + 4/c)^(−D/2) exp(−|m|² / (c + 4))."""
    drawn = torch.randn(2, 1000, 4, generator=torch.Generator().manual_seed(0)).double()
    widths = [scale * 2 * 4 for scale in losses.SCALES]
    known = [2 * (1 + 4 / c) ** -2 * (1 - math.exp(-4 * shift**2 / (c + 4))) for c in widths]
    found = losses.maximum_mean_discrepancy(drawn[0], drawn[1] + shift, losses.radial_basis)
    assert float(found) == pytest.approx(sum(known) / len(known), abs=6e-3)


def test_the_discrepancy_is_unbiased_and_finite() -> None:
    """... so that its mean over pairs of small batches of one distribution is 0, and one image has none."""
    drawn = torch.randn(200, 2, 5, 3, generator=torch.Generator().manual_seed(0))
    for kernel in losses.KERNELS.values():
        found = torch.stack([losses.maximum_mean_discrepancy(a, b, kernel) for a, b in drawn])
        assert abs(float(found.mean())) < 4 * float(found.std()) / 200**0.5
        assert float(losses.maximum_mean_discrepancy(drawn[0, 0, :1], drawn[0, 1, :1], kernel)) == 0


def test_the_largest_numbers_of_a_code_stay() -> None:
    codes = torch.tensor([[3.0, -1.0, 2.0, 5.0], [-1.0, -4.0, -2.0, -3.0]])
    assert losses.largest(codes, 2).tolist() == [[3, 0, 0, 5], [-1, 0, -2, 0]]
    assert torch.equal(losses.largest(codes, 4), codes)


def test_the_divergence_of_rates_is_that_of_torch() -> None:
    means = torch.rand(6)
    expected = D.kl_divergence(D.Bernoulli(torch.tensor(0.05)), D.Bernoulli(means)).sum()
    torch.testing.assert_close(losses.kl_of_rates(means, 0.05), expected)
    assert losses.kl_of_rates(torch.tensor([0.0, 1.0]), 0.05).isfinite()
