"""Run folders of each earlier version that had users, under versions/, are what they were."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command import column, run, weights
from conftest import Compose
from omegaconf import OmegaConf

import autoencoders
from autoencoders import config, evaluation, jobs, runs, sweeps, training, upgrade

VERSIONS = Path(__file__).parent / "versions"
FOLDERS = sorted(path.parents[1] for path in VERSIONS.glob("*/*/.hydra/config.yaml"))
folders = pytest.mark.parametrize(
    "folder", FOLDERS, ids=[f"{folder.parent.name}-{folder.name}" for folder in FOLDERS]
)


def command(word: str, folder: Path, data_root: Path, *more: str) -> runs.Command:
    parsed = runs.Command.parse(word, [f"{word}={folder}", f"data.root={data_root}", *more], "train.py")
    assert parsed is not None
    return parsed


def metrics(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if name != "seconds"}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_there_are_folders_of_version_0_1() -> None:
    assert {folder.name for folder in FOLDERS} >= {"vae", "denoising", "colorization"}


@folders
def test_an_older_run_is_loaded_and_scored(folder: Path, data_root: Path) -> None:
    """... as it is, without trust."""
    loaded = autoencoders.load(folder)
    codes = loaded.encode(torch.rand(3, *loaded.input_shape))
    assert loaded.decode(codes).isfinite().all()
    of_run, cfg = runs.compose_evaluated([f"run={folder}", f"data.root={data_root}"])
    # Over all images at once and in double precision, where training adds up its batches.
    assert evaluation.test_errors(of_run, cfg)[0] == pytest.approx(metrics(folder)["test/mse"], rel=1e-7)


@folders
def test_an_older_run_is_resumed(folder: Path, data_root: Path, tmp_path: Path) -> None:
    """... where it stopped: to exactly its metrics, if that was its end, and two epochs further. Then it's a
    run of today's."""
    copy, before = shutil.copytree(folder, tmp_path / "run"), metrics(folder)
    training.train(runs.compose_resumed(command("resume", copy, data_root)), copy)
    assert metrics(copy) == {name: pytest.approx(value, 1e-6, 1e-6) for name, value in before.items()}
    assert metrics(copy)["test/mse"] == before["test/mse"]
    assert yaml.safe_load((copy / runs.CONFIG).read_text())["optimizer"]["lr"] > 0
    further = f"trainer.max_epochs={before['epochs'] + 2}"
    training.train(runs.compose_resumed(command("resume", copy, data_root, further)), copy)
    trained = [row for row in rows(folder) if "test/mse" not in row]
    assert [row for row in rows(copy)[: len(trained)] if "test/mse" not in row] == trained
    assert len(column(copy, "val/mse")) == before["epochs"] + 2
    assert not any(torch.equal(weights(copy)[name], value) for name, value in weights(folder).items())
    autoencoders.load(copy)


@folders
def test_an_older_run_is_trained_again(
    folder: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """... to the same weights; only what is really different today is said to be."""
    _, cfg = runs.compose_rerun(command("rerun", folder, data_root))
    said = capsys.readouterr().out.replace("torch was", "")
    # Whose code told the lightness too.
    differ = "today's defaults and versions differ: figures.every_n_epochs is 5, today None"
    colorizer = ", model.keep_lightness is False, today True" if "colorization" in folder.name else ""
    assert f"{differ}{colorizer}\n" in said
    training.train(cfg, tmp_path / "again")
    assert metrics(tmp_path / "again")["test/mse"] == metrics(folder)["test/mse"]
    one, two = weights(folder), weights(tmp_path / "again")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@folders
@pytest.mark.slow
def test_an_older_run_is_evaluated(folder: Path, data_root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    run("evaluate.py", data_root, f"run={copy}", f"data.root={data_root}")
    score = json.loads((copy / "evaluation" / "metrics.json").read_text())["reconstruction"]["model"]["mse"]
    assert score == pytest.approx(metrics(folder)["test/mse"], rel=1e-6)
    assert (copy / "evaluation" / "report.html").stat().st_size > 10_000


def test_an_older_sweep_is_summarized_and_resumed(data_root: Path, tmp_path: Path) -> None:
    """... and a job that is not finished leaves what it had left then."""
    copy = shutil.copytree(VERSIONS / "0.1" / "sweep", tmp_path / "sweep")
    before = metrics(copy / "1")
    found = sweeps.summarize(copy)
    assert [(row.status, row.overrides["seed"], row.code_dim) for row in found] == [
        ("finished", "0", 2), ("finished", "1", 2),
    ]  # fmt: skip
    for left in ("metrics.json", "metrics.csv", "checkpoints/best.ckpt"):
        (copy / "1" / left).unlink()
    batch, _ = jobs.of_sweep(command("resume", copy, data_root))
    assert [job.finished for job in batch] == [True, False]
    training.train(runs.compose_resumed(command("resume", batch[1].folder, data_root)), batch[1].folder)
    assert metrics(copy / "1")["test/mse"] == before["test/mse"]


@pytest.mark.slow
def test_an_older_sweep_is_resumed_by_its_command(data_root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(VERSIONS / "0.1" / "sweep", tmp_path / "sweep")
    (copy / "1" / "metrics.json").unlink()
    done = run("train.py", data_root, f"resume={copy}", f"data.root={data_root}")
    assert "job 0" not in done.stdout
    assert "job 1" in done.stdout
    assert [row.status for row in sweeps.read_sweep(copy)] == ["finished", "finished"]


# ---- what later versions will need -------------------------------------------------------------------------


def test_an_older_config_has_today_s_keys(composed: Compose) -> None:
    """A key that is new needs a value in upgrade.py: what a run did before there was the key."""
    today: Any = OmegaConf.to_container(composed())
    for folder in [*FOLDERS, VERSIONS / "0.1" / "sweep" / "0"]:
        older = upgrade.to_today(yaml.safe_load((folder / runs.CONFIG).read_text()))
        assert today.keys() - older.keys() == set()
        for part in ("data", "checkpoint", "figures", "evaluation", "optimizer", "scheduler"):
            assert today[part].keys() - older[part].keys() == set(), part


def test_a_run_keeps_what_it_is_rebuilt_from(composed: Compose, tmp_path: Path) -> None:
    """Where this changes, upgrade.py has to learn it, and versions/ gets folders of the version before."""
    runs.write_config(tmp_path, composed(), ["seed=0"])
    kept = yaml.safe_load((tmp_path / runs.CONFIG).read_text())
    assert sorted(kept) == [
        "callbacks", "checkpoint", "corruption", "data", "ema", "evaluate", "evaluation", "figures", "init",
        "logger", "model", "network", "objective", "optimizer", "scheduler", "seed", "trainer", "trust",
    ]  # fmt: skip
    assert {*config.PARTS, *config.KEYS} <= kept.keys()
    assert upgrade.to_today(kept) == kept
    assert (kept["model"]["network"], kept["data"]["seed"]) == ("${network}", "${seed}")
    assert (tmp_path / ".hydra" / "config.yaml").is_file()


@folders
def test_an_older_run_takes_arguments_of_the_trainer(folder: Path, data_root: Path) -> None:
    """... also those that its config does not have."""
    for argument in ("trainer.fast_dev_run=true", "+trainer.fast_dev_run=true"):
        cfg = runs.compose_resumed(command("resume", folder, data_root, argument))
        assert cfg.trainer.fast_dev_run is True
