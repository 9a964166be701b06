"""Trains an autoencoder: python train.py model=denoising data=mnist trainer.devices=2 (see README.md)."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from autoencoders import config, errors, jobs, processes, runs, sweeps
from autoencoders.imports import importing


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float:
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # another launcher than ours brought a job here
        return jobs.run_alone(cfg)
    with errors.one_line_errors(), config.checked(cfg) as folder:
        # These import torch and lightning, which takes seconds: only for a config that is known to be good.
        with importing():
            from autoencoders.training import train
        objective = train(cfg, folder)
        if cfg.evaluate and errors.is_main_process():
            with importing():
                from autoencoders.evaluation import evaluate_run
            evaluate_run(folder, cfg)
        return objective


if __name__ == "__main__":
    processes.end_with_parent()
    with errors.one_line_errors(), sweeps.none_left_empty():
        sys.argv[1:] = runs.expand_resume(runs.expand_rerun(sys.argv[1:]))
        main()
