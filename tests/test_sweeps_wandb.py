"""The studies of sweeps/ as W&B sweeps: they search the same, by the same names."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from autoencoders.config import CONF, REPOSITORY

STUDIES = sorted(path.stem for path in (REPOSITORY / "sweeps").glob("*.yaml"))


def read(study: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "sweeps" / "wandb" / f"{study}.yaml").read_text())
    return content


def params(study: str) -> dict[str, str]:
    """What the study searches, in Hydra's grammar."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"sweeps={study}", "experiment=quick"], return_hydra_config=True)
    assert (cfg.hydra.mode.name, cfg.trainer.max_steps) == ("MULTIRUN", 300)
    return {str(key): str(value) for key, value in cfg.hydra.sweeper.params.items()}


def test_every_study_has_one() -> None:
    assert sorted(path.stem for path in (REPOSITORY / "sweeps" / "wandb").glob("*.yaml")) == STUDIES


@pytest.mark.parametrize("study", STUDIES)
def test_it_searches_what_the_study_does(study: str) -> None:
    searched, wandb = params(study), read(study)["parameters"]
    assert set(wandb) == set(searched)
    for key, parameter in wandb.items():
        if "values" in parameter:
            assert ",".join(map(str, parameter["values"])) == searched[key]
        else:
            match = re.fullmatch(r"tag\(log, interval\(([\d.e-]+), ([\d.e-]+)\)\)", searched[key])
            assert match is not None
            assert parameter["distribution"] == "log_uniform_values"
            assert [parameter["min"], parameter["max"]] == [float(limit) for limit in match.groups()]


@pytest.mark.parametrize("study", STUDIES)
def test_its_command_runs_one_job_of_the_study(study: str) -> None:
    sweep = read(study)
    assert (REPOSITORY / sweep["program"]).is_file()
    words = ["${env}", "python", "${program}", f"sweeps={study}", "hydra.mode=RUN", "${args_no_hyphens}"]
    assert sweep["command"] == words
    values = {key: p.get("values", [p.get("min")])[0] for key, p in sweep["parameters"].items()}
    fixed = [word for word in words if "=" in word]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        job = [f"{key}={value}" for key, value in values.items()]
        cfg = compose("train", [*fixed, *job], return_hydra_config=True)
    assert cfg.hydra.mode.name == "RUN"
    assert sweep["metric"] == {"name": cfg.objective, "goal": "minimize"}
    for key, value in values.items():
        if "." in key:  # a key, and not the choice of a group
            assert OmegaConf.select(cfg, key) == value


def test_only_a_search_over_a_range_is_no_grid() -> None:
    for study in STUDIES:
        ranges = any("min" in parameter for parameter in read(study)["parameters"].values())
        assert read(study)["method"] == ("bayes" if ranges else "grid")


def test_the_first_line_says_how_to_start_it() -> None:
    for study in STUDIES:
        path = Path("sweeps", "wandb", f"{study}.yaml")
        assert f"wandb sweep {path}" in (REPOSITORY / path).read_text().splitlines()[0]
