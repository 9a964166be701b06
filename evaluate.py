"""Scores a run on the test split: python evaluate.py run=<run folder> [corruption=masking ...]."""

import sys

from autoencoders import config, errors


def main(arguments: list[str]) -> None:
    run, cfg = config.compose_run(arguments)
    from autoencoders.evaluation import evaluate_run  # torch and lightning: only for a run that is there

    evaluate_run(run, cfg)


if __name__ == "__main__":
    with errors.one_line_errors():
        main(sys.argv[1:])
