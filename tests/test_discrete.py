"""Codes made of symbols: quantisation by brute force and by hand."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from autoencoders import quantisation
from autoencoders.data import Batch
from autoencoders.evaluation.prior import Prior, learnt
from autoencoders.models import FSQ, VQVAE
from autoencoders.networks import MLP, ResNet
from autoencoders.randomness import Randomness

TINY = ResNet(widths=(4, 8, 8), depth=0, hidden=4)
IMAGES = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def batch(images: Tensor = IMAGES) -> Batch:
    labels = torch.zeros(len(images), dtype=torch.long)
    return Batch(images, images, labels, Randomness(0, rows=len(images)))


def vq_vae(**arguments: Any) -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(TINY, embedding_dim=3, codebook_size=5, **arguments)


def test_the_gradient_goes_straight_through() -> None:
    value = torch.randn(4, 3, requires_grad=True)
    quantised = quantisation.straight_through(value, value.round())
    torch.testing.assert_close(quantised, value.round())
    slope = torch.randn(4, 3)
    assert torch.equal(torch.autograd.grad(quantised, value, slope)[0], slope)


def test_the_nearest_vector_is_that_of_brute_force() -> None:
    vectors, codebook = torch.randn(4, 2, 3), torch.randn(7, 3)
    distances = (vectors[..., None, :] - codebook).norm(dim=-1)
    assert torch.equal(quantisation.nearest(vectors, codebook), distances.argmin(-1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantisation.nearest(vectors, codebook), distances.argmin(-1))


def test_each_level_leaves_a_smaller_error() -> None:
    vectors = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    books, rest, errors = [], vectors, []
    for level in range(4):  # each of what the levels before have left of other vectors
        books.append(rest[100 * level : 100 * level + 20])
        codebooks = torch.stack(books)
        symbols = quantisation.residual_symbols(vectors, codebooks)
        assert symbols.shape == (500, level + 1)
        rest = vectors - quantisation.looked_up(symbols, codebooks)
        errors.append(float(rest.square().mean()))
    assert all(after < 0.7 * before for before, after in itertools.pairwise(errors))


def test_perplexity_is_the_size_for_uniform_use_and_never_more() -> None:
    uniform = torch.arange(12).reshape(2, 1, 6) % 4
    assert quantisation.use_of(uniform, 4) == {"perplexity": pytest.approx(4), "usage": 1}
    one = torch.full((5, 1, 2), 3)
    assert quantisation.use_of(one, 4) == {"perplexity": pytest.approx(1), "usage": 0.25}
    both = quantisation.use_of(torch.cat([uniform, uniform * 0], 1), 4)  # the mean over symbols of a place
    assert both == {"perplexity": pytest.approx(2.5), "usage": 0.625}
    some = torch.randint(9, (50, 1, 3))
    assert quantisation.use_of(some, 9)["perplexity"] < 9


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (2, 3), (4,)])
def test_every_symbol_of_a_grid_is_one_point_that_the_bound_reaches(levels: tuple[int, ...]) -> None:
    sizes, count = torch.tensor(levels), int(torch.tensor(levels).prod())
    wanted = {tuple(p) for p in itertools.product(*(range(-(n // 2), n - n // 2) for n in levels))}
    points = quantisation.grid_points(torch.arange(count), sizes)
    assert {tuple(point) for point in points.tolist()} == wanted
    assert torch.equal(quantisation.grid_symbols(points, sizes), torch.arange(count))
    numbers = torch.linspace(-12, 12, 4001)[:, None].expand(-1, len(levels))
    rounded = quantisation.bounded(numbers, sizes).round()
    for axis, size in enumerate(levels):
        assert sorted(set(rounded[:, axis].tolist())) == list(range(-(size // 2), size - size // 2))
    torch.testing.assert_close(quantisation.bounded(torch.zeros(1, len(levels)), sizes)[0], 0.0 * sizes)


def test_a_codebook_follows_the_mean_of_what_is_nearest_to_it() -> None:
    """Two steps by hand, from the state after the first one."""
    model = vq_vae(decay=0.75)
    model.coded(batch())
    counts, sums, before = (x.clone() for x in (model.counts[0], model.sums[0], model.codebooks[0]))
    torch.testing.assert_close(before, sums / counts[:, None])
    vectors = model.continuous(IMAGES).detach().movedim(1, -1).reshape(-1, 3)
    nearest = (vectors[:, None] - before).norm(dim=-1).argmin(1)
    dead = counts < 0.05 * len(vectors) / 5
    assert not dead.any()
    model.coded(batch())
    for k in range(5):
        mine = vectors[nearest == k]
        count, total = 0.75 * counts[k] + 0.25 * len(mine), 0.75 * sums[k] + 0.25 * mine.sum(0)
        torch.testing.assert_close(model.counts[0, k], count)
        torch.testing.assert_close(model.codebooks[0, k], total / count)
    after = model.codebooks.clone()
    model.eval().coded(batch())
    assert torch.equal(model.codebooks, after)


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_unused_vectors_become_codes_of_the_batch(codebook: str) -> None:
    model = vq_vae(codebook=codebook, levels=2)
    model.coded(batch())  # at the first step that is all of them
    with torch.no_grad():
        model.codebooks[0, 2] = 1e3
        model.counts[0, 2] = 1e-6
        if codebook == "ema":
            model.sums[0, 2] = 1e-3
    kept = model.codebooks[0, [0, 1, 3, 4]].clone()
    vectors = model.continuous(IMAGES).detach().movedim(1, -1).reshape(-1, 3)
    model._replace_unused(model.continuous(IMAGES), batch().noise)
    assert (vectors - model.codebooks[0, 2]).norm(dim=1).min() == 0
    assert torch.equal(model.codebooks[0, [0, 1, 3, 4]], kept)
    assert model.counts[0, 2] == pytest.approx(0.1 * len(vectors) / 5)


def test_a_vq_vae_s_loss_is_that_of_its_paper() -> None:
    model = vq_vae(codebook="loss", commitment=0.5).eval()
    continuous, code = model.continuous(IMAGES), model.encode(IMAGES)
    terms = model.terms(batch()).losses
    squared = (continuous - code).square().flatten(1).sum(1)
    nll = model.likelihood.nll(model.output(code), IMAGES)
    torch.testing.assert_close(model.total(terms), nll + 1.5 * squared)
    (to_codebook,) = torch.autograd.grad(terms["commitment"].sum(), model.codebooks, allow_unused=True)
    assert to_codebook is None
    model.total(terms).sum().backward()
    assert model.codebooks.grad is not None
    used = model.symbols(IMAGES).unique()
    unused = [k for k in range(5) if k not in used]
    assert not model.codebooks.grad[0, unused].any()
    assert model.codebooks.grad[0, used].any()


@pytest.mark.parametrize(
    "model", [vq_vae(levels=2), FSQ(TINY, levels=[3, 4]), FSQ(MLP([8]), code_dim=4, levels=[3, 4])]
)
def test_codes_are_what_their_symbols_name(model: Any) -> None:
    model.train().coded(batch())
    symbols, code = model.eval().symbols(IMAGES), model.encode(IMAGES)
    assert symbols.shape == (6, *model.symbols_shape)
    assert 0 <= symbols.min() <= symbols.max() < model.codebook_size
    torch.testing.assert_close(model.code_of(symbols), code)
    torch.testing.assert_close(model.coded(batch()).code, code)
    assert model.prior_codes(3, seed=0).shape == (3, *model.code_shape)
    every = torch.stack([model.prior_codes(500, seed=0).flatten(1)[:, 0]]).unique()
    assert len(every) <= model.codebook_size**2


def test_the_size_of_a_code() -> None:
    assert (vq_vae().code_shape, vq_vae().symbols_shape) == ((3, 4, 4), (1, 4, 4))
    assert VQVAE(TINY, codebook_size=512, levels=2).code_bits == 2 * 16 * 9
    assert VQVAE(TINY).code_shape == (64, 4, 4)
    assert VQVAE(TINY, code_dim=32).code_shape == (2, 4, 4)
    assert VQVAE(MLP([8]), code_dim=5).code_shape == (5,)
    assert FSQ(TINY).code_bits == pytest.approx(16 * 9.9658, rel=1e-4)
    two = FSQ(TINY, code_dim=64, levels=[5, 5])
    assert (two.code_shape, two.symbols_shape) == ((4, 4, 4), (2, 4, 4))


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (VQVAE, {"codebook_size": 1}, "codebook_size=1 must be ≥ 2 and ≤ 65536"),
        (VQVAE, {"levels": 0}, "levels=0 must be ≥ 1 and ≤ 64"),
        (VQVAE, {"commitment": -1}, "commitment=-1 must be ≥ 0"),
        (VQVAE, {"codebook": "mean"}, "codebook=mean must be ema or loss"),
        (VQVAE, {"decay": 1}, "decay=1 must be ≥ 0 and < 1"),
        (VQVAE, {"embedding_dim": 0}, "embedding_dim=0 must be ≥ 1"),
        (VQVAE, {"embedding_dim": 8, "code_dim": 32}, "embedding_dim=8 must be 2 with code_dim=32: set one"),
        (VQVAE, {"code_dim": 30}, "code_dim=30 must be a multiple of 16"),
        (FSQ, {"levels": [1, 5]}, r"levels\[0\]=1 must be ≥ 2"),
        (FSQ, {"levels": []}, r"levels=\[\] must make 2 to 65536 symbols, not 1"),
        (FSQ, {"levels": [300, 300]}, r"levels=\[300, 300\] must make 2 to 65536 symbols, not 90000"),
        (FSQ, {"code_dim": 48}, "code_dim=48 must be a multiple of 64: 4 levels at each of 16 places"),
    ],
)
def test_arguments_are_checked(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        model(TINY, **arguments)


def test_the_prior_learns_what_follows_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each code the first symbol is free, each other one is above's or, in the first line, the next."""
    monkeypatch.setattr("autoencoders.evaluation.prior.STEPS", 120)
    first = torch.randint(4, (400,), generator=torch.Generator().manual_seed(0))
    line = (first[:, None] + torch.arange(3)) % 4
    symbols = line[:, None, None].expand(-1, 1, 2, -1)  # (400, 1, 2, 3)
    drawn = learnt(symbols, 4).sample(200, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 1, 2, 3)
    follows = (drawn == (drawn[:, :, :1, :1] + torch.arange(3)) % 4).flatten(1).all(1)
    assert follows.float().mean() > 0.95
    assert torch.bincount(drawn[:, 0, 0, 0], minlength=4).min() > 20


def test_the_prior_sees_only_what_is_before() -> None:
    torch.manual_seed(0)
    prior = Prior((2, 2, 2), 5)
    symbols = torch.randint(5, (1, 2, 2, 2))
    line = prior.in_line(symbols)
    assert torch.equal(prior.at_places(line), symbols)
    for place in range(8):
        changed = line.clone()
        changed[0, place] = (line[0, place] + 1) % 5
        differs = (prior(changed) != prior(line)).any(-1)[0]
        assert not differs[: place + 1].any()
        assert differs[place + 1 :].all()
