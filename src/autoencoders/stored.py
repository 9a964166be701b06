"""What is read out of the folder of a run or of a sweep. Anyone may have made it: nothing in it is run or
followed to the outside, and what is not as it should be ends in one line that names the file.
"""

import csv
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import yaml

from autoencoders.errors import UserError

FOLDERS = ("checkpoints", "figures", "evaluation", "evaluation/figures", "wandb")
OF_WANDB = "wandb/*/logs/debug-core.log"  # a link that W&B makes to its own log, and never reads


def check_run(run: Path) -> None:
    """Raises UserError for a run folder that leads outside, or whose files are not what a run leaves."""
    check_links(run)
    for name in FOLDERS:
        if (run / name).exists() and not (run / name).is_dir():
            raise UserError(f"{run / name} must be a folder")
    if (run / "wandb-id.txt").is_file() and not re.fullmatch(r"[\w-]{1,64}", read_text(run / "wandb-id.txt")):
        raise UserError(f"{run / 'wandb-id.txt'} holds no id of a W&B run")
    if (run / "metrics.json").is_file():
        read_metrics(run / "metrics.json")
    if (run / "metrics.csv").is_file():
        try:
            for row in csv.DictReader(read_text(run / "metrics.csv").splitlines()):
                int(row["step"])
        except (KeyError, TypeError, ValueError, csv.Error):
            raise UserError(f"{run / 'metrics.csv'} is no table of metrics by step") from None
    if (path := run / "environment.json").is_file():
        content = read_json(path)
        kinds = {"command": list, "versions": dict, "git": dict, "started": str}
        wrong = [key for key, kind in kinds.items() if not isinstance(content.get(key, kind()), kind)]
        if wrong or not all(isinstance(word, str) for word in content.get("command", [])):
            raise UserError(f"{path} is not what a run writes of its environment")


def check_links(folder: Path) -> None:
    """Raises UserError for a link that leads out of `folder`, and for what is neither a file nor a folder."""
    inside = Path(os.path.realpath(folder))
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            real = Path(os.path.realpath(path))
            if not real.is_relative_to(inside) and not path.match(OF_WANDB):
                raise UserError(f"{path} leads out of {folder}, to {real}")
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise UserError(f"{path} is neither a file nor a folder")


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        content = json.loads(read_text(path), parse_int=_whole)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is no JSON") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold names and values")
    return content


def read_metrics(path: Path) -> dict[str, float]:
    """The numbers in a JSON file, by their names."""
    return _numbers(path, read_json(path))


def read_reconstruction(path: Path) -> dict[str, dict[str, float]]:
    """The rows of an evaluation's group "reconstruction": numbers by row and metric."""
    rows = read_json(path).get("reconstruction")
    if not isinstance(rows, dict):
        raise UserError(f"{path} holds no evaluation")
    return {name: _numbers(path, row) for name, row in rows.items()}


def _numbers(path: Path, metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, dict):
        raise UserError(f"{path} must hold numbers by name")
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{path}: {name} must be a number")
    return metrics


def read_yaml(path: Path) -> Any:
    """A YAML file as lists, dicts and strings: no tag is honoured and no interpolation resolved."""
    return as_strings(path, read_text(path))


def as_strings(path: Path, text: str) -> Any:
    """The content of a YAML file, likewise."""
    try:
        return yaml.load(text, yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{path} is no YAML") from None


def read_strings(path: Path, content: Any) -> list[str]:
    """`content`, which comes from the file at `path`, if it is a list of strings."""
    if not isinstance(content, list) or not all(isinstance(string, str) for string in content):
        raise UserError(f"{path} must hold a list of overrides")
    return content


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU: tensors and plain values, of which none can run code, as they were saved."""
    import torch  # takes a second, so not before there is something to read

    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the sums
            if damaged := archive.testzip():
                raise UserError(f"{path} is damaged, in {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # what is no checkpoint makes these raise all kinds
        raise UserError(f"{path} is damaged, or no checkpoint: {_beginning(error)}") from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path} is no checkpoint of a model: it holds no state_dict")
    return content


def load_weights(model: Any, path: Path) -> None:
    """Gives `model` the weights of a checkpoint, which must be its own: the same names and shapes."""
    state = read_checkpoint(path)["state_dict"]
    try:
        model.load_state_dict(state, strict=True)
    except Exception as error:
        raise UserError(f"{path} does not hold this model's weights: {_beginning(error)}") from None


def _whole(digits: str) -> float:
    return int(digits) if len(digits) < 19 else float(digits)


def _beginning(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."
