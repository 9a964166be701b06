"""An exported folder: its config.json and model.safetensors, of which none can run code.

`autoencoders.load` reads them. They may be a stranger's, so they are checked as a run's files are.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from autoencoders import runs, untrusted
from autoencoders.config import shareable
from autoencoders.errors import UserError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT = 1  # of config.json
# What a run's config says about its training and its machine, and not about its model and its data.
LEFT_OUT = (
    "trainer", "callbacks", "logger", "checkpoint", "figures", "evaluation", "evaluate", "ema", "init",
    "trust", "hydra",
)  # fmt: skip


@contextmanager
def of_the_extra() -> Iterator[None]:
    """Says what to install where a library of the extra `export` is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ("safetensors", "onnx", "onnxruntime", "onnxscript"):
            raise UserError(
                f"this needs {error.name}, which is not installed: pip install 'autoencoders[export]'"
            ) from None
        raise


def is_exported(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and not (folder / runs.CONFIG).exists()


# ---- writing -----------------------------------------------------------------------------------------------


def write(
    folder: Path, model: Any, config: DictConfig, versions: Mapping[str, str], classes: Sequence[str]
) -> str:
    """Writes both files and returns the weights' SHA-256."""
    with of_the_extra():
        from safetensors.torch import save
    weights = {}
    for name, value in model.state_dict().items():
        if not hasattr(value, "detach"):
            raise UserError(f"{name} of the model's state is not a tensor: it can't be exported")
        weights[name] = value.detach().cpu().clone().contiguous()  # apart, where layers share it
    content = save(weights, {"format": "pt"})
    (folder / WEIGHTS).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    about = {
        "format": FORMAT,
        "input_shape": list(model.input_shape),
        "target_shape": list(model.target_shape),
        "code_dim": model.code_dim,
        "classes": list(classes),
        "config": portable(config, model),
        "sha256": {WEIGHTS: digest},
        "versions": dict(versions),
    }
    (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n")
    return digest


def portable(config: DictConfig, model: Any) -> dict[str, Any]:
    """What others need of a run's config, resolved and without secrets and the place of the data.

    A part that stands in another one, as the network in the model, stays a reference to it: a class is known
    to be this project's by the group that it stands in.
    """
    raw: Any = OmegaConf.to_container(config, resolve=False)
    kept = {name: value for name, value in shareable(config).items() if name not in LEFT_OUT}

    def referring(raw: Any, value: Any) -> Any:
        if isinstance(raw, str) and (group := re.fullmatch(r"\$\{(\w+)\}", raw)):
            return raw if isinstance(kept.get(group[1]), dict) else value
        if isinstance(raw, dict) and isinstance(value, dict):
            return {name: referring(raw[name], child) for name, child in value.items()}
        return value

    content: dict[str, Any] = referring(raw, kept)
    data = content["data"]
    if "channels" in data:  # which are found from the pictures, that others don't have
        (inputs, *_), (data["channels"], height, width) = model.input_shape, model.target_shape
        if data.get("size", 0) is None and height == width:
            data["size"] = height
        data["input"] = "gray" if inputs == 1 and data["channels"] == 3 else data["input"]
    if data.get("input_root") is not None:
        data["input_root"] = "measured"
    return {**content, "data": {**data, **{name: None for name in ("root", "cache") if name in data}}}


# ---- reading -----------------------------------------------------------------------------------------------


def read_config(folder: Path, trust: bool, trusting: str) -> DictConfig:
    """The config in an exported folder, unresolved.

    Args:
        trust: whether it may name other classes than the project's, and places.
        trusting: what would trust it, to be shown where that is needed.

    Raises:
        UserError: it isn't one, or needs to be trusted.
    """
    untrusted.check_links(folder)
    path = folder / CONFIG
    about = untrusted.read_small_json(path)
    if about.get("format") != FORMAT:
        raise UserError(f"{path} is not of an exported folder: format={about.get('format')} must be {FORMAT}")
    content = about.get("config")
    if not isinstance(content, dict) or not {"model", "data", "objective"} <= content.keys():
        raise UserError(f"{path} holds no config of a run")
    for name in ("model", "data"):
        if not isinstance(content[name], dict):
            raise UserError(f"{path} holds no config of a run: {name} must be names and values")
    return untrusted.checked_config(path, content, trust, trusting)


def weights_of(folder: Path) -> Path:
    """The file with an exported folder's weights."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder} is not an exported folder: it has no {WEIGHTS}")
    return path


def load_weights(model: Any, path: Path) -> None:
    """Gives `model` the weights of an exported folder, which must be its own and whole."""
    with of_the_extra():
        from safetensors import SafetensorError
        from safetensors.torch import load
    state = model.state_dict()
    if path.stat().st_size > sum(8 * value.numel() + 1000 for value in state.values()) + 2**20:
        raise UserError(f"{path} does not hold this model's weights: it is too large")
    content = path.read_bytes()
    known = untrusted.read_small_json(path.with_name(CONFIG)).get("sha256")
    if not isinstance(known, dict) or known.get(WEIGHTS) != hashlib.sha256(content).hexdigest():
        raise UserError(f"{path} is damaged: it is not the file whose SHA-256 is in {CONFIG}")
    try:
        weights = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} is not a safetensors file: {untrusted.beginning(error)}") from None
    untrusted.put_weights(model, weights, path)
