"""One's own encoder and decoder, plain nn.Modules as anyone has them, in every model."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from conftest import Compose
from torch import Tensor, nn
from torchvision.models import resnet18

from autoencoders import training
from autoencoders.data import Batch
from autoencoders.models import VAE, Autoencoder
from autoencoders.networks import Own
from autoencoders.randomness import Randomness

SHAPE = (1, 8, 8)


class Encoder(nn.Module):
    """Knows its images' shape and how many numbers to give."""

    def __init__(self, input_shape: tuple[int, ...], code_dim: int, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(input_shape), width), nn.ReLU(), nn.Linear(width, code_dim)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Decoder(nn.Module):
    """Gives logits."""

    def __init__(self, code_dim: int, target_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.target_shape = target_shape
        self.first = nn.Sequential(nn.Linear(code_dim, 16), nn.ReLU())
        self.last = nn.Linear(16, math.prod(target_shape))

    def forward(self, codes: Tensor) -> Tensor:
        return self.last(self.first(codes)).view(-1, *self.target_shape)


class SigmoidDecoder(Decoder):
    def __init__(self, code_dim: int, target_shape: tuple[int, ...]) -> None:
        super().__init__(code_dim, target_shape)
        self.squash = nn.Sigmoid()

    def forward(self, codes: Tensor) -> Tensor:
        return self.squash(super().forward(codes))


class FunctionalSigmoidDecoder(Decoder):
    """Ends in a sigmoid that is no module."""

    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(codes).sigmoid()


class ClampDecoder(Decoder):
    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(codes).clamp(0, 1)


class ReLUDecoder(Decoder):
    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(codes).relu()


class TanhDecoder(Decoder):
    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(codes).tanh()


class ZeroDecoder(Decoder):
    """Gives nothing but zeros before it is trained."""

    def __init__(self, code_dim: int, target_shape: tuple[int, ...]) -> None:
        super().__init__(code_dim, target_shape)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)


class GatedDecoder(Decoder):
    """Its last module is a sigmoid, but its output is none."""

    def __init__(self, code_dim: int, target_shape: tuple[int, ...]) -> None:
        super().__init__(code_dim, target_shape)
        self.gate = nn.Sigmoid()

    def forward(self, codes: Tensor) -> Tensor:
        images = super().forward(codes)
        return images * self.gate(images)


def own(decoder: Callable[..., nn.Module] = Decoder, **options: Any) -> Own:
    return Own(Encoder, decoder, **options)


def build(composed: Compose, decoder: str, *overrides: str) -> tuple[Any, Any]:
    """Data and model as the command line gives them."""
    targets = [
        f"network.{part}._target_=test_own_modules.{name}"
        for part, name in (("encoder", "Encoder"), ("decoder", decoder))
    ]
    cfg = composed("network=own", *targets, *overrides)
    data = training.build_data(cfg)
    torch.manual_seed(0)
    return data, training.build_model(cfg, data)


@pytest.mark.parametrize("decoder", ["Decoder", "SigmoidDecoder"])
@pytest.mark.parametrize("data", ["mnist", "cifar10_gray"])
@pytest.mark.parametrize("model", ["autoencoder", "denoising", "colorization", "vae"])
def test_own_modules_work_in_every_model(model: str, data: str, decoder: str, composed: Compose) -> None:
    if (model, data) == ("colorization", "mnist"):
        pytest.skip("has no colours")
    module, autoencoder = build(composed, decoder, f"model={model}", f"data={data}", "model.code_dim=3")
    autoencoder.check_data(module)
    module.setup("fit")
    batch = module.pair(next(iter(module.train_dataloader())), training=True)
    autoencoder.total(
        {name: term.mean() for name, term in autoencoder.terms(batch).losses.items()}
    ).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in autoencoder.parameters())
    reconstruction = autoencoder(batch.corrupted)
    assert reconstruction.shape == batch.clean.shape
    assert 0 <= reconstruction.min() < reconstruction.max() <= 1


def test_a_constructor_gets_the_shapes_that_it_asks_for() -> None:
    given = dict[str, Any]()

    class All(Encoder):
        def __init__(self, **shapes: Any) -> None:
            given.update(shapes)
            super().__init__(**shapes)

    class Only(Decoder):
        def __init__(self, target_shape: tuple[int, ...]) -> None:
            super().__init__(4, target_shape)

    model = VAE(network=Own(All, Only), input_shape=list(SHAPE), code_dim=4)
    assert given == {"input_shape": SHAPE, "code_dim": 8}  # means and log variances
    assert model(torch.rand(2, *SHAPE)).shape == (2, *SHAPE)


def test_partials_and_modules_that_are_there_already() -> None:
    encoder = Encoder(SHAPE, 4)
    model = Autoencoder(network=Own(encoder, Decoder), input_shape=SHAPE, code_dim=4)
    assert model.encoder is encoder
    model = Autoencoder(
        network=Own(partial(Encoder, width=5, input_shape=(1, 64)), Decoder), input_shape=SHAPE, code_dim=4
    )
    assert isinstance(model.encoder, Encoder)
    assert isinstance(first := model.encoder.layers[1], nn.Linear)
    assert (first.in_features, first.out_features) == (64, 5)


def test_a_key_of_one_s_own_reaches_the_constructor(composed: Compose) -> None:
    _, model = build(composed, "Decoder", "+network.encoder.width=7")
    assert model.encoder.layers[1].out_features == 7


def test_a_function_that_makes_a_module() -> None:
    """... and takes **kwargs, which are not its own."""
    network = Own(partial(resnet18, num_classes=6), Decoder)
    model = Autoencoder(network=network, input_shape=(3, 32, 32), code_dim=6)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)


def test_features_of_one_pixel_are_flattened() -> None:
    class Pooled(nn.Module):
        def __init__(self, code_dim: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.LazyConv2d(code_dim, 3), nn.AdaptiveAvgPool2d(1))

        def forward(self, images: Tensor) -> Tensor:
            return self.layers(images)

    model = Autoencoder(network=Own(Pooled, Decoder), input_shape=SHAPE, code_dim=4)
    assert model.encode(torch.rand(3, *SHAPE)).shape == (3, 4)


def test_trying_them_out_leaves_no_trace() -> None:
    normalised = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Dropout())
    normalised[2].eval()
    before = {name: value.clone() for name, value in normalised.state_dict().items()}
    network = Own(normalised, SigmoidDecoder(4, SHAPE))
    numbers = torch.get_rng_state()
    network.encoder(SHAPE, 4)
    network.decoder(4, SHAPE)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(value, before[name]) for name, value in normalised.state_dict().items())
    assert [layer.training for layer in normalised] == [True, True, False, True]


# ---- whether the decoder gives pixels ----------------------------------------------------------------------

DECODERS = [  # whether it is taken to give pixels, and what the warning says
    (Decoder, False, None),
    (SigmoidDecoder, True, None),
    (FunctionalSigmoidDecoder, True, r"network\.output=logits"),
    (ClampDecoder, True, r"network\.output=logits"),
    (ReLUDecoder, False, None),
    (TanhDecoder, False, "as a Tanh does"),
    (ZeroDecoder, False, None),
    (GatedDecoder, False, None),
]


def gives_pixels(network: Own) -> bool:
    return bool(network.decoder(4, SHAPE).gives_pixels)


@pytest.mark.parametrize(("decoder", "pixels", "warning"), DECODERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_decoder_s_output_is_recognised(
    decoder: Callable[..., nn.Module], pixels: bool, warning: str | None, seed: int
) -> None:
    torch.manual_seed(seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert gives_pixels(own(decoder)) == pixels
    if warning is None:
        assert caught == []
    else:
        with pytest.warns(match=warning):
            gives_pixels(own(decoder))
        assert f"network.decoder=test_own_modules.{decoder.__name__} gives" in str(caught[0].message)
        assert "\n" not in str(caught[0].message)


@pytest.mark.parametrize("decoder", [FunctionalSigmoidDecoder, TanhDecoder, SigmoidDecoder])
def test_what_is_said_is_not_doubted(decoder: Callable[..., nn.Module]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gives_pixels(own(decoder, output="pixels"))
        assert not gives_pixels(own(decoder, output="logits"))


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_pixels_are_not_squashed_again(likelihood: str) -> None:
    """A decoder that ends in a sigmoid and one without it are the same model, loss and slopes included."""
    images, models = torch.rand(6, *SHAPE).round(), []
    for decoder in (Decoder, SigmoidDecoder):
        torch.manual_seed(0)
        models.append(Autoencoder(network=own(decoder), input_shape=SHAPE, code_dim=4, likelihood=likelihood))
    logits, pixels = models
    assert torch.equal(pixels.decode(codes := torch.randn(6, 4)), pixels.decoder(codes))
    torch.testing.assert_close(pixels(images), logits(images))
    batch = Batch(images, images, torch.zeros(6), Randomness(0, rows=6))
    losses = [model.terms(batch).losses["nll"] for model in models]
    torch.testing.assert_close(losses[0], losses[1])
    slopes = [
        torch.autograd.grad(loss.mean(), list(model.parameters()))
        for loss, model in zip(losses, models, strict=True)
    ]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_are_learnt_as_well_as_logits(likelihood: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(32, *SHAPE, generator=generator) < 0.3).float()
    batch = Batch(images, images, torch.zeros(32), Randomness(0, rows=32))

    def trained(decoder: Callable[..., nn.Module]) -> tuple[float, float]:
        torch.manual_seed(0)
        model = Autoencoder(network=own(decoder), input_shape=SHAPE, code_dim=4, likelihood=likelihood)
        optimizer, losses = torch.optim.Adam(model.parameters(), 1e-2), []
        for _ in range(60):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = model.terms(batch).losses["nll"].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses[0], losses[-1]

    (start, logits), (same_start, pixels) = trained(Decoder), trained(SigmoidDecoder)
    assert same_start == pytest.approx(start, rel=1e-2)
    assert logits < start
    assert pixels == pytest.approx(logits, rel=1e-2)


def test_saturated_probabilities_have_a_finite_loss() -> None:
    model = Autoencoder(network=own(SigmoidDecoder), input_shape=SHAPE, code_dim=4, likelihood="bernoulli")
    black, white = torch.zeros(2, *SHAPE), torch.ones(2, *SHAPE)
    right = model.likelihood.nll(white, white)
    wrong = model.likelihood.nll(black, white)
    assert right.abs().max() < 1e-3
    assert wrong.isfinite().all()
    assert (wrong > 500).all()


# ---- what does not fit -------------------------------------------------------------------------------------


class Unflattened(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


class Needy(nn.Module):
    def __init__(self, latent: int, depth: int = 2) -> None:
        super().__init__()


def square(code_dim: int) -> nn.Module:
    return nn.Linear(code_dim, code_dim)


def number() -> int:
    return 3


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (Unflattened, Decoder, r"encoder=\S+\.Unflattened must give \(B, 4\), not \(B, 1, 8, 8\)"),
        (Pair, Decoder, r"encoder=\S+\.Pair must give one tensor, not a tuple"),
        (Needy, Decoder, r"encoder=\S+\.Needy needs its latent: \+network\.encoder\.latent="),
        (number, Decoder, r"encoder=\S+\.number must give an nn\.Module, not int"),
        (nn.Linear(3, 4), Decoder, r"encoder=\S+\.Linear must take \(B, 1, 8, 8\): mat1 and mat2 shapes"),
        (Encoder, square, r"decoder=\S+\.Linear must give \(B, 1, 8, 8\), not \(B, 4\)"),
        (Encoder, partial(Decoder, code_dim=9), r"decoder=\S+\.Decoder must take \(B, 4\): mat1 and mat2"),
        (partial(cast(Any, Encoder), widht=3), Decoder, "unexpected keyword argument 'widht'"),
    ],
)
def test_what_does_not_fit_is_named(encoder: Any, decoder: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^network[.:].*{message}") as caught:
        Autoencoder(network=Own(encoder, decoder), input_shape=SHAPE, code_dim=4)
    assert "\n" not in str(caught.value)


def test_another_output_than_pixels_or_logits() -> None:
    with pytest.raises(ValueError, match=r"^output=logit must be auto or pixels or logits$"):
        own(output="logit")
