"""What the sparse, contractive, regularized and masked autoencoders compute."""

import re
from typing import Any

import pytest
import torch
from conftest import Compose
from torch import Tensor

from autoencoders import losses, training
from autoencoders.corruption import Patches
from autoencoders.data import Batch
from autoencoders.evaluation.contraction import contraction
from autoencoders.evaluation.subject import Subject
from autoencoders.models import RAE, ContractiveAutoencoder, MaskedAutoencoder, SparseAutoencoder
from autoencoders.models.rae import LAYERS
from autoencoders.networks import MLP, Conv, Network, ResNet
from autoencoders.randomness import Randomness

SMALL: dict[str, Any] = {"network": MLP(hidden=[8]), "input_shape": (1, 6, 6), "code_dim": 5}


def batch(clean: Tensor, corrupted: Tensor | None = None) -> Batch:
    labels = torch.zeros(len(clean), dtype=torch.long)
    return Batch(clean if corrupted is None else corrupted, clean, labels, Randomness(0, rows=len(clean)))


IMAGES = torch.rand(7, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def test_a_sparse_code_is_the_one_that_is_trained_and_evaluated() -> None:
    for sparsity in ("topk", "kl", "l1"):
        model = SparseAutoencoder(sparsity, k=2, **SMALL)
        units = model.encoder(IMAGES)
        code, penalties, monitors = model.coded(batch(IMAGES))
        assert torch.equal(model.encode(IMAGES), code)
        if sparsity == "topk":
            assert not penalties
            assert torch.equal(code.sort(1).values.abs().gt(0).sum(1), torch.full((7,), 2))
            assert monitors["activity"].tolist() == pytest.approx([2 / 5] * 7)
        elif sparsity == "kl":
            torch.testing.assert_close(code, units.sigmoid())
            torch.testing.assert_close(
                penalties["sparsity"], losses.kl_of_rates(units.sigmoid().mean(0), 0.05)
            )
            torch.testing.assert_close(monitors["activity"], units.sigmoid().mean(1))
        else:
            torch.testing.assert_close(penalties["sparsity"], units.clamp(min=0).sum(1))
            torch.testing.assert_close(monitors["activity"], (units > 0).float().mean(1))


def test_jacobian_norms_are_those_of_jacrev() -> None:
    """... exactly, and on average over random directions."""
    exact = ContractiveAutoencoder("exact", **SMALL)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda image: exact.encode(image[None])[0]))(IMAGES)
    known = jacobians.detach().square().flatten(1).sum(1)
    code, penalties, monitors = exact.coded(batch(IMAGES))
    torch.testing.assert_close(code, exact.encode(IMAGES))
    torch.testing.assert_close(penalties["jacobian"], known)
    torch.testing.assert_close(monitors["jacobian_norm"], known.mean().sqrt())

    stochastic = ContractiveAutoencoder(**SMALL)
    stochastic.load_state_dict(exact.state_dict())
    many = IMAGES[:1].expand(4000, -1, -1, -1)
    code, penalties, _ = stochastic.coded(batch(many))
    torch.testing.assert_close(code, stochastic.encode(many))
    estimates = penalties["jacobian"].detach()
    assert abs(float(estimates.mean() - known[0])) < 4 * float(estimates.std()) / 4000**0.5


def test_the_slope_of_a_jacobian_norm_is_that_of_differences() -> None:
    """... by a weight of the encoder, and also in a code with places."""
    network = ResNet(widths=(4, 4), depth=1, hidden=4)
    model = ContractiveAutoencoder("exact", network=network, input_shape=(1, 8, 8), code_dim=16).double()
    images = torch.rand(3, 1, 8, 8).double()
    weight = next(model.encoder.parameters())

    def penalty() -> Tensor:
        return losses.squared_jacobian(model.encoder, images)[1].double().sum()

    (slope,) = torch.autograd.grad(penalty(), weight)
    with torch.no_grad():
        index, step = (0, 0, 1, 1), 1e-2
        weight[index] += step
        above = penalty()
        weight[index] -= 2 * step
        below = penalty()
    assert float(slope[index]) == pytest.approx(float(above - below) / (2 * step), rel=1e-2, abs=1e-3)


def test_what_a_regularized_decoder_costs() -> None:
    for regularizer in ("l2", "gp", "sn"):
        model = RAE(regularizer, **SMALL)
        code, penalties, _ = model.coded(batch(IMAGES))
        assert torch.equal(code, model.encode(IMAGES))
        torch.testing.assert_close(penalties["code"], code.square().sum(1) / 2)
        if regularizer == "l2":
            vector = torch.nn.utils.parameters_to_vector(model.decoder.parameters())
            torch.testing.assert_close(penalties["decoder"], vector @ vector)
        elif regularizer == "gp":  # one direction for many copies of an image: on average the exact norm
            exact = losses.squared_jacobian(model.decode, code[:1])[1].detach()
            estimates = model.coded(batch(IMAGES[:1].expand(4000, -1, -1, -1))).penalties["decoder"].detach()
            assert abs(float(estimates.mean() - exact)) < 4 * float(estimates.std()) / 4000**0.5
        else:
            assert set(penalties) == {"code"}


@pytest.mark.parametrize("network", [MLP(hidden=[8]), Conv(channels=[4], hidden=[8])], ids=["mlp", "conv"])
def test_the_layers_of_a_spectrally_normalised_decoder_have_norm_1(network: Network) -> None:
    """... once training has run the power iteration, and evaluation leaves it as it is."""
    model = RAE("sn", **{**SMALL, "network": network})
    for _ in range(200):
        model(IMAGES)
    state = {name: value.clone() for name, value in model.eval().state_dict().items()}
    model(IMAGES)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    layers = [layer for layer in model.decoder.modules() if isinstance(layer, LAYERS)]
    assert layers
    for layer in layers:
        weight = layer.weight.detach()
        outputs = weight.transpose(0, 1) if isinstance(layer, torch.nn.ConvTranspose2d) else weight
        norm = float(torch.linalg.matrix_norm(outputs.flatten(1), ord=2))
        assert norm == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("emphasis", [0.0, 0.75, 1.0])
def test_what_is_hidden_is_learnt_from_most(likelihood: str, emphasis: float) -> None:
    """The gradient is that of the loss of each pixel times 1, or 1 − emphasis where it can be seen."""
    model = MaskedAutoencoder(emphasis, likelihood=likelihood, **SMALL)
    corrupted = Patches(size=3, fill=-1)(IMAGES, Randomness(0, rows=len(IMAGES)))
    output = torch.randn(IMAGES.shape, requires_grad=True)
    loss = model.reconstruction_loss(output, batch(IMAGES, corrupted))
    torch.testing.assert_close(loss, model.likelihood.nll(output, IMAGES))
    made, wanted = output.view(7, 36, 1), IMAGES.view(7, 36, 1)
    pixels = torch.stack([model.likelihood.nll(made[:, i], wanted[:, i]) for i in range(36)], 1)
    weights = torch.where(corrupted == -1, 1.0, 1 - emphasis).flatten(1)
    (found,) = torch.autograd.grad(loss.sum(), output)
    (known,) = torch.autograd.grad((weights * pixels).sum(), output)
    torch.testing.assert_close(found, known)


def test_the_error_of_what_is_hidden() -> None:
    model = MaskedAutoencoder(**SMALL)
    corrupted = IMAGES.clone()
    corrupted[:, :, :3] = -1
    reconstruction = IMAGES.clone()
    reconstruction[:, :, :2] += 0.3
    reconstruction[:, :, 5] += 9
    found = model.image_metrics(batch(IMAGES, corrupted), reconstruction)["hidden_mse"]
    torch.testing.assert_close(found, torch.full((7,), 0.09 * 2 / 3))
    assert model.image_metrics(batch(IMAGES), reconstruction)["hidden_mse"].tolist() == [0] * 7


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (SparseAutoencoder, {"sparsity": "l0"}, "sparsity=l0 must be kl or topk or l1"),
        (SparseAutoencoder, {"sparsity": "topk", "k": 6}, "k=6 must be ≥ 1 and ≤ 5"),
        (SparseAutoencoder, {"rate": 0}, "rate=0 must be > 0 and < 1"),
        (SparseAutoencoder, {"sparsity_weight": -1}, "sparsity_weight=-1 must be ≥ 0 and ≤ 1000000"),
        (ContractiveAutoencoder, {"jacobian": "rough"}, "jacobian=rough must be stochastic or exact"),
        (ContractiveAutoencoder, {"jacobian_weight": -1}, "jacobian_weight=-1 must be ≥ 0 and ≤ 1000000"),
        (RAE, {"regularizer": "l1"}, "regularizer=l1 must be l2 or gp or sn"),
        (RAE, {"code_weight": -1}, "code_weight=-1 must be ≥ 0 and ≤ 1000000"),
        (RAE, {"decoder_weight": -1}, "decoder_weight=-1 must be ≥ 0 and ≤ 1000000"),
        (MaskedAutoencoder, {"emphasis": 1.1}, "emphasis=1.1 must be ≥ 0 and ≤ 1"),
    ],
)
def test_arguments_are_checked(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        model(**SMALL, **arguments)


@pytest.mark.parametrize("code_dim", [3, 70])
def test_the_contraction_of_an_affine_encoder_is_that_of_its_matrix(code_dim: int, composed: Compose) -> None:
    """... exactly, or estimated for a larger code; and does not change with the code's scale."""
    cfg = composed("model=contractive", "network=linear", f"model.code_dim={code_dim}")
    data = training.build_data(cfg)
    model = training.build_model(cfg, data)
    weight, bias = model.encoder.parameters()
    rows = [contraction(Subject(model, data))["model"]]
    assert rows[0]["jacobian_norm"] == pytest.approx(
        float(weight.detach().norm()), rel=1e-4 if code_dim == 3 else 0.1
    )
    with torch.no_grad():
        for parameter in (weight, bias):
            parameter.mul_(10)
    rows.append(contraction(Subject(model, data))["model"])
    assert rows[1]["jacobian_norm"] == pytest.approx(10 * rows[0]["jacobian_norm"], rel=1e-4)
    assert rows[1]["per_deviation"] == pytest.approx(rows[0]["per_deviation"], rel=1e-4)
