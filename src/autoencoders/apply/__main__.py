"""python -m autoencoders.apply: see command.py and docs/apply.md."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from autoencoders import errors, processes, runs
from autoencoders.apply import command
from autoencoders.config import compose_conf
from autoencoders.export import folder as exported
from autoencoders.imports import importing


def main(words: list[str]) -> None:
    if {"--help", "-h"} & set(words):
        print(command.usage())
        return
    options = command.parse(words)
    run, cfg = runs.compose_evaluated(
        [f"run={options.run}", *options.overrides], program=command.PROGRAM, words=words, read=read_config
    )
    # The run's Trainer was for training. Pictures are worth float32.
    cfg.trainer = compose_conf(["trainer.precision=32-true", *options.trainer]).trainer
    with importing():  # torch and lightning: only for a run that is there
        from autoencoders.apply import tasks
    tasks.do(options, run, cfg)


def read_config(folder: Path, trust: bool, trusting: str) -> DictConfig:
    """That of a run or of an exported folder, which says nothing of how it was trained."""
    if not exported.is_exported(folder):
        return runs.read_evaluated(folder, trust, trusting)
    config = exported.read_config(folder, trust, trusting)
    config.trust, config.trainer = trust, {}
    return config


if __name__ == "__main__":
    processes.end_with_parent()
    sys.path.append(str(Path.cwd()))  # for the user's own modules; at the end, so that it shadows nothing
    with errors.one_line_errors():
        main(sys.argv[1:])
