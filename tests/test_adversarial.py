"""Autoencoders that play against a critic: who learns what from which term."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autoencoders.data import Batch
from autoencoders.losses import reversed_gradient
from autoencoders.models import AAE, ACAI
from autoencoders.networks import MLP, ResNet
from autoencoders.randomness import Randomness

IMAGES = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
TINY = MLP(hidden=[8])


def batch() -> Batch:
    return Batch(IMAGES, IMAGES, torch.zeros(6, dtype=torch.long), Randomness(0, rows=6))


def slopes(model: Any, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of each parameter that has one."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def parts(gradients: dict[str, Tensor]) -> set[str]:
    """Of the model, in which a gradient is not 0."""
    return {name.partition(".")[0] for name, slope in gradients.items() if slope.any()}


def test_a_reversed_gradient_is_that_of_the_opponent() -> None:
    numbers = torch.randn(3, 2, requires_grad=True)
    reversed_ = reversed_gradient(numbers, 5.0)
    assert torch.equal(reversed_, numbers)
    slope = torch.randn(3, 2)
    torch.testing.assert_close(torch.autograd.grad(reversed_, numbers, slope)[0], -5 * slope)


def test_the_critic_of_an_aae_tells_codes_from_the_prior_and_the_encoder_hinders_it() -> None:
    torch.manual_seed(0)
    model = AAE(network=TINY, code_dim=3, adversarial_weight=4.0, critic_hidden=5)
    code = model.encode(IMAGES)
    logits = torch.cat([model.critic(code), model.critic(Randomness(0, rows=6).normal(6, 3))])[:, 0]
    target = torch.tensor([0.0] * 6 + [1.0] * 6)
    expected = F.binary_cross_entropy_with_logits(logits, target, reduction="none").view(2, 6).sum(0)
    terms = model.terms(batch()).losses
    torch.testing.assert_close(terms["critic"], expected)
    game, plain = slopes(model, terms["critic"].sum()), slopes(model, expected.sum())
    assert parts(game) == {"critic", "encoder"}
    for name in game:
        sign = 1 if name.startswith("critic.") else -4
        torch.testing.assert_close(game[name], sign * plain[name])


@pytest.mark.parametrize("network", [TINY, ResNet(widths=(4, 8, 8), depth=0, hidden=4)])
def test_the_critic_of_an_acai_guesses_the_mixture_and_the_autoencoder_hides_it(network: Any) -> None:
    torch.manual_seed(0)
    model = ACAI(network=network, code_dim=16)
    share = Randomness(0, rows=6).uniform(6) / 2
    code = model.encode(IMAGES)
    before = code[[5, 0, 1, 2, 3, 4]]
    mixed = torch.stack([(1 - a) * x + a * y for a, x, y in zip(share, code, before, strict=True)])

    def guess(images: Tensor) -> Tensor:
        return model.critic(images).flatten(1).mean(1)

    terms, of_mixed = model.terms(batch()).losses, guess(model.decode(mixed))
    of_real = guess(0.8 * model.decode(code) + 0.2 * IMAGES)
    torch.testing.assert_close(terms["critic"], (of_mixed - share) ** 2 + of_real**2)
    torch.testing.assert_close(terms["guess"], of_mixed**2)
    assert parts(slopes(model, terms["critic"].sum())) == {"critic"}
    assert parts(slopes(model, model.terms(batch()).losses["guess"].sum())) == {"encoder", "decoder"}


@pytest.mark.parametrize("model", [AAE, ACAI])
def test_a_critic_has_its_own_learning_rate(model: Any) -> None:
    others, critic = model(network=TINY, critic_lr=0.5).parameter_groups()
    assert critic["lr"] == 0.5
    assert "lr" not in others
    built = model(network=TINY)
    others, critic = built.parameter_groups()
    assert {id(p) for p in critic["params"]} == {id(p) for p in built.critic.parameters()}
    assert len(others["params"]) + len(critic["params"]) == len([*built.parameters()])


@pytest.mark.parametrize("model", [AAE, ACAI])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"adversarial_weight": -1}, "adversarial_weight=-1 must be ≥ 0"),
        ({"critic_lr": 0}, "critic_lr=0 must"),
    ],
)
def test_arguments_are_checked(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        model(network=TINY, **arguments)
