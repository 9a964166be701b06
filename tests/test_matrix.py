"""Every model x data x corruption composes and takes a real step, or is refused in one line."""

from typing import Any

import pytest
import torch
from conftest import Compose
from family import COLOURS, MODELS, smaller
from hydra.errors import HydraException

from autoencoders import config, errors, training
from autoencoders.errors import UserError
from autoencoders.likelihoods import LIKELIHOODS


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (config.REPOSITORY / "conf" / group).glob("[!_]*.yaml"))


DATA = [name for name in options("data") if name not in ("images", "sample_photos", "stream")]  # own tests
CORRUPTIONS = [name for name in options("corruption") if name != "own"]
CODE = "model.code_dim=3"


def refused(model: str, data: str, corruption: str) -> bool:
    nothing_to_denoise = model == "denoising" and corruption == "none"
    nothing_to_restore = model == "restoration" and corruption == "none" and data != "cifar10_gray"
    nothing_to_fill_in = model == "masked" and corruption == "none"
    nothing_to_colour = model in COLOURS and (data != "cifar10_gray" or corruption != "none")
    return nothing_to_denoise or nothing_to_restore or nothing_to_fill_in or nothing_to_colour


def by_default(name: str, usual: bool) -> Any:
    """A case that is tried by `make test` if it is usual, and else by `make test-slow`."""
    return pytest.param(name, marks=[] if usual else [pytest.mark.slow])


USUAL = ("mnist", "cifar10_gray")  # one channel, and gray with colour; the others by `make test-slow`


@pytest.mark.parametrize("data", [by_default(name, name in USUAL) for name in DATA])
@pytest.mark.parametrize("model", MODELS)
def test_every_combination(model: str, data: str, composed: Compose) -> None:
    few = data in USUAL and model != "autoencoder"  # no model knows what corrupted an image
    some = ("none", "gaussian", "hidden_patches") if data == "mnist" else ("none",)
    for corruption in some if few else CORRUPTIONS:
        if (data, corruption) == ("noisy_mnist", "none"):
            continue  # refused by the data
        cfg = composed(*smaller(model), f"data={data}", f"corruption={corruption}")
        module = training.build_data(cfg)
        if refused(model, data, corruption):
            with pytest.raises(
                UserError, match=r"nothing to (denoise|restore|fill in)|can't colour|would keep"
            ):
                training.build_model(cfg, module)
            continue
        autoencoder = training.build_model(cfg, module)
        module.setup("fit")
        batch = module.pair(next(iter(module.train_dataloader())), training=True)
        loss = autoencoder.total(
            {name: term.mean() for name, term in autoencoder.terms(batch).losses.items()}
        )
        loss.backward()
        gradients = [p.grad for p in autoencoder.parameters() if p.requires_grad]
        assert all(g is not None and g.isfinite().all() for g in gradients)
        slope = sum(float(g.abs().sum()) for g in gradients if g is not None)
        perfect = model == "restoration" and torch.equal(batch.corrupted, batch.clean)  # gray, made gray
        assert slope == 0 if perfect else slope > 0


WITH_CODE = sorted({*options("network")} - {"own", "unet"})


@pytest.mark.parametrize("network", [by_default(name, name == "mlp") for name in WITH_CODE])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_network_and_likelihood(network: str, likelihood: str, composed: Compose) -> None:
    code = "model.code_dim=16" if network == "resnet" else CODE  # which has 4 x 4 places
    cfg = composed("model=vae", f"network={network}", f"model.likelihood={likelihood}", code)
    module = training.build_data(cfg)
    batch_shape = (2, *module.input_shape)
    assert training.build_model(cfg, module)(torch.rand(batch_shape)).shape == batch_shape


FAMILIAR = ("autoencoder", "linear", "restoration", "colorization_classes", "vq_vae")


OF_LAYERS = {"linear": ["linear"], "stacked": ["linear", "mlp"]}  # the networks that these models take


@pytest.mark.parametrize("network", sorted({*options("network")} - {"own"}))
@pytest.mark.parametrize("model", [by_default(name, name in FAMILIAR) for name in MODELS])
def test_networks_with_and_without_a_code(model: str, network: str, composed: Compose) -> None:
    """... go with models that have one or not; the wrong one is refused in one line that says what to do."""
    cfg = composed(f"model={model}", f"network={network}")
    without_code = model in ("restoration", "colorization_classes")
    if without_code == (network == "unet"):
        if network in OF_LAYERS.get(model, [network]):
            training.build_model(cfg, training.build_data(cfg))
        return
    with pytest.raises(HydraException) as caught:
        training.build_model(cfg, training.build_data(cfg))
    line = errors.explain(caught.value)
    said = {
        "restoration": "has a code, and Restoration has none: use network=unet",
        "colorization_classes": "no classes of patches, which ColorizationClasses needs: use network=unet",
        "linear": "must be Linear",
    }
    assert line
    assert said.get(model, "has no code, which") in line
    assert "\n" not in line


@pytest.mark.parametrize("experiment", options("experiment"))
@pytest.mark.parametrize("more", ["", "optimizer=sgd scheduler=cosine"])
def test_every_experiment_composes(experiment: str, more: str) -> None:
    cfg = config.compose_conf([f"experiment={experiment}", *more.split()])
    module = training.build_data(cfg)
    training.build_model(cfg, module).check_data(module)


def test_a_model_picks_other_parts_and_the_command_line_wins(composed: Compose) -> None:
    assert composed("model=denoising").corruption._target_.endswith("Gaussian")
    assert composed("model=denoising", "corruption=masking").corruption._target_.endswith("Masking")
    colorization = composed("model=colorization")
    assert colorization.data._target_.endswith("GrayCIFAR10")
    assert (colorization.network.hidden, colorization.optimizer.lr) == ([], 4e-3)
    other = composed("model=colorization", "data=mnist", "network=mlp", "optimizer.lr=1e-3")
    assert other.data._target_.endswith(".MNIST")
    assert other.network._target_.endswith("MLP")
    assert (other.model.code_dim, other.optimizer.lr) == (256, 1e-3)


def test_the_key_of_a_value_that_is_refused_is_known(composed: Compose) -> None:
    """... to the shell, which prints it."""
    for override, said, where in (
        ("network.patch=99", "patch=99 must be ≥ 1", "model.network"),
        ("network.patch=3", "network.patch=3 must divide", "model"),
        ("model.code_dim=0", "code_dim=0 must be ≥ 1", "model"),
        ("optimizer.lr=0", "optimizer.lr=0 must be > 0", "model"),
        ("scheduler.warmup=1", "scheduler.warmup=1 must be > 0 and < 1", "model"),
    ):
        cfg = composed(override)
        with pytest.raises(HydraException, match=said) as caught:
            training.build_model(cfg, training.build_data(cfg))
        assert str(caught.value).endswith(f"full_key: {where}")
