"""Trains an autoencoder: python train.py model=denoising data=mnist trainer.devices=2 (see README.md)."""

import sys

import hydra
from omegaconf import DictConfig

from autoencoders import config, errors


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float:
    with errors.one_line_errors(), config.checked(cfg) as folder, config.job_of_its_own(folder):
        # These import torch and lightning, which takes seconds: only for a config that is known to be good.
        from autoencoders.training import train

        objective = train(cfg, folder)
        if cfg.evaluate and config.is_main_process():
            from autoencoders.evaluation import evaluate_run

            evaluate_run(folder, cfg)
        return objective


if __name__ == "__main__":
    with errors.one_line_errors():
        sys.argv[1:] = config.expand_resume(sys.argv[1:])
        main()
