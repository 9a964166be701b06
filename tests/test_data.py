"""The pairs (x̃, x): who gets which image, and which noise."""

from pathlib import Path

import pytest
import torch
from conftest import Compose
from torch import Tensor

from autoencoders import training
from autoencoders.corruption import Corruption, Gaussian
from autoencoders.data import CIFAR10, MNIST, GrayCIFAR10, ImageDataModule, NoisyMNIST
from autoencoders.data.pairs import GlobalBatches
from autoencoders.errors import UserError

NOISE = Gaussian(0.5, 0.5, clip=True)


def module(
    kind: type[ImageDataModule], root: Path, corruption: Corruption | None = NOISE, **options: object
) -> ImageDataModule:
    arguments: dict[str, object] = {"batch_size": 16, "validation_size": 30, "eval_batch_size": 16, **options}
    data = kind(str(root), corruption=corruption, **arguments)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data


def all_pairs(data: ImageDataModule, split: str, *, training: bool = False) -> tuple[Tensor, Tensor]:
    batches = getattr(data, f"{split}_dataloader")()
    pairs = [data.pair(raw, training=training) for raw in batches]
    return torch.cat([pair.corrupted for pair in pairs]), torch.cat([pair.clean for pair in pairs])


def test_training_and_validation_images_part_the_official_split(data_root: Path) -> None:
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
    loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
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
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
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
    def batches(rank: int, world: int) -> GlobalBatches:
        sampler = GlobalBatches(50, 12, shuffle=shuffle, seed=3, rank=rank, world_size=world)
        sampler.set_epoch(4)
        return sampler

    alone = list(batches(0, 1))
    shared = [list(batches(rank, world_size)) for rank in range(world_size)]
    assert len(alone) == (4 if shuffle else 5)
    for k, (step, rows) in enumerate(alone):
        assert all(part[k][0] == step for part in shared)
        together = torch.cat([part[k][1] for part in shared])
        assert sorted(together.tolist()) == sorted(rows.tolist())


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
