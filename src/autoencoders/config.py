"""The configuration: composed by Hydra from `conf/`, checked here before anything heavy is imported.

torch and lightning take seconds to import, so nothing in this file, nor in what it imports, may need them.
"""

import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from autoencoders.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]

OmegaConf.register_new_resolver("repository", lambda: str(REPOSITORY), replace=True)
OmegaConf.register_new_resolver(
    "channels", lambda colour: {"gray": 1, "color": 3}.get(colour, 0), replace=True
)

POSITIVE, NOT_NEGATIVE, FRACTION = (0, math.inf, "()"), (0, math.inf, "[)"), (0, 1, "[]")
AT_LEAST_1 = (1, math.inf, "[)")

# The range of every number: (lowest, highest, whether each end belongs to it). Keys are regular expressions.
RANGES: dict[str, tuple[float, float, str]] = {
    r"seed|data\.seed": (0, 2**32 - 1, "[]"),
    r"figures\.(every_n_epochs|images)": AT_LEAST_1,
    r"model\.code_dim": AT_LEAST_1,
    r"model\.(lr|likelihood_std)": POSITIVE,
    r"model\.(weight_decay|beta)": NOT_NEGATIVE,
    r"model\.(warmup|beta2)": (0, 1, "()"),
    r"network\.(patch|hidden\[\d+\]|channels\[\d+\])": AT_LEAST_1,
    r"data\.(batch_size|eval_batch_size|train_size|validation_size)": AT_LEAST_1,
    r"data\.shift": (0, 16, "[]"),
    r"corruption\.(.+\.)?std": NOT_NEGATIVE,
    r"corruption\.(.+\.)?fraction": FRACTION,
    r"corruption\.(.+\.)?size": AT_LEAST_1,
    r"corruption\.(.+\.)?sigma": POSITIVE,
    r"trainer\.(max_epochs|num_nodes|log_every_n_steps)": AT_LEAST_1,
    r"trainer\.devices": AT_LEAST_1,
    r"trainer\.gradient_clip_val": POSITIVE,
}

CHOICES: dict[str, tuple[str, ...]] = {
    r"model\.likelihood": ("gaussian", "bernoulli"),
    r"data\.(input|target)": ("gray", "color"),
    r"logger\.mode": ("auto", "online", "offline"),
    r"trainer\.accelerator": ("auto", "cpu", "gpu"),
}


def check(cfg: DictConfig) -> None:
    """Raises UserError for a value out of its range and for parts that do not fit together."""
    for key, value in _leaves(OmegaConf.to_container(cfg, resolve=True)):
        for pattern, (low, high, ends) in RANGES.items():
            if value is not None and re.fullmatch(pattern, key):
                _check_range(key, value, low, high, ends)
        for pattern, choices in CHOICES.items():
            if re.fullmatch(pattern, key) and value not in choices:
                raise UserError(f"{key}={value} must be {' or '.join(choices)}")
    _check_devices(cfg)
    _check_pairs(cfg)
    if not str(cfg.objective).startswith("val/"):
        raise UserError(f"objective={cfg.objective} must be a validation metric: val/mse, val/loss, ...")


@contextmanager
def checked(cfg: DictConfig) -> Iterator[Path]:
    """Checks a job's configuration and gives its run folder, which does not outlive a job that fails before
    it has put anything there."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        check(cfg)
        yield folder
    except BaseException:
        written = [path for path in folder.iterdir() if path.name != ".hydra"]
        if not written and is_main_process():
            shutil.rmtree(folder)
        raise


def is_main_process() -> bool:
    """False in the processes that Lightning starts for the other devices of a run."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def _check_range(key: str, value: Any, low: float, high: float, ends: str) -> None:
    if isinstance(value, str) and key == "trainer.devices":
        return  # "auto" and lists of indices are Lightning's to check
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key}={value} must be a number")
    above = value > low or (ends[0] == "[" and value == low)
    below = value < high or (ends[1] == "]" and value == high)
    if not (above and below):
        upper = "" if high == math.inf else f" and {'≤' if ends[1] == ']' else '<'} {high}"
        raise UserError(f"{key}={value} must be {'≥' if ends[0] == '[' else '>'} {low}{upper}")


def _check_devices(cfg: DictConfig) -> None:
    devices = cfg.trainer.devices
    if not isinstance(devices, int):
        return
    if cfg.trainer.accelerator == "cpu" and devices > (cores := os.cpu_count() or 1):
        raise UserError(f"trainer.devices={devices} is more than the {cores} CPU cores of this machine")
    processes = devices * cfg.trainer.num_nodes
    if cfg.data.batch_size % processes:
        raise UserError(
            f"data.batch_size={cfg.data.batch_size} must be divisible by the {processes} devices "
            "(trainer.devices x trainer.num_nodes) that it is split over"
        )


def _check_pairs(cfg: DictConfig) -> None:
    model = cfg.model._target_.rpartition(".")[2]
    unchanged = cfg.corruption._target_.endswith(".Identity")
    if model == "DenoisingAutoencoder" and unchanged:
        raise UserError(
            "model=denoising with corruption=none has nothing to denoise: choose a corruption, as "
            "corruption=gaussian, or model=autoencoder"
        )
    if model == "LinearAutoencoder" and cfg.network.name != "linear":
        raise UserError(f"model=linear is linear: network={cfg.network.name} is for model=autoencoder")
    if cfg.data.corrupt_once and unchanged:
        raise UserError(
            "data=noisy_mnist with corruption=none is not noisy: choose a corruption, or data=mnist"
        )
    for key in ("input", "target"):
        if cfg.data[f"{key}_shape"][0] != (3 if cfg.data[key] == "color" else 1):
            raise UserError(f"data.{key}={cfg.data[key]} is not what this data set has: its images are gray")
    if model == "ColorizationAutoencoder" and (cfg.data.input, cfg.data.target) != ("gray", "color"):
        raise UserError(
            f"model=colorization has nothing to colour in {cfg.data._target_.rpartition('.')[2]} "
            f"({cfg.data.input} in, {cfg.data.target} out): use data=cifar10_gray"
        )
    if (cfg.data.input, cfg.data.target) == ("color", "gray"):
        raise UserError("data.input=color with data.target=gray is not a pair of this project: swap them")


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts and lists, with its path: ("network.hidden[0]", 256)."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _leaves(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _leaves(child, f"{key}[{index}]")
    else:
        yield key, node


def plain(node: DictConfig | ListConfig) -> Any:
    """A config node as plain dicts and lists, everything resolved."""
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)


# ---- run folders -------------------------------------------------------------------------------------------


def saved_overrides(run: Path) -> list[str]:
    """The overrides that a run was started with.

    Raises:
        UserError: there is no such folder, or it is not a run's.
    """
    if not run.is_dir():
        raise UserError(f"no run folder {run}")
    saved = run / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise UserError(f"{run} is not a run folder: it has no {saved.relative_to(run)}")
    return [str(override) for override in OmegaConf.load(saved)]


def checkpoint(run: Path, name: str) -> Path:
    """The path of `run`'s checkpoint "best" or "last".

    Raises:
        UserError: the run saved none.
    """
    path = run / "checkpoints" / f"{name}.ckpt"
    if not path.is_file():
        raise UserError(
            f"{run} holds no checkpoint ({path.relative_to(run)}): it was not trained to an epoch's end"
        )
    return path


def expand_resume(arguments: Sequence[str]) -> list[str]:
    """`resume=<run folder>` becomes the run's own overrides and folder, then the other arguments."""
    runs = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    if not runs or runs[-1] in ("", "null"):
        return list(arguments)
    run = Path(runs[-1])
    overrides = saved_overrides(run)
    checkpoint(run, "last")
    rest = [argument for argument in arguments if not argument.startswith("resume=")]
    return [*overrides, *rest, f"hydra.run.dir={_quoted(run)}", f"resume={_quoted(run.resolve())}"]


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", r"\'") + "'"


def compose_run(arguments: Sequence[str]) -> tuple[Path, DictConfig]:
    """A run folder, `run=...` of the arguments, and its configuration with the other arguments over it."""
    runs = [argument.partition("=")[2] for argument in arguments if argument.startswith("run=")]
    if len(runs) != 1 or not runs[0]:
        raise UserError("name one run folder: python evaluate.py run=runs/denoising/2026-01-31_12-00-00")
    run = Path(runs[0])
    rest = [argument for argument in arguments if not argument.startswith("run=")]
    saved = [override for override in saved_overrides(run) if not override.startswith("resume=")]
    checkpoint(run, "best")
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=[*saved, *rest])
    check(cfg)
    return run, cfg
