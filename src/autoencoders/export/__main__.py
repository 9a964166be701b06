"""Exports a trained run for others: python -m autoencoders.export run=<run> out=<folder> [trust=true].

The folder gets the best model as safetensors and ONNX, and a model card. It must be new or empty, and appears
only once every file has been loaded in a fresh process and reproduces the run's outputs on the test images.
data.root=<folder> says where the data set is, if it is not where the run had it.
"""

import sys
from pathlib import Path

from autoencoders import errors, runs
from autoencoders.errors import UserError, suggest
from autoencoders.imports import importing

KEYS = ("run", "out", "trust", "data.root")


def main(arguments: list[str]) -> None:
    if {"--help", "-h"} & set(arguments):
        print((__doc__ or "").strip())
        return
    given: dict[str, str] = {}
    for argument in arguments:
        key, is_pair, value = argument.partition("=")
        if not is_pair or key not in KEYS:
            raise UserError(f"no key {key}: {suggest(key, KEYS)}")
        given[key] = value
    for key in ("run", "out"):
        if not given.get(key):
            raise UserError(f"{key}= is missing: python -m autoencoders.export run=<run> out=<folder>")
    trust = given.get("trust", "false").lower()
    if trust not in ("true", "false"):
        raise UserError(f"trust={trust} must be true or false")
    # These import torch and lightning: only for a run that is there.
    run, out = Path(given["run"]), Path(given["out"])
    if not run.is_dir():
        raise UserError(f"no run folder {run}")
    with importing():
        from autoencoders import hardware
        from autoencoders.export.export import export
    hardware.prepare()
    root = Path(given["data.root"]) if given.get("data.root") else None
    trusting = runs.to_paste("python", "-m", "autoencoders.export", *arguments, "trust=true")
    export(run, out, trust=trust == "true", trusting=trusting, root=root)


if __name__ == "__main__":
    with errors.one_line_errors():
        main(sys.argv[1:])
