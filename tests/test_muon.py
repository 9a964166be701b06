"""Muon: what it does to a matrix, a convolution, and everything else."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoencoders.models import Autoencoder
from autoencoders.optimizers import Muon, orthogonalised

SHAPES = [(64, 200), (200, 64), (96, 300), (80, 80)]


def matrices() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def test_singular_values_come_near_one_and_vectors_stay() -> None:
    for matrix, result in zip(matrices()[:-1], orthogonalised(matrices()[:-1]), strict=True):
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        inside = u.mT @ result @ v.mT
        assert ((inside.diagonal() > 0.65) & (inside.diagonal() < 1.25)).all()
        torch.testing.assert_close(inside, inside.diagonal().diag(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [1e-5, 1e6])
def test_its_size_does_not_matter(scale: float) -> None:
    for small, result in zip(
        orthogonalised([scale * matrix for matrix in matrices()]), orthogonalised(matrices()), strict=True
    ):
        torch.testing.assert_close(small, result, atol=1e-2, rtol=0)


@pytest.mark.parametrize("size", [0.0, 1e-15, 1e-30])
def test_a_gradient_that_vanishes_moves_nothing(size: float) -> None:
    for weights in matrices():
        moved = stepped(partial(Muon, lr=1e-2), weights, [size * torch.randn_like(weights)])
        torch.testing.assert_close(moved, weights, atol=1e-5, rtol=0)


def test_singular_values_that_vanish_stay_finite() -> None:
    """More steps would amplify the rounding error of the Gram matrix: seven, to a norm of 100."""
    u, _, v = torch.linalg.svd(torch.randn(128, 128))
    (result,) = orthogonalised([u @ torch.logspace(0, -12, 128).diag() @ v])
    assert torch.linalg.matrix_norm(result, 2) < 1.25


def test_a_matrix_of_zeros_stays_and_one_of_rank_one_does_too() -> None:
    column = torch.ones(64, 1)
    zeros, one = orthogonalised([torch.zeros(40, 50), column @ column.T])
    assert not zeros.any()
    assert torch.linalg.matrix_rank(one, atol=1e-3) == 1


def stepped(make: Any, weights: Tensor, gradients: list[Tensor]) -> Tensor:
    weight = nn.Parameter(weights.clone())
    optimizer = make([weight])
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def test_matrices_move_as_by_torchs_muon() -> None:
    """But for its rounding to bfloat16, and the scale."""
    for weights in matrices():
        gradients = [torch.randn_like(weights) for _ in range(3)]
        ours = stepped(partial(Muon, lr=1e-2, betas=(0.95, 0.95)), weights, gradients) - weights
        theirs = stepped(
            partial(torch.optim.Muon, lr=1e-2, momentum=0.95, weight_decay=0.0), weights, gradients
        )
        cosine = torch.cosine_similarity(ours.flatten(), (theirs - weights).flatten(), dim=0)
        assert cosine > 0.999


def test_an_update_has_the_root_mean_square_of_the_learning_rate() -> None:
    for weights in matrices():
        update = stepped(partial(Muon, lr=1e-2), weights, [torch.randn_like(weights)]) - weights
        assert 0.65e-2 < update.square().mean().sqrt() < 1.25e-2


def test_a_convolution_is_a_matrix() -> None:
    weights, gradient = torch.randn(64, 16, 3, 3), torch.randn(64, 16, 3, 3)
    as_matrix = stepped(Muon, weights.flatten(1), [gradient.flatten(1)])
    assert torch.equal(stepped(Muon, weights, [gradient]), as_matrix.view_as(weights))


@pytest.mark.parametrize("shape", [(100,), (16, 784), (784, 16), (64, 1, 3, 3)])
def test_everything_else_is_adamws(shape: tuple[int, ...]) -> None:
    settings: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1}
    weights = torch.randn(shape)
    gradients = [torch.randn(shape) for _ in range(3)]
    theirs = stepped(partial(torch.optim.AdamW, fused=True, **settings), weights, gradients)
    assert torch.equal(stepped(partial(Muon, **settings), weights, gradients), theirs)


def test_decay_shrinks_a_matrix() -> None:
    weights = torch.randn(64, 64)
    result = stepped(partial(Muon, lr=0.1, weight_decay=0.5), weights, [torch.zeros(64, 64)])
    torch.testing.assert_close(result, 0.95 * weights)


def test_groups_have_settings_of_their_own_and_parameters_without_a_gradient_stay() -> None:
    fast, slow, adams = (nn.Parameter(torch.zeros(64, 64)) for _ in range(3))
    unused = nn.Parameter(torch.ones(64, 64))
    fast.grad = slow.grad = adams.grad = torch.randn(64, 64)
    groups = [
        {"params": [fast, unused]},
        {"params": [slow], "lr": 1e-3},
        {"params": [adams], "min_side": 65},
    ]
    optimizer = Muon(groups, lr=1e-2, weight_decay=0.1)
    copy.deepcopy(optimizer).step()
    optimizer.step()
    torch.testing.assert_close(fast.detach(), 10 * slow.detach())
    torch.testing.assert_close(adams.detach(), -1e-2 * adams.grad.sign())  # as Adam's first step
    assert torch.equal(unused.detach(), torch.ones(64, 64))


@pytest.mark.parametrize("shape", [(2, 64, 64), (0, 64), (64, 0)])
def test_codebooks_and_empty_parameters_are_adamws(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = torch.ones(shape)
    optimizer = Muon([weight])
    optimizer.step()
    assert "exp_avg" in optimizer.state[weight]


def test_float64_keeps_its_precision() -> None:
    matrix = torch.randn(64, 80, dtype=torch.float64)
    (result,) = orthogonalised([matrix])
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.mT @ result @ v.mT
    torch.testing.assert_close(inside, inside.diagonal().diag(), atol=1e-10, rtol=0)


def test_it_goes_on_from_its_state() -> None:
    model = nn.Sequential(nn.Linear(64, 80), nn.Linear(80, 2))
    optimizer = Muon(model.parameters())

    def step(model: nn.Module, optimizer: Muon) -> Tensor:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(torch.ones(1, 64)).square().sum()
            loss.backward()
            return loss

        return optimizer.step(closure)

    for _ in range(2):
        step(model, optimizer)
    other = copy.deepcopy(model)
    restored = Muon(other.parameters())
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert step(other, restored) == step(model, optimizer)
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_it_says_which_part_of_the_parameters_is_its_own() -> None:
    layers = nn.Linear(8, 10), nn.Linear(4, 8)  # 80 + 10 and 32 + 8 numbers
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    assert Muon(parameters, min_side=8).division() == (
        "Muon for 1 layer, 62% of all parameters; AdamW for the others"  # 80 of 130
    )
    assert Muon(parameters, min_side=4).division().startswith("Muon for 2 layers, 86% of ")
    assert Muon(parameters, min_side=11).division().startswith("AdamW alone: ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\) must be two numbers ≥ 0 and < 1"),
        ({"betas": (0.9,)}, r"betas=\(0.9,\) must be two numbers"),
        ({"betas": (0.9, "x")}, r"betas=\(0.9, 'x'\) must be two numbers"),
        ({"betas": 0.9}, "betas=0.9 must be two numbers"),
        ({"eps": -1}, "eps=-1 must be > 0"),
        ({"weight_decay": -1}, "weight_decay=-1 must be ≥ 0"),
        ({"min_side": 0}, "min_side=0 must be"),
    ],
)
def test_what_is_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^optimizer.{message}"):
        Autoencoder(optimizer=partial(Muon, **settings))
