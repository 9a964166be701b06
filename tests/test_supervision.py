"""Training without clean images: noise2noise, and noise2void."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Compose
from family import COLOURS, MODELS, smaller
from test_data import Squares, module, trainer, tree_spec
from torch import Tensor

from autoencoders import corruption as c
from autoencoders import training
from autoencoders.data import CIFAR10, MNIST, Batch, GrayCIFAR10, ImageDataModule, ImageFolder
from autoencoders.data.supervision import is_unbiased, with_blind_spots
from autoencoders.errors import UserError
from autoencoders.losses import with_slope
from autoencoders.models import BaseModel, Restoration
from autoencoders.networks import UNet
from autoencoders.randomness import Randomness

NOISE = c.Gaussian(0.0, 0.3, clip=False)
ZERO_MEAN = ("corruption=gaussian", "corruption.mean=0", "corruption.clip=false")


def trained_on(data: ImageDataModule) -> list[Batch]:
    return [data.pair(raw, training=True) for raw in data.train_dataloader()]


def joined(pairs: list[Batch], part: str) -> Tensor:
    return torch.cat([getattr(pair, part) for pair in pairs])


# ---- the pairs ---------------------------------------------------------------------------------------------


def test_noise2noise_pairs_two_independent_noisy_versions(data_root: Path) -> None:
    options: dict[str, Any] = {"flip": True, "shift": 2}
    plain = trained_on(module(CIFAR10, data_root, NOISE, **options))
    pairs = trained_on(module(CIFAR10, data_root, NOISE, supervision="noise2noise", **options))
    clean = joined(plain, "clean")
    assert torch.equal(joined(pairs, "corrupted"), joined(plain, "corrupted"))
    both = torch.stack([(joined(pairs, part) - clean).flatten() for part in ("corrupted", "clean")])
    assert both.std(1).tolist() == pytest.approx([0.3, 0.3], rel=0.01)
    assert both.mean(1).tolist() == pytest.approx([0, 0], abs=0.003)
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.01
    assert all(pair.weights == () for pair in pairs)


@pytest.mark.parametrize("supervision", ["noise2noise", "noise2void"])
def test_validation_and_test_keep_the_clean_image(supervision: str, data_root: Path) -> None:
    plain, data = (module(MNIST, data_root, NOISE, supervision=s) for s in ("clean", supervision))
    for split in ("val", "test"):
        for one, other in zip(
            *(
                (d.pair(raw, training=False) for raw in getattr(d, f"{split}_dataloader")())
                for d in (plain, data)
            ),
            strict=True,
        ):
            assert torch.equal(one.corrupted, other.corrupted)
            assert torch.equal(one.clean, other.clean)
            assert other.weights == ()


@pytest.mark.parametrize("options", [{}, {"corrupt_once": True}])
def test_noise2void_hides_a_fraction_of_the_noisy_image(options: dict[str, Any], data_root: Path) -> None:
    plain = trained_on(module(CIFAR10, data_root, NOISE, **options))
    pairs = trained_on(
        module(CIFAR10, data_root, NOISE, supervision="noise2void", blind_spots=0.1, **options)
    )
    noisy, hidden = joined(plain, "corrupted"), joined(pairs, "weights") > 0
    assert torch.equal(joined(pairs, "clean"), noisy)
    changed = joined(pairs, "corrupted") != noisy
    assert torch.equal(changed, hidden.expand_as(noisy))  # no noisy pixel is another one's equal
    assert float(hidden.float().mean()) == pytest.approx(0.1, rel=0.05)
    assert float(joined(pairs, "weights").mean()) == pytest.approx(1, rel=0.05)


def test_noise2void_takes_a_measured_image_for_its_target(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = {name: random.integers(0, 256, (12, 8, 8), dtype=np.uint8) for name in ("sharp", "noisy")}
    for name, array in images.items():
        np.save(tmp_path / f"{name}.npy", array)
    data = ImageFolder(
        tmp_path / "sharp.npy", input_root=tmp_path / "noisy.npy", size=None, cache=tmp_path / "cache",
        batch_size=8, supervision="noise2void",
    )  # fmt: skip
    data.prepare_data()
    data.setup()
    (pair,) = trained_on(data)
    known = {image.tobytes() for image in images["noisy"]}
    assert {(255 * image).round().byte().numpy().tobytes() for image in pair.clean} <= known


def images_of_numbers(count: int, height: int, width: int) -> Tensor:
    """(count, 2, height, width): each pixel tells its place, in both channels."""
    places = torch.arange(float(height * width)).view(1, 1, height, width)
    return torch.cat([places, places + 1000], 1).expand(count, -1, -1, -1)


@pytest.mark.parametrize(("height", "width"), [(9, 7), (3, 8), (2, 1)])
def test_a_blind_spot_has_any_other_pixel_of_its_window(height: int, width: int) -> None:
    numbers, count = images_of_numbers(4000, height, width), 4000
    blinded, weights = with_blind_spots(numbers, 0.5, Randomness(0, rows=count))
    assert torch.equal(blinded[:, 1] - blinded[:, 0], torch.full_like(blinded[:, 0], 1000))  # all channels
    assert set(weights.unique().tolist()) == {0, 2}
    assert torch.equal(blinded[:, :1] == numbers[:, :1], weights == 0)
    tall, wide = min(5, height), min(5, width)
    for y in range(height):
        for x in range(width):
            top, left = min(max(y - 2, 0), height - tall), min(max(x - 2, 0), width - wide)
            window = {width * row + col for row in range(top, top + tall) for col in range(left, left + wide)}
            taken, times = blinded[weights[:, 0, y, x] > 0, 0, y, x].unique(return_counts=True)
            assert set(taken.int().tolist()) == window - {y * width + x}
            mean = float(times.sum()) / len(times)
            assert (times - mean).abs().max() < 5 * mean**0.5  # all as often


@pytest.mark.parametrize("supervision", ["noise2noise", "noise2void"])
def test_the_same_targets_on_any_number_of_processes_and_at_each_resume(
    supervision: str, data_root: Path
) -> None:
    def at(step: int, rank: int = 0, world_size: int = 1) -> Batch:
        data = module(MNIST, data_root, NOISE, supervision=supervision, flip=True)
        data._place = lambda: {"rank": rank, "world_size": world_size}  # type: ignore[method-assign]
        return data.pair(list(data.train_dataloader())[step], training=True)

    alone, shares = at(2), [at(2, rank, 2) for rank in range(2)]
    for part in ("corrupted", "clean", *(["weights"] if supervision == "noise2void" else [])):
        together = torch.stack([getattr(share, part) for share in shares], 1).flatten(0, 1)
        assert torch.equal(together, getattr(alone, part))
        assert torch.equal(getattr(at(2), part), getattr(alone, part))
    data = module(MNIST, data_root, NOISE, supervision=supervision)
    raw = next(iter(data.train_dataloader()))
    one, other = (data.pair(raw._replace(step=step), training=True) for step in (0, 1))
    different = "clean" if supervision == "noise2noise" else "weights"
    assert not torch.equal(getattr(one, different), getattr(other, different))


# ---- what is learnt of them --------------------------------------------------------------------------------


def gradient(model: BaseModel, batch: Batch) -> Tensor:
    model, again = deepcopy(model), batch.noise  # a codebook learns from every batch
    terms = model.terms(batch._replace(noise=Randomness(*again.key, rows=again.rows))).losses
    model.total({name: term.mean() for name, term in terms.items()}).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


QUICK = ("autoencoder", "restoration", "iwae", "acai")  # each has its own way to the loss


@pytest.mark.parametrize(
    "name",
    [pytest.param(m, marks=[] if m in QUICK else [pytest.mark.slow]) for m in MODELS if m not in COLOURS],
)
def test_only_blind_spots_are_learnt_from(name: str, composed: Compose) -> None:
    """... by every model: what the target is elsewhere does not change the gradient."""
    # Of several samples, the likelihood of all pixels says what each weighs.
    more = ["model.samples=1"] if name == "iwae" else []
    cfg = composed(*smaller(name), *ZERO_MEAN, "data.supervision=noise2void", "data.blind_spots=0.1", *more)
    data = training.build_data(cfg)
    if name == "masked":
        with pytest.raises(UserError, match="model=masked takes for hidden what differs from the target"):
            training.build_model(cfg, data)
        return
    model = training.build_model(cfg, data)
    data.setup("fit")
    batch = data.pair(next(iter(data.train_dataloader())), training=True)
    weights = batch.weights
    assert isinstance(weights, Tensor)

    def changed(places: Tensor) -> Tensor:
        return gradient(model, batch._replace(clean=torch.where(places, 0.7, batch.clean)))

    if name == "acai":  # whose critic looks at the target too
        model.critic.requires_grad_(False)
    whole = gradient(model, batch)
    assert (changed(weights == 0) - whole).norm() <= 1e-4 * whole.norm()
    assert (changed(weights > 0) - whole).norm() > 1e-2 * whole.norm()


def test_the_slope_is_that_of_the_whole_loss_on_average() -> None:
    """... so that β, learning rates and clipping mean the same as with clean images."""
    output, target = torch.rand(2, 1, 1, 12, 12).double()
    output = output.expand(2000, -1, -1, -1).clone().requires_grad_()
    _, weights = with_blind_spots(target.expand_as(output), 0.1, Randomness(0, rows=2000))
    (with_slope(output, weights) - target).square().sum().backward()
    assert output.grad is not None
    known = 2 * (output[0].detach() - target[0])
    assert (output.grad.mean(0) - known).norm() < 0.1 * known.norm()


@tree_spec
def test_images_that_are_noisy_themselves_are_validated_at_blind_spots(data_root: Path) -> None:
    """... as each is its own target: elsewhere the best model is the one that changes nothing, as a U-Net
    does before its training."""
    data = module(MNIST, data_root, None, supervision="noise2void")
    model = Restoration(UNet(widths=(4,)))
    validating, errors = trainer(), []
    for _ in range(2):
        validating.validate(model, data, verbose=False)
        errors.append(float(validating.callback_metrics["val/mse"]))
    assert errors[0] == errors[1] > 1e-3
    shown = data.first(data.val, 30, torch.device("cpu"))
    assert torch.equal(shown.corrupted, shown.clean)  # in figures


def test_a_u_net_learns_to_denoise_from_one_noisy_image_each() -> None:
    """... of which no clean version is ever shown: most of the noise is gone."""

    class Ramps(Squares):
        def read(self, train: bool) -> tuple[Any, Any]:
            rng = np.random.default_rng(train)
            slope = rng.uniform(-1, 1, (90, 2, 1, 1))
            y, x = np.mgrid[-1:1:12j, -1:1:12j]
            clean = 0.5 + 0.2 * (slope[:, :1] * y + slope[:, 1:] * x)
            noisy = clean + 0.1 * rng.standard_normal(clean.shape)
            self.clean = clean
            return (255 * noisy.clip(0, 1)).round().astype(np.uint8), None

    torch.manual_seed(0)
    data = Ramps(batch_size=64, validation_size=10, supervision="noise2void", blind_spots=0.1)
    data.setup("fit")
    model = Restoration(UNet(widths=(8,)), input_shape=(1, 12, 12))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    loader = data.train_dataloader()
    for epoch in range(150):
        loader.set_epoch(epoch)
        for raw in loader:
            optimizer.zero_grad()
            model.terms(data.pair(raw, training=True)).losses["nll"].mean().backward()
            optimizer.step()
    noisy, clean = torch.from_numpy(data.read(False)[0]) / 255, torch.from_numpy(data.clean)
    with torch.no_grad():
        left = (model(noisy) - clean).square().mean()
    assert left < (noisy - clean).square().mean() / 3


# ---- what is refused or warned of --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MNIST, {"supervision": "noise2"}, "supervision=noise2 must be clean or noise2noise or noise2void"),
        (MNIST, {"blind_spots": 0}, "blind_spots=0 must be > 0 and ≤ 0.5"),
        (MNIST, {"supervision": "noise2noise"}, "corruption=none does not: choose a corruption"),
        (
            MNIST,
            {"supervision": "noise2noise", "corruption": NOISE, "corrupt_once": True},
            "leave out corrupt_once=True",
        ),
        (GrayCIFAR10, {"supervision": "noise2void"}, "so input=gray must be the target's"),
        (MNIST, {"supervision": "noise2void", "size": 1}, "needs images of more than one pixel"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: type[ImageDataModule], options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**options)


def test_what_a_model_cannot_learn_from_is_refused(composed: Compose, tmp_path: Path) -> None:
    hidden = ("corruption=masking", "corruption.fill=-1", "model.keep_known=true")
    for overrides, message in (
        (("model=denoising", *hidden), "model.keep_known=true needs clean images"),
        (("model=restoration", *hidden), "model.keep_known=true needs clean images"),
        (("model=masked",), "model=masked takes for hidden what differs"),
    ):
        cfg = composed(*overrides, "data.supervision=noise2noise")
        with pytest.raises(UserError, match=message):
            training.build_model(cfg, training.build_data(cfg))

    class OfNoPixels(BaseModel):
        pass

    with pytest.raises(ValueError, match="a loss of single pixels, which OfNoPixels does not have"):
        OfNoPixels().check_data(MNIST(supervision="noise2void"))
    np.save(tmp_path / "a.npy", np.zeros((9, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="root and input_root with supervision=clean"):
        ImageFolder(tmp_path / "a.npy", input_root=tmp_path / "a.npy", size=None, supervision="noise2noise")


@pytest.mark.parametrize("model", ["denoising", "restoration"])
def test_images_that_are_noisy_themselves_need_no_corruption(model: str, composed: Compose) -> None:
    cfg = composed(f"model={model}", "corruption=none", "data.supervision=noise2void")
    training.build_model(cfg, training.build_data(cfg))


def test_noise_whose_mean_is_not_zero_is_warned_of(data_root: Path) -> None:
    biased: list[c.Corruption] = [
        c.Gaussian(), c.Gaussian(0.0, 0.1, clip=True), c.Speckle(), c.SaltPepper(), c.Masking(), c.Patches(),
        c.Blur(), c.Grayscale(), c.Compose({"noise": NOISE, "blur": c.Blur()}),
    ]  # fmt: skip
    assert not any(is_unbiased(corruption) for corruption in biased)
    unbiased: list[c.Corruption] = [NOISE, c.Identity(), c.Compose({"a": NOISE}), lambda x, _: x]
    assert all(is_unbiased(corruption) for corruption in unbiased)
    with pytest.warns(UserWarning, match=r"under this SaltPepper is not the clean image.*noise2void"):
        module(MNIST, data_root, c.SaltPepper(), supervision="noise2noise").train_dataloader()
    module(MNIST, data_root, NOISE, supervision="noise2noise").train_dataloader()  # warnings are errors here
    module(MNIST, data_root, c.SaltPepper()).train_dataloader()
