"""What is read out of the folder of a run or of a sweep. Anyone may have made it: nothing in it is run or
followed to the outside, and what is not as it should be ends in one line that names the file.
"""

import csv
import json
import os
import re
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoencoders import upgrade
from autoencoders.config import CONF, leaves, missing_keys
from autoencoders.errors import UserError, one_line
from autoencoders.overrides import INTERPOLATION

FOLDERS = ("checkpoints", "figures", "evaluation", "evaluation/figures", "wandb", "tensorboard", "mlflow")
IDS = {"wandb-id.txt": r"[\w-]{1,64}", "mlflow-id.txt": r"[0-9a-f]{32}"}  # of a run of W&B, of MLflow
OF_WANDB = "wandb/*/logs/debug-core.log"  # a link that W&B makes to its own log, and never reads
# Keys of a logger that a stranger's file may set: the others say where to send, with the user's own account.
OF_LOGGERS = re.compile(
    r"logger\.\w+\.(_target_|project|group|mode|log_model|name|notes|job_type|experiment_name|run_name"
    r"|tags(\[\d+\]|\.[\w-]+)?)"
)
# Keys that say where to read, write or send to, which a stranger's file may not choose.
PLACE = re.compile(
    r"(^|[._])(root|dir|dirpath|path|file|filename|uri|url|host|init|registry|cache)(\[\d+\])*$",
    re.IGNORECASE,
)
# Places that are nevertheless no reason to refuse a run: see `runs.read_run` and `runs.check_init`.
NOT_FOLLOWED = ("data.root", "data.input_root", "data.cache", "init")
LARGEST = 2**17  # bytes of a YAML file: a run's have some thousands, and a million take a minute to parse
DEEPEST = 50  # levels of it, likewise
STARTS = (
    yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken,
)  # fmt: skip
ENDS = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
Place = tuple[str, ...]  # of a value in nested dicts and lists
EXPANDED = 2**20  # letters of a config with all that it refers to put in


def read_config(path: Path, trust: bool, trusting: str) -> DictConfig:
    """The config of a run, unresolved, in today's form.

    Args:
        trust: whether it may name other classes than the project's, and places.
        trusting: the command that would trust it, to be shown where that is needed.

    Raises:
        UserError: it's not a config, or it needs to be trusted.
    """
    content = upgrade.to_today(read_mapping(path))
    if missing := missing_keys(content):
        raise UserError(f"{path} is not the config of a run: it has no {', '.join(missing)}")
    return checked_config(path, content, trust, trusting)


def checked_config(path: Path, content: dict[str, Any], trust: bool, trusting: str) -> DictConfig:
    """What a file holds of a run's config, unresolved.

    Args:
        trust, trusting: as for `read_config`.

    Raises:
        UserError: it's not a config, or it needs to be trusted.
    """
    for key in ("defaults", "hydra"):  # from which Hydra would compose more
        if key in content:
            raise UserError(f"{path} is not the config of a run: it has a key {key}")
    try:
        config = OmegaConf.create(content)
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a config: {beginning(error)}") from None
    if not trust:
        for key, value in leaves(content):
            if reason := _needs_trust(key, value):
                said = beginning(f"{key}={value}")
                raise UserError(f"{path}: {said} {reason}; if you trust it: {trusting}")
        if (size := _expanded(content)) is None:
            raise UserError(f"{path} is not a config: a key refers to itself")
        if size > EXPANDED:
            raise UserError(f"{path} is too large: its keys refer to too many others")
    assert isinstance(config, DictConfig)
    return config


def _expanded(content: dict[str, Any]) -> int | None:
    """About how many letters a config has once ${another.key} is put in everywhere, as each may hold several
    that hold several; None if one holds itself."""
    sizes: dict[Place, int | None] = {}

    def size(place: Place, node: Any) -> int:
        if place not in sizes:
            sizes[place] = None
            total = len(str(node)) if isinstance(node, str) else 1
            total += sum(size((*place, name), child) for name, child in _children(node).items())
            total += sum(size(target, find(target)) for target in _references(node, place))
            sizes[place] = total
        if (known := sizes[place]) is None:
            raise RecursionError
        return known

    def find(place: Place) -> Any:
        node: Any = content
        for index, name in enumerate(place):
            if followed := _references(node, place[:index]):
                return find((*followed[0], *place[index:]))
            node = _children(node).get(name)
        return node

    try:
        return size((), content)
    except RecursionError:
        return None


def _children(node: Any) -> dict[str, Any]:
    if isinstance(node, dict):
        return {str(key): child for key, child in node.items()}
    return {str(index): child for index, child in enumerate(node)} if isinstance(node, list) else {}


def _references(node: Any, place: Place) -> list[Place]:
    """The keys that a text at `place` refers to, as ${another.key} or ${.sibling}."""
    found = re.findall(r"\$\{(\.*)([\w.\[\]]*)\}", node) if isinstance(node, str) else []
    return [(*place[: len(place) - len(up) if up else 0], *re.findall(r"\w+", key)) for up, key in found]


def needs_trust(path: Path) -> bool:
    """Whether the config of a run names other classes than the project's, or places."""
    try:
        content = upgrade.to_today(read_mapping(path))
    except UserError:  # which resuming it will explain
        return False
    return any(_needs_trust(key, value) for key, value in leaves(content))


def _needs_trust(key: str, value: Any) -> str | None:
    """Why a value is more than a choice of conf/ or a plain value."""
    if re.search(r"(^|[.\]])_\w+_($|[.\[])", key):  # what tells Hydra what to instantiate
        name = key.rpartition(".")[2]
        if name == "_partial_" and isinstance(value, bool):
            return None
        if name == "_target_" and _is_ours(key.partition(".")[0], value):
            return None if not key.startswith("logger.") or OF_LOGGERS.fullmatch(key) else "says where to log"
        return "is not a class of this project" if name == "_target_" else "is not a plain value"
    if not isinstance(value, str | int | float | None) and value not in ([], {}):  # a Path, bytes
        return "is not a plain value"
    if isinstance(value, str) and re.search(INTERPOLATION, value):
        return "is more than another key's value"
    if key.startswith("logger.") and value not in (None, [], {}) and not OF_LOGGERS.fullmatch(key):
        return "says where to log"
    if isinstance(value, str) and PLACE.search(key) and key not in NOT_FOLLOWED:
        return "leads out of the run's folder"
    return None


def _is_ours(group: str, target: Any) -> bool:
    return isinstance(target, str) and target in classes().get(group, ())


@cache
def classes() -> Mapping[str, frozenset[str]]:
    """What may be instantiated, by group: the classes and functions that conf/ names."""
    return {
        group.name: frozenset(
            name
            for path in group.glob("*.yaml")
            for name in re.findall(r"^\s*_target_: (\S+)$", path.read_text("utf-8"), re.MULTILINE)
        )
        for group in CONF.iterdir()
        if group.is_dir()
    }


@cache
def top_level_keys() -> frozenset[str]:
    """What an override in a file may begin with: the groups and the keys of conf/."""
    groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    keys = yaml.safe_load((CONF / "train.yaml").read_text("utf-8"))
    return frozenset(groups | set(keys) | {"sweeps"}) - {"defaults", "hydra", "trust"}


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file with plain values under names: OmegaConf honours no tag that makes objects."""
    text = _scanned(path)
    try:
        read = OmegaConf.create(text)
        content = OmegaConf.to_container(read, resolve=False) if isinstance(read, DictConfig) else None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError, AssertionError):
        raise UserError(f"{path} is not valid YAML") from None
    if not content or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path} must hold names and values")
    return content  # type: ignore[return-value]


def check_run(run: Path) -> None:
    """Raises UserError for a run folder that leads outside, or whose files are not what a run leaves."""
    check_links(run)
    for name in FOLDERS:
        if (run / name).exists() and not (run / name).is_dir():
            raise UserError(f"{run / name} must be a folder")
    for name, pattern in IDS.items():
        if (run / name).is_file() and not re.fullmatch(pattern, read_text(run / name)):
            raise UserError(f"{run / name} does not hold the id of a run")
    if (run / "metrics.json").is_file():
        read_metrics(run / "metrics.json")
    if (run / "metrics.csv").is_file():
        try:
            for row in csv.DictReader(read_text(run / "metrics.csv").splitlines()):
                int(row["step"])
        except (KeyError, TypeError, ValueError, csv.Error):
            raise UserError(f"{run / 'metrics.csv'} is not a table of metrics by step") from None
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
        raise UserError(f"{path} is not a text file") from None


def _scanned(path: Path) -> str:
    """The text of a YAML file that takes little time and memory to parse."""
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is too large: more than {LARGEST // 1024} KiB")
    text, depth = read_text(path), 0
    try:
        for token in yaml.scan(text):
            depth += isinstance(token, STARTS) - isinstance(token, ENDS)
            # Aliases of aliases would fill the memory.
            if isinstance(token, yaml.AliasToken) or depth > DEEPEST:
                raise UserError(f"{path} has aliases, or is nested too deeply")
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{path} is not valid YAML") from None
    return text


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        content = json.loads(read_text(path), parse_int=_integer)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not valid JSON") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold names and values")
    return content


def read_small_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that is to be made a config: as small as those are, and no deeper."""
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is too large: more than {LARGEST // 1024} KiB")
    content = read_json(path)
    level: list[Any] = [content]
    for _ in range(DEEPEST):
        level = [child for node in level for child in _children(node).values()]
    if level:
        raise UserError(f"{path} is nested too deeply")
    return content


def read_metrics(path: Path) -> dict[str, float]:
    """The numbers in a JSON file, by their names."""
    return numbers(path, read_json(path))


def read_scores(path: Path) -> dict[tuple[str, str, str], float]:
    """The numbers of an evaluation, by group, row and metric."""
    content = read_json(path)
    if not isinstance(content.get("reconstruction"), dict):
        raise UserError(f"{path} does not hold an evaluation")
    return {
        (one_line(group), one_line(row), one_line(metric)): value
        for group, rows in content.items()
        if isinstance(rows, dict)
        for row, metrics in rows.items()
        for metric, value in numbers(path, metrics).items()
    }


def read_intervals(path: Path) -> dict[tuple[str, str, str], tuple[float, float]]:
    """The intervals of an evaluation's numbers, (low, high), by group, row and metric."""
    found = dict[tuple[str, str, str], tuple[float, float]]()
    for group, rows in read_json(path).items():
        for row, metrics in rows.items() if isinstance(rows, dict) else ():
            for metric, ends in metrics.items() if isinstance(metrics, dict) else ():
                match ends:
                    case [int() | float() as low, int() | float() as high] if low <= high:
                        found[one_line(group), one_line(row), one_line(metric)] = low, high
                    case _:
                        raise UserError(f"{path}: {metric} must be two numbers, the smaller first")
    return found


def numbers(path: Path, metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, dict):
        raise UserError(f"{path} must hold numbers by name")
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{path}: {name} must be a number")
    return metrics


def read_array(path: Path) -> Any:
    """The numbers (N,) in a .npy file, as float32."""
    import numpy as np

    try:  # mapped, so that a header that promises more than there is takes no memory
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception:  # what is no array makes this raise all kinds
        raise UserError(f"{path} does not hold an array") from None
    if array.ndim != 1 or array.dtype != np.float32 or not len(array):
        raise UserError(f"{path} must hold an array (N,) of float32")
    return np.array(array)


def read_yaml(path: Path) -> Any:
    """A YAML file as lists, dicts and strings: no tag is honoured and no interpolation resolved."""
    text = _scanned(path)
    try:
        return yaml.load(text, yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{path} is not valid YAML") from None


def read_strings(path: Path, content: Any) -> list[str]:
    """`content`, which comes from the file at `path`, if it is a list of strings."""
    if not isinstance(content, list) or not all(isinstance(string, str) for string in content):
        raise UserError(f"{path} must hold a list of strings")
    return content


def read_checkpoint(path: Path, trust: bool = False) -> dict[str, Any]:
    """A checkpoint, on the CPU: tensors and plain values, of which none can run code, as they were saved.

    Args:
        trust: whether it may hold other objects, as the state of the user's own callbacks.
    """
    import torch  # takes a second, so not before there is something to read

    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the sums
            if damaged := archive.testzip():
                raise UserError(f"{path} is damaged, in {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=not trust)
    except UserError:
        raise
    except Exception as error:  # what is no checkpoint makes these raise all kinds
        raise UserError(f"{path} is damaged, or not a checkpoint: {_what_torch_says(error)}") from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path} is not a checkpoint of a model: it has no state_dict")
    return content


def _what_torch_says(error: Exception) -> str:
    """Without torch's own advice, which is to run what is in it."""
    if match := re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", str(error)):
        return f"it holds {match[1]}, which is neither a tensor nor a plain value"
    if "Weights only load failed" in str(error):
        return "it holds more than tensors and plain values"
    return beginning(error)


def load_weights(model: Any, path: Path) -> None:
    """Gives `model` the weights of a checkpoint, which must be its own: the same names and shapes."""
    put_checkpoint(model, read_checkpoint(path), path)


def put_checkpoint(model: Any, checkpoint: Mapping[str, Any], path: Path) -> None:
    """As `load_weights`, of a checkpoint that was read from `path`."""
    trained, now = (
        some.get("input_shape") for some in (checkpoint.get("hyper_parameters", {}), model.hparams)
    )
    if trained is not None and now is not None and list(trained) != list(now):
        raise UserError(
            f"{path} was trained on images of {tuple(trained)}, and these are {tuple(now)} (C, H, W)"
        )
    put_weights(model, checkpoint["state_dict"], path)


def put_weights(model: Any, weights: Mapping[str, Any], path: Path) -> None:
    """Gives `model` weights that come from `path`, which must be its own: the same names and shapes."""
    try:
        model.load_state_dict(weights, strict=True)
    except Exception as error:
        raise UserError(f"{path} does not hold this model's weights: {beginning(error)}") from None


def _integer(digits: str) -> float:
    return int(digits) if len(digits) < 19 else float(digits)


def beginning(error: object) -> str:
    """What an error says, or any other text, on one line and not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."
