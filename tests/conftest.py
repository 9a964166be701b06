import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

Compose = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in a test whichever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of this repository that a test may change."""
    copy = tmp_path / "repository"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "conf", "sweeps", "tests"):
        shutil.copytree(tiny.REPOSITORY / name, copy / name, ignore=ignored)
    for name in ("train.py", "evaluate.py"):
        shutil.copy(tiny.REPOSITORY / name, copy)
    return copy


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny data sets, which stand for the real ones in the whole session."""
    root = tmp_path_factory.mktemp("data")
    tiny.install(root)
    return root


@pytest.fixture(scope="session")
def composed(data_root: Path) -> Compose:
    """Composes conf/ with overrides, for a run of seconds on the tiny data."""

    def compose_(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(tiny.REPOSITORY / "conf"), version_base="1.3"):
            return compose("train", [*tiny.SMALL, f"data.root={data_root}", "logger=csv", *overrides])

    return compose_
