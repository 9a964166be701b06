"""Trains an autoencoder: python train.py model=denoising data=mnist trainer.devices=2 (see README.md)."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from autoencoders import errors, jobs, processes, runs, sweeps, usage
from autoencoders.imports import importing


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float:
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # another launcher than ours brought a job here
        return jobs.run_alone(cfg)
    folder = Path(HydraConfig.get().runtime.output_dir)
    with errors.one_line_errors(), runs.removed_if_empty(folder):
        return run(cfg, folder, HydraConfig.get().overrides.task)


def run(cfg: DictConfig, folder: Path, overrides: Sequence[str]) -> float:
    """Trains into the folder and evaluates if that was asked for; returns the objective."""
    # These import torch and lightning, which takes seconds: only for a config that could be composed.
    with importing():
        from autoencoders.training import train
    objective = train(cfg, folder, list(overrides))
    if cfg.evaluate and errors.is_main_process() and not runs.is_evaluated(folder):
        with importing():
            from autoencoders.evaluation import evaluate_run
        evaluate_run(folder, cfg, trained_before=True)
    return objective


def go_on(arguments: list[str]) -> bool:
    """Does what `resume=<folder>` or `rerun=<folder>` asks for; False if none of them was said.

    They need no composing by Hydra: the folder holds the config that the run was trained with.
    """
    if (again := runs.Command.parse("rerun", arguments, "train.py")) is not None:
        folder, cfg = runs.compose_rerun(again)
        with runs.removed_if_empty(folder):
            train_in(folder, cfg, again, resumed=False)
        return True
    command = runs.Command.parse("resume", arguments, "train.py") or runs.Command.requeued(arguments)
    if command is None:
        return False
    if not sweeps.is_sweep(command.folder):
        train_in(command.folder, runs.compose_resumed(command), command, resumed=True)
    elif (search := sweeps.search_again(command, arguments)) is not None:
        sys.argv[1:] = search
        return False
    else:
        sweeps.resume(command)
    return True


def train_in(folder: Path, cfg: DictConfig, command: runs.Command, *, resumed: bool) -> None:
    if errors.is_main_process():
        runs.RunFolderLock.held = runs.lock(folder, resumed)
    run(cfg, folder, [*runs.read_overrides(command.folder), *command.overrides])


if __name__ == "__main__":
    processes.end_with_parent()
    sys.path.append(str(Path.cwd()))  # for the user's own modules; at the end, so that it shadows nothing
    warnings.filterwarnings("ignore", ".*Defaults list is missing `_self_`")  # which is then the last
    with errors.one_line_errors(), sweeps.removed_if_empty():
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(usage.text())
        elif not go_on(sys.argv[1:]):
            sys.argv[1:] = runs.expand(sys.argv[1:])
            main()
