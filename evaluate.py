"""Scores a run on the test split: python evaluate.py run=<run folder> [corruption=masking ...].

grid=true measures its error over kinds and levels of corruption. groups=features,clustering computes only
these scores, without figures or a report; groups=fine_tuning fine-tunes the encoder as a classifier, and
groups=clustering_of_all_images finds clusters as papers on clustering do. trust=true lets the run use classes
of your own. More: docs/evaluation.md.
"""

import sys
from pathlib import Path

from autoencoders import errors, runs, untrusted
from autoencoders.imports import importing

OWN_KEYS = ("run", "trust", "grid", "groups")  # besides the config's


def main(arguments: list[str]) -> None:
    if {"--help", "-h"} & set(arguments):
        print(__doc__.strip())
        return
    known = {*OWN_KEYS, *untrusted.top_level_keys()}
    for word in arguments:
        key, equals, _ = word.partition("=")
        if not equals and Path(word).is_dir():
            raise errors.UserError(f"{word} must be named as a run: run={word}")
        if equals and key.isidentifier() and key not in known:
            raise errors.UserError(f"no key {key}: {errors.habit(key) or errors.suggest(key, known)}")
    grids = [argument for argument in arguments if argument.startswith("grid=")]
    if not set(grids) <= {"grid=true", "grid=false"}:
        raise errors.UserError(f"{grids[-1]} must be true or false")
    groups = [argument for argument in arguments if argument.startswith("groups=")]
    words = [word for word in arguments if word not in (*grids, *groups)]
    run, cfg = runs.compose_evaluated(words)
    # These import torch and lightning: only for a run that is there.
    with importing():
        from autoencoders import hardware
        from autoencoders.evaluation import evaluate_run, score_run
        from autoencoders.evaluation.grid import evaluate_grid
    hardware.prepare()
    if grids[-1:] == ["grid=true"]:
        evaluate_grid(run, trust=cfg.trust)
    elif groups:
        score_run(run, cfg, groups[-1].removeprefix("groups=").split(","))
    else:
        evaluate_run(run, cfg, overrides=[word for word in words if not word.startswith("run=")])


if __name__ == "__main__":
    sys.path.append(str(Path.cwd()))  # for the user's own modules; at the end, so that it shadows nothing
    with errors.one_line_errors():
        main(sys.argv[1:])
