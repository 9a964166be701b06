"""`autoencoders.load` of a run without a code: images of any size, and no codes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command import NO_WANDB, train

import autoencoders
from autoencoders.errors import UserError
from autoencoders.trained import TrainedRun


@pytest.fixture(scope="module", params=["gray", pytest.param("colours", marks=pytest.mark.slow)])
def restored(
    request: pytest.FixtureRequest, data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainedRun:
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = "mnist" if request.param == "gray" else "cifar10"
    small = ["model=restoration", "network.widths=[4,8]", f"data={data}", "trainer.max_steps=1"]
    train(data_root, folder, *small, *NO_WANDB)
    return autoencoders.load(folder)


def test_images_of_any_size_are_restored(restored: TrainedRun) -> None:
    channels, *_ = restored.input_shape
    for size in ((28, 28), (9, 14), (40, 33)):
        batch = torch.rand(2, channels, *size)
        known = restored.reconstruct(batch)
        assert known.shape == batch.shape
        last = batch.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(restored.reconstruct(last), known)
        singles = [last[1], batch[1]] if channels == 3 else [last[1], last[1, ..., 0]]
        for single in singles:
            np.testing.assert_allclose(restored.reconstruct(single), known[1], atol=1e-6)
        if channels == 1:
            np.testing.assert_allclose(restored.reconstruct(batch[:, 0]), known)


def test_what_is_not_such_images_is_refused(restored: TrainedRun) -> None:
    for images, said in (
        (np.zeros((2, 2, 8, 8), np.float32), r"images of shape \(2, 2, 8, 8\) don't fit this model"),
        (np.zeros(8, np.float32), r"images of shape \(8,\) don't fit this model"),
        (np.zeros((2, *restored.input_shape[:1], 0, 8), np.float32), "don't fit this model"),
        (
            [np.zeros((8, 8, restored.input_shape[0])), np.zeros((8, 9, restored.input_shape[0]))],
            "all be of one",
        ),
    ):
        with pytest.raises(UserError, match=said):
            restored.reconstruct(images)


def test_there_is_no_code(restored: TrainedRun) -> None:
    for call in (restored.encode, restored.decode):
        with pytest.raises(UserError, match=r"^Restoration has no code: use reconstruct, which"):
            call(np.zeros((2, 8)))
    assert "code" not in repr(restored)
