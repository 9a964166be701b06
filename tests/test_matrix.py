"""Every model x data x corruption composes and takes a real step, or is refused in one line."""

import pytest
import torch
from conftest import Compose

from autoencoders import config, training
from autoencoders.errors import UserError


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (config.REPOSITORY / "conf" / group).glob("[!_]*.yaml"))


MODELS, DATA, CORRUPTIONS = options("model"), options("data"), options("corruption")
SIZES = ["model.code_dim=3", "figures.images=4"]


def refused(model: str, data: str, corruption: str) -> bool:
    nothing_to_denoise = model == "denoising" and corruption == "none"
    nothing_to_colour = model == "colorization" and data != "cifar10_gray"
    not_noisy = data == "noisy_mnist" and corruption == "none"
    return nothing_to_denoise or nothing_to_colour or not_noisy


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("model", MODELS)
def test_every_combination(model: str, data: str, composed: Compose) -> None:
    for corruption in CORRUPTIONS:
        cfg = composed(f"model={model}", f"data={data}", f"corruption={corruption}", *SIZES)
        if refused(model, data, corruption):
            with pytest.raises(UserError):
                config.check(cfg)
            continue
        config.check(cfg)
        module, autoencoder = training.build_data(cfg), training.build_model(cfg)
        module.setup("fit")
        batch = module.pair(next(iter(module.train_dataloader())), training=True)
        loss = torch.stack(list(autoencoder.loss_terms(batch).values())).sum(0).mean()
        loss.backward()
        gradients = [p.grad for p in autoencoder.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0


@pytest.mark.parametrize("network", ["linear", "mlp", "conv"])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_every_network_and_likelihood(network: str, likelihood: str, composed: Compose) -> None:
    cfg = composed("model=vae", f"network={network}", f"model.likelihood={likelihood}", *SIZES)
    model = training.build_model(cfg)
    images = torch.rand(2, 1, 28, 28)
    assert model(images).shape == images.shape


def test_a_denoiser_picks_gaussian_noise_and_the_command_line_wins(composed: Compose) -> None:
    assert composed("model=denoising").corruption._target_.endswith("Gaussian")
    assert composed("model=denoising", "corruption=masking").corruption._target_.endswith("Masking")
    assert composed("model=colorization").data._target_.endswith("GrayCIFAR10")
