"""The pairs (x̃, x): who gets which image, and which noise."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import lightning
import numpy as np
import pytest
import tiny
import torch
from conftest import Compose
from torch import Tensor

from autoencoders import corruption as corruptions
from autoencoders import training
from autoencoders.corruption import Corruption, Gaussian
from autoencoders.data import CIFAR10, MNIST, Batch, FashionMNIST, GrayCIFAR10, ImageDataModule, NoisyMNIST
from autoencoders.data.pairs import GlobalBatches, Images
from autoencoders.errors import UserError
from autoencoders.randomness import Randomness

NOISE = Gaussian()


def module(
    kind: type[ImageDataModule], root: Path, corruption: Corruption | None = NOISE, **options: Any
) -> ImageDataModule:
    arguments = {"batch_size": 16, "validation_size": 30, "eval_batch_size": 16, **options}
    data = kind(root, corruption=corruption, **arguments)
    data.prepare_data()
    data.setup()
    return data


def all_pairs(data: ImageDataModule, split: str, *, training: bool = False) -> tuple[Tensor, Tensor]:
    batches = getattr(data, f"{split}_dataloader")()
    pairs = [data.pair(raw, training=training) for raw in batches]
    return torch.cat([pair.corrupted for pair in pairs]), torch.cat([pair.clean for pair in pairs])


def test_training_and_validation_images_divide_the_official_split(data_root: Path) -> None:
    data = module(MNIST, data_root)
    parts = torch.cat([data.train.images, data.val.images])
    assert (len(data.train), len(data.val), len(data.test)) == (80, 30, 37)
    assert len(torch.unique(parts.flatten(1), dim=0)) == 110
    assert torch.equal(module(MNIST, data_root, seed=5).val.images, data.val.images)


def test_pixels_are_floats_in_the_unit_interval(data_root: Path) -> None:
    corrupted, clean = all_pairs(module(MNIST, data_root), "val")
    assert clean.dtype == torch.float32
    assert 0 <= clean.min() < 0.01 < 0.9 < clean.max() <= 1
    assert not torch.equal(corrupted, clean)


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_noise_depends_on_the_image_alone(split: str, data_root: Path) -> None:
    one = all_pairs(module(MNIST, data_root, eval_batch_size=16, seed=0), split)
    other = all_pairs(module(MNIST, data_root, eval_batch_size=7, seed=1, train_size=40), split)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_training_noise_is_fresh_at_every_step_and_epoch(data_root: Path) -> None:
    data = module(MNIST, data_root, Gaussian(0.0, 1.0, clip=False))
    loader = data.train_dataloader()

    def noise_of_each_step() -> list[Tensor]:
        pairs = [data.pair(raw, training=True) for raw in loader]
        return [pair.corrupted - pair.clean for pair in pairs]

    first, again = noise_of_each_step(), noise_of_each_step()
    loader.set_epoch(1)
    later = noise_of_each_step()
    for noise, same in zip(first, again, strict=True):
        assert torch.equal(noise, same)  # the same epoch of the same seed
    drawn = [*first, *later]
    for i, one in enumerate(drawn):
        assert all((one - other).abs().mean() > 0.5 for other in drawn[:i])


def test_noisy_mnist_has_one_noisy_version_of_each_training_image(data_root: Path) -> None:
    data = module(NoisyMNIST, data_root)
    noise_of: dict[bytes, Tensor] = {}
    loader = data.train_dataloader()
    for epoch in range(2):
        loader.set_epoch(epoch)
        for raw in loader:
            pair = data.pair(raw, training=True)
            for corrupted, clean in zip(pair.corrupted, pair.clean, strict=True):
                known = noise_of.setdefault(clean.numpy().tobytes(), corrupted)
                assert torch.equal(known, corrupted)
    assert len(noise_of) == 80
    versions = torch.stack(list(noise_of.values()))
    assert len(torch.unique(versions, dim=0)) == 80


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [2, 3])
def test_the_global_batch_is_the_same_set_for_any_number_of_devices(shuffle: bool, world_size: int) -> None:
    numbered = Images(torch.zeros(50, 1, 1, 1, dtype=torch.uint8), torch.arange(50))

    def batches(rank: int, world: int) -> GlobalBatches:
        loader = GlobalBatches(
            numbered, 12, shuffle=shuffle, drop_last=shuffle, seed=3, rank=rank, world_size=world
        )
        loader.set_epoch(4)
        return loader

    alone = list(batches(0, 1))
    shared = [list(batches(rank, world_size)) for rank in range(world_size)]
    assert len(alone) == len(batches(0, 1)) == (4 if shuffle else 5)
    for k, raw in enumerate(alone):
        assert raw.step == 4 * len(alone) + k
        assert all(part[k].step == raw.step for part in shared)
        together = torch.cat([part[k].labels for part in shared])
        assert sorted(together.tolist()) == sorted(raw.labels.tolist())


def test_gray_cifar10_pairs_gray_with_colour_or_with_gray(data_root: Path) -> None:
    corrupted, clean = all_pairs(module(GrayCIFAR10, data_root, None, input="gray", target="color"), "test")
    assert (corrupted.shape[1], clean.shape[1]) == (1, 3)
    luma = (clean * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(corrupted, luma, atol=1e-3, rtol=0)
    corrupted, clean = all_pairs(module(GrayCIFAR10, data_root, None, input="gray", target="gray"), "test")
    assert torch.equal(corrupted, clean)


def test_flips_mirror_half_of_the_training_images_and_no_other(data_root: Path) -> None:
    options = {"input": "color", "target": "color"}
    plain = module(CIFAR10, data_root, None, flip=False, **options)
    data = module(CIFAR10, data_root, None, flip=True, **options)
    before, after = all_pairs(plain, "train", training=True)[1], all_pairs(data, "train", training=True)[1]
    same = (before == after).flatten(1).all(1)
    assert 20 < int(same.sum()) < 60
    assert torch.equal(after[~same], before[~same].flip(-1))
    assert torch.equal(all_pairs(plain, "val")[1], all_pairs(data, "val")[1])


def test_shifts_move_an_image_whole_and_reflect_its_edge(data_root: Path) -> None:
    plain = module(MNIST, data_root, None)
    before = all_pairs(plain, "train", training=True)[1]
    after = all_pairs(module(MNIST, data_root, None, shift=2), "train", training=True)[1]
    padded = torch.nn.functional.pad(before, (2, 2, 2, 2), mode="reflect")
    windows = torch.stack([padded[..., y : y + 28, x : x + 28] for y in range(5) for x in range(5)])
    matches = (windows == after).flatten(2).all(2)
    assert matches.any(0).all()
    assert (matches.any(1)).sum() > 20  # of the 25 places, most are taken by one of 80 images


def test_a_fixed_corruption_is_augmented_with_its_image(data_root: Path) -> None:
    data = module(MNIST, data_root, Gaussian(0.3, 0.0, clip=False), corrupt_once=True, flip=True, shift=2)
    corrupted, clean = all_pairs(data, "train", training=True)
    torch.testing.assert_close(corrupted, clean + 0.3)


def test_more_training_images_than_there_are_is_an_error(data_root: Path) -> None:
    with pytest.raises(UserError, match=r"data\.train_size=81 .* at most the 80 images"):
        module(MNIST, data_root, train_size=81)


def test_binarized_images_are_black_or_white_with_the_pixel_as_their_chance(composed: Compose) -> None:
    data = training.build_data(composed("data.binarize=true"))
    data.setup(None)
    plain = training.build_data(composed())
    plain.setup(None)
    for images in (data.val.images, data.test.images):
        assert set(images.unique().tolist()) == {0, 255}
    error = data.test.images.float().mean() - plain.test.images.float().mean()
    assert abs(float(error)) < 2  # of 255
    first, again = (data.pair(next(iter(data.train_dataloader())), training=True).clean for _ in range(2))
    assert set(first.unique().tolist()) == {0, 1}
    assert torch.equal(first, again)  # the same step: the same bits
    batches = iter(data.train_dataloader())
    raw = next(batches)
    other = data.pair(raw._replace(step=raw.step + 1), training=True).clean
    assert not torch.equal(first, other)


def test_static_binarisation_draws_each_training_image_once(composed: Compose) -> None:
    gray = training.build_data(composed())
    dynamic, static, other_seed = (
        training.build_data(composed(f"data.binarize={kind}", f"seed={seed}"))
        for kind, seed in (("dynamic", 0), ("static", 0), ("static", 1))
    )
    for data in (gray, dynamic, static, other_seed):
        data.setup(None)
    for split in ("val", "test"):  # one test set, whatever the training
        assert torch.equal(getattr(static, split).images, getattr(dynamic, split).images)
    assert torch.equal(static.train.images, other_seed.train.images)
    assert torch.equal(dynamic.train.images, gray.train.images)
    white, chance = static.train.images.float() / 255, gray.train.images.float() / 255
    assert set(white.unique().tolist()) == {0, 1}
    assert not white[chance == 0].any()
    for some in (chance < 0.5, chance >= 0.5):
        assert float(white[some].mean()) == pytest.approx(float(chance[some].mean()), abs=0.02)
    raw = next(iter(static.train_dataloader()))
    first, later = (static.pair(raw._replace(step=step), training=True).clean for step in (0, 7))
    assert torch.equal(first, later)


def test_a_fixed_corruption_is_of_the_binarised_image(data_root: Path) -> None:
    data = module(MNIST, data_root, Gaussian(0.3, 0.0, clip=False), corrupt_once=True, binarize="static")
    corrupted, clean = all_pairs(data, "train", training=True)
    assert set(clean.unique().tolist()) == {0, 1}
    torch.testing.assert_close(corrupted, clean + 0.3)


def test_the_same_numbers_are_drawn_as_ever(data_root: Path) -> None:
    """... so that a run that is resumed with a later version ends in the same bits."""
    data = module(MNIST, data_root, seed=3)
    loader = data.train_dataloader()
    loader.set_epoch(1)
    raw = list(loader)[3]
    pair = data.pair(raw, training=True)
    assert (raw.step, raw.labels.tolist()) == (8, [9, 0, 0, 5, 5, 6, 7, 7, 6, 8, 0, 8, 9, 1, 7, 0])
    trained = [0.0, 0.103899, 0.0, 0.460455, 0.686667, 0.0]
    assert pair.corrupted[0, 0, 0, :6].tolist() == pytest.approx(trained, abs=1e-6)
    assert pair.noise.normal(3).tolist() == pytest.approx([-0.027096, -0.699544, 0.575738], abs=1e-6)
    assert data.val.labels[:8].tolist() == [6, 1, 5, 4, 0, 7, 4, 9]
    validated = data.first(data.val, 1, torch.device("cpu")).corrupted[0, 0, 0, :6]
    assert validated.tolist() == pytest.approx([1.0, 0.555203, 1.0, 0.0, 0.301815, 0.556902], abs=1e-6)


# ---- arguments ---------------------------------------------------------------------------------------------


def test_shapes_are_known_before_any_file_is_read() -> None:
    shapes = {
        kind: (data.input_shape, data.target_shape)
        for kind in (MNIST, NoisyMNIST, FashionMNIST, CIFAR10, GrayCIFAR10)
        for data in [kind("/nowhere")]
    }
    gray, colour = (1, 32, 32), (3, 32, 32)
    assert {shapes[kind] for kind in (MNIST, NoisyMNIST, FashionMNIST)} == {((1, 28, 28), (1, 28, 28))}
    assert (shapes[CIFAR10], shapes[GrayCIFAR10]) == ((colour, colour), (gray, colour))
    assert GrayCIFAR10(target="gray").target_shape == gray
    assert GrayCIFAR10(size=8).input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be ≥ 1"),
        ({"batch_size": "many"}, "batch_size=many must be a whole number"),
        ({"eval_batch_size": 10**7}, "eval_batch_size=10000000 must be ≥ 1 and ≤ 1000000"),
        ({"validation_size": True}, "validation_size=True must be a whole number"),
        ({"train_size": 0}, "train_size=0 must be ≥ 1"),
        ({"size": 4097}, "size=4097 must be ≥ 1 and ≤ 4096"),
        ({"shift": 17}, "shift=17 must be ≥ 0 and ≤ 16"),
        ({"augment_until": 2}, "augment_until=2 must be ≥ 0 and ≤ 1"),
        ({"shift": 8, "size": 8}, "shift=8 must be < 8"),
        ({"seed": -1}, "seed=-1 must be ≥ 0"),
        ({"flip": 2}, "flip=2 must be true or false"),
        ({"binarize": "once"}, "binarize=once must be false or true or dynamic or static"),
        ({"root": " "}, "root=  must be a folder"),
        ({"input": "red"}, "input=red must be gray or color"),
        ({"target": "color"}, "target=color is not what this data set has: its images are gray"),
        ({"corrupt_once": True}, "corrupt_once=True needs a corruption, such as corruption=gaussian"),
        ({"corruption": 3}, "corruption=3 must be a corruption"),
    ],
)
def test_an_argument_out_of_its_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MNIST(**options)


def test_colour_in_and_gray_out_is_refused() -> None:
    with pytest.raises(ValueError, match="input=color with target=gray"):
        CIFAR10(input="color", target="gray")


def test_noisy_images_without_noise_are_refused() -> None:
    assert NoisyMNIST().corruption == Gaussian()
    with pytest.raises(ValueError, match="corrupt_once=True needs a corruption"):
        NoisyMNIST(corruption=corruptions.Identity())


def test_hydra_names_the_key_of_a_wrong_value(composed: Compose) -> None:
    for override, key in (("data.batch_size=0", "data"), ("corruption.std=-1", "data.corruption")):
        with pytest.raises(Exception, match=f"full_key: {key}$") as error:
            training.build_data(composed("corruption=gaussian", override))
        assert f"{override.partition('.')[2]} must be ≥" in str(error.value)


def test_every_choice_of_conf_is_what_the_constructor_does_by_itself(composed: Compose) -> None:
    for name in ("mnist", "noisy_mnist", "fashion_mnist", "cifar10", "cifar10_gray"):
        data = training.build_data(composed(f"data={name}"))
        alone = type(data)(data.root, batch_size=16, eval_batch_size=16, validation_size=30)
        for key in (
            "input",
            "target",
            "corrupt_once",
            "corruption",
            "size",
            "shift",
            "augment_until",
            "binarize",
            "seed",
        ):
            assert getattr(data, key) == getattr(alone, key), key


# ---- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [14, 40])
def test_images_are_resized_without_aliases(size: int, data_root: Path) -> None:
    data, plain = (module(GrayCIFAR10, data_root, None, size=chosen) for chosen in (size, None))
    assert data.train.images.shape[1:] == (3, size, size)
    assert data.train.images.dtype == torch.uint8
    pair = data.first(data.test, 5, torch.device("cpu"))
    assert (pair.corrupted.shape[1:], pair.clean.shape[1:]) == (data.input_shape, data.target_shape)
    whole = torch.nn.functional.interpolate(
        plain.test.images.float(), (size, size), mode="bilinear", antialias=True
    )
    assert (data.test.images.float() - whole).abs().max() < 1.01
    assert torch.equal(data.val.labels, plain.val.labels)


# ---- a data set of one's own -------------------------------------------------------------------------------


class Squares(ImageDataModule):
    image_shape = (1, 12, 12)
    classes: ClassVar[tuple[str, ...]] = ("dark", "bright")

    def read(self, train: bool) -> tuple[Any, Any]:
        brightness = np.random.default_rng(train).integers(0, 256, 90 if train else 21, dtype=np.uint8)
        return np.full((1, 12, 12, len(brightness)), brightness).transpose(3, 0, 1, 2), brightness // 128


SMALL: dict[str, Any] = {"batch_size": 16, "validation_size": 20, "eval_batch_size": 8}


def test_a_data_set_of_ones_own() -> None:
    data = Squares(**SMALL, corruption=NOISE)
    assert data.input_shape == data.target_shape == (1, 12, 12)
    data.prepare_data()
    data.setup()
    assert (len(data.train), len(data.val), len(data.test)) == (70, 20, 21)
    clean = all_pairs(data, "train", training=True)[1]
    assert torch.equal(clean.amax((1, 2, 3)), clean.amin((1, 2, 3)))
    assert torch.equal(data.test.labels, (data.test.images[:, 0, 0, 0] > 127).long())
    assert Squares(**SMALL, size=6).input_shape == (1, 6, 6)


def test_without_labels_they_are_zeros() -> None:
    class Unlabelled(Squares):
        classes = ()

        def read(self, train: bool) -> tuple[Any, Any]:
            return torch.from_numpy(super().read(train)[0].copy()), None

    data = Unlabelled(**SMALL)
    data.setup()
    assert torch.equal(data.train.labels, torch.zeros(70, dtype=torch.long))


def test_colour_images_of_ones_own_are_paired_in_colour() -> None:
    class Colours(Squares):
        image_shape = (3, 12, 12)

        def read(self, train: bool) -> tuple[Any, Any]:
            images, labels = super().read(train)
            return images.repeat(3, 1), labels

    data = Colours(**SMALL)
    data.setup("fit")
    assert data.input_shape == data.target_shape == (3, 12, 12)
    assert Colours(**SMALL, input="gray").input_shape == (1, 12, 12)


IMAGES = np.zeros((40, 1, 12, 12), np.uint8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (IMAGES, "must return (images, labels), not ndarray"),
        (
            (IMAGES / 255, None),
            "gave images of float64 (40, 1, 12, 12), but they must be uint8 (N, 1, 12, 12)",
        ),
        ((IMAGES[:, 0], None), "gave images of uint8 (40, 12, 12), but they must be uint8 (N, 1, 12, 12)"),
        (
            (IMAGES[..., :6], None),
            "gave images of uint8 (40, 1, 12, 6), but they must be uint8 (N, 1, 12, 12)",
        ),
        ((IMAGES[:0], None), "gave no images"),
        ((["a", "b"], None), "the images must be an array, not list"),
        ((IMAGES, np.zeros(39, int)), "gave labels of int64 (39,), but they must be whole numbers (40,)"),
        ((IMAGES, np.full(40, 0.5)), "gave labels of float64 (40,), but they must be whole numbers (40,)"),
        ((IMAGES, np.full(40, 2)), "gave labels from 2 to 2, but it has 2 classes, from 0 on"),
    ],
)
def test_images_that_are_not_what_the_class_says_end_in_one_line(given: Any, message: str) -> None:
    class Wrong(Squares):
        def read(self, train: bool) -> Any:
            return given

    with pytest.raises(UserError, match=re.escape(message)) as error:
        Wrong(**SMALL).setup("fit")
    assert str(error.value).startswith("Wrong.read(train=True)")
    assert "\n" not in str(error.value)


def test_a_class_without_what_it_needs_is_refused_at_once() -> None:
    class NoRead(ImageDataModule):
        image_shape = (1, 4, 4)

    class NoShape(ImageDataModule):
        def read(self, train: bool) -> Any: ...

    class Odd(NoShape):
        image_shape = (4, 4, 1)

    for kind, message in (
        (NoRead, "NoRead needs a method read(self, train)"),
        (NoShape, "NoShape needs image_shape = (C, H, W)"),
        (Odd, "Odd.image_shape=(4, 4, 1) must be (1, H, W) or (3, H, W)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            kind()


def test_too_few_images_are_named() -> None:
    with pytest.raises(UserError, match=r"data\.validation_size=90 leaves none of the 90 training images"):
        Squares(validation_size=90).setup("fit")
    with pytest.raises(UserError, match=r"data\.batch_size=128 must be at most the 70 images to train on"):
        Squares(validation_size=20).setup("fit")


def test_a_function_is_a_corruption() -> None:
    def halved(clean: Tensor, randomness: Randomness) -> Tensor:
        return clean / 2

    data = Squares(**SMALL, corruption=halved)
    data.setup()
    for split in ("train", "val", "test"):
        corrupted, clean = all_pairs(data, split, training=split == "train")
        assert torch.equal(corrupted, clean / 2)


def test_a_corruption_that_changes_the_shape_is_named() -> None:
    def cropped(clean: Tensor, randomness: Randomness) -> Tensor:
        return clean[..., 1:]

    with pytest.raises(UserError, match=r"cropped made \(20, 1, 12, 11\) of images \(20, 1, 12, 12\)"):
        Squares(**SMALL, corruption=cropped).setup("fit")


# ---- with a plain Trainer ----------------------------------------------------------------------------------


class Probe(lightning.LightningModule):
    """A small autoencoder that keeps what it saw: (stage, epoch, sum of x, sum of x̃, a number of its own)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(144, 144)
        self.seen: list[tuple[str, int, float, float, float]] = []

    def error(self, stage: str, batch: Batch) -> Tensor:
        drawn = float(batch.noise.normal(len(batch.clean)).sum())
        sums = (float(batch.clean.double().sum()), float(batch.corrupted.double().sum()))
        self.seen.append((stage, self.current_epoch, *sums, drawn))
        error = (self.layer(batch.corrupted.flatten(1)) - batch.clean.flatten(1)).square().mean()
        self.log(f"{stage}/error", error, on_epoch=True, sync_dist=True)
        return error

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.error("train", batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.error("val", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)

    def of(self, stage: str) -> list[tuple[int, float, float, float]]:
        return [tuple(rest) for kind, *rest in self.seen if kind == stage]  # type: ignore[misc]


def trainer(**options: Any) -> lightning.Trainer:
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    return lightning.Trainer(accelerator="cpu", log_every_n_steps=1, **{**quiet, **options})


# lightning 2.6 on torch 2.14
tree_spec = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")


@tree_spec
@pytest.mark.parametrize("batches", [1, 2, 0.5])
def test_overfit_batches_sees_the_same_first_images_in_every_epoch(batches: float) -> None:
    data, model = Squares(**SMALL, flip=True, corruption=NOISE), Probe()
    trainer(max_epochs=3, overfit_batches=batches, num_sanity_val_steps=0).fit(model, data)
    count = int(4 * batches) if isinstance(batches, float) else batches
    first = [float(images.float().div(255).double().sum()) for images in data.train.images.split(16)][:count]
    train = model.of("train")
    assert len(train) == 3 * count
    for epoch in range(3):
        assert [clean for e, clean, *_ in train if e == epoch] == pytest.approx(first)
    assert len({corrupted for _, _, corrupted, _ in train}) == 3 * count  # the noise is new at every step
    validated = {(clean, corrupted) for _, clean, corrupted, _ in model.of("val")}
    assert len(validated) == (int(3 * batches) if isinstance(batches, float) else batches)


@tree_spec
@pytest.mark.parametrize("fast_dev_run", [True, 3])
def test_fast_dev_run(fast_dev_run: Any) -> None:
    data, model = Squares(**SMALL), Probe()
    trainer(fast_dev_run=fast_dev_run).fit(model, data)
    assert len(model.of("train")) == len(model.of("val")) == int(fast_dev_run)


@tree_spec
@pytest.mark.parametrize("accumulated", [1, 2])
def test_images_are_left_as_they_are_when_augmentation_has_ended(accumulated: int) -> None:
    class Grain(Squares):
        def read(self, train: bool) -> tuple[Any, Any]:
            images, labels = super().read(train)
            return np.random.default_rng(0).permuted(images // np.arange(1, 13, dtype=np.uint8)), labels

    seen = {}
    for until in (0.0, 0.5):
        data, model = Grain(**SMALL, shift=1, augment_until=until), Probe()
        trainer(max_epochs=2, accumulate_grad_batches=accumulated).fit(model, data)
        seen[until] = model.of("train")
    augmented, plain = seen[0.5], seen[0.0]
    half = len(plain) // 2
    assert augmented[half:] == plain[half:]
    assert all(one != other for one, other in zip(augmented[:half], plain[:half], strict=True))


@tree_spec
def test_epochs_of_a_trainer_are_those_of_a_loop_of_ones_own() -> None:
    data, model = Squares(**SMALL, corruption=NOISE, shift=1), Probe()
    trainer(max_epochs=3, reload_dataloaders_every_n_epochs=2).fit(model, data)
    alone = Squares(**SMALL, corruption=NOISE, shift=1)
    alone.setup("fit")
    expected = []
    loader = alone.train_dataloader()
    for epoch in range(3):
        loader.set_epoch(epoch)
        for raw in loader:
            pair = alone.pair(raw, training=True)
            sums = (float(pair.clean.double().sum()), float(pair.corrupted.double().sum()))
            expected.append((epoch, *sums, float(pair.noise.normal(16).sum())))
    assert model.of("train") == expected


@tree_spec
@pytest.mark.parametrize("interval", [None, 3])
def test_a_plain_trainer_resumes_within_an_epoch(interval: int | None, tmp_path: Path) -> None:
    """... wherever it was saved, with the batches and the noise that it would have had."""

    class SaveEveryStep(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    options: dict[str, Any] = {"max_epochs": 2, "num_sanity_val_steps": 0}
    if interval:
        options |= {"val_check_interval": interval, "check_val_every_n_epoch": None}
    whole = Probe()
    trainer(**options, callbacks=[SaveEveryStep()]).fit(whole, Squares(**SMALL, corruption=NOISE))
    assert len(whole.of("train")) == 8
    for step in range(1, 8):
        rest, path = Probe(), tmp_path / f"{step}.ckpt"
        trainer(**options).fit(rest, Squares(**SMALL, corruption=NOISE), ckpt_path=path)
        assert rest.of("train") == whole.of("train")[step:]
        assert torch.equal(rest.layer.weight, whole.layer.weight)


@tree_spec
def test_a_callback_that_loads_the_data_itself_gets_it_whole() -> None:
    counts = []

    class Counting(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: object) -> None:
            counts.append(len(list(trainer.datamodule.train_dataloader())))

        def on_train_epoch_end(self, trainer: Any, *_: object) -> None:
            counts.append(len(list(trainer.train_dataloader)))

    trainer(max_epochs=2, callbacks=[Counting()]).fit(Probe(), Squares(**SMALL))
    assert counts == [4] * 10


PLAIN_SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_data import NOISE, SMALL, Probe, Squares, trainer

devices = int(sys.argv[1])
options = {{"devices": devices, "strategy": "ddp" if devices == 2 else "auto", "max_epochs": 2}}
for batches in (0, 2):
    model, plain = Probe(), trainer(overfit_batches=batches, **options)
    plain.fit(model, Squares(**SMALL, corruption=NOISE))
    for kind in ("train", "val"):
        sums = torch.tensor([seen[1:] for seen in model.of(kind)], dtype=torch.double)
        sums = plain.strategy.reduce(sums, reduce_op="sum")
        if plain.is_global_zero: print("sums", *(f"{{value:.4f}}" for value in sums.flatten().tolist()))
    if plain.is_global_zero: print("weight", float(model.layer.weight.double().sum()), flush=True)
"""


@pytest.mark.slow
def test_a_plain_trainer_on_two_devices_sees_what_it_sees_on_one(tmp_path: Path) -> None:
    """... with no argument of its own: Lightning would divide the shares of a DataLoader once more."""
    script = tmp_path / "plain.py"
    script.write_text(PLAIN_SCRIPT.format(tests=str(Path(tiny.__file__).parent)))
    one: list[list[str]] = []
    two: list[list[str]] = []
    for devices, lines in (("1", one), ("2", two)):
        done = subprocess.run([sys.executable, script, devices], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        lines += [line.split() for line in done.stdout.splitlines() if line.startswith(("sums", "weight"))]
    assert len(one) == len(two) == 6
    for alone, shared in zip(one, two, strict=True):
        numbers = [[float(number) for number in line[1:]] for line in (alone, shared)]
        assert numbers[1] == pytest.approx(numbers[0], abs=2e-3)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    data = Squares(**SMALL | {"batch_size": 15})
    data.setup("fit")
    data._place = lambda: {"rank": 0, "world_size": 2}  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"data\.batch_size=15 must be divisible by the 2 processes"):
        data.train_dataloader()
