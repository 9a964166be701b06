"""Scores a run on the test split: python evaluate.py run=<run folder> [corruption=masking ...].

With grid=true, its error over kinds and levels of corruption.
"""

import sys

from autoencoders import config, errors


def main(arguments: list[str]) -> None:
    grid = "grid=true" in arguments
    run, cfg = config.compose_run([argument for argument in arguments if not argument.startswith("grid=")])
    # These import torch and lightning: only for a run that is there.
    if grid:
        from autoencoders.evaluation.grid import evaluate_grid

        evaluate_grid(run)
    else:
        from autoencoders.evaluation import evaluate_run

        evaluate_run(run, cfg)


if __name__ == "__main__":
    with errors.one_line_errors():
        main(sys.argv[1:])
