"""The configuration: composed by Hydra from `conf/`, checked here before anything heavy is imported.

torch and lightning take seconds to import, so nothing in this file, nor in what it imports, may need them.
"""

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from autoencoders.errors import UserError, is_main_process, near, redacted
from autoencoders.overrides import GROUPS, KEYS

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]

OmegaConf.register_new_resolver("repository", lambda: str(REPOSITORY), replace=True)
OmegaConf.register_new_resolver(
    "channels", lambda colour: {"gray": 1, "color": 3}.get(colour, 0), replace=True
)

POSITIVE, NOT_NEGATIVE, FRACTION = (0, math.inf, "()"), (0, math.inf, "[)"), (0, 1, "[]")
ABOVE_0_BELOW_1, AT_LEAST_1 = (0, 1, "()"), (1, 10**9, "[]")

# Every key of conf/ is declared here, by a regular expression, and no other one is taken.
# The range of every number: (lowest, highest, whether each end belongs to it).
INTEGERS: dict[str, tuple[float, float, str]] = {
    r"seed|data\.seed": (0, 2**32 - 1, "[]"),
    r"figures\.every_n_epochs": AT_LEAST_1,
    r"figures\.images": (1, 1000, "[]"),
    r"evaluation\.importance_(samples|images)": AT_LEAST_1,
    r"model\.code_dim": (1, 2**16, "[]"),
    r"(model\.)?network\.patch": (1, 32, "[]"),
    r"(model\.)?network\.(hidden|channels)\[\d+\]": (1, 2**16, "[]"),
    r"(data|model)\.(input|target)_shape\[0\]": (1, 3, "[]"),
    r"(data|model)\.(input|target)_shape\[[12]\]": (1, 4096, "[]"),
    r"data\.(batch_size|eval_batch_size|train_size|validation_size)": (1, 10**6, "[]"),
    r"data\.shift": (0, 16, "[]"),
    r"corruption\.(.+\.)?size": (1, 32, "[]"),
    r"trainer\.(max_epochs|num_nodes|log_every_n_steps|devices|accumulate_grad_batches)": AT_LEAST_1,
    r"trainer\.devices\[\d+\]": NOT_NEGATIVE,
    r"trainer\.(check_val_every_n_epoch|val_check_interval)": AT_LEAST_1,
    r"trainer\.max_steps": (-1, 10**12, "[]"),
}
NUMBERS: dict[str, tuple[float, float, str]] = {
    r"model\.lr|trainer\.gradient_clip_val": POSITIVE,
    r"model\.likelihood_std": (1e-3, 1e3, "[]"),
    r"model\.(weight_decay|beta)": (0, 1e6, "[]"),
    r"model\.(warmup|beta2)": ABOVE_0_BELOW_1,
    r"corruption\.(.+\.)?std": (0, 1e6, "[]"),
    r"corruption\.(.+\.)?fraction": FRACTION,
    r"corruption\.(.+\.)?sigma": (0, 100, "(]"),
    r"corruption\.(.+\.)?(mean|fill)": (-1e6, 1e6, "[]"),
    r"trainer\.limit_(train|val|test)_batches": POSITIVE,  # of all, or how many
    r"checkpoint\.every_n_minutes": NOT_NEGATIVE,
    r"ema": ABOVE_0_BELOW_1,
}
CHOICES: dict[str, tuple[object, ...]] = {
    r"trust|evaluate|data\.(flip|binarize|corrupt_once)|corruption\.(.+\.)?clip": (True, False),
    r"(model\.)?network\.(linear_path|norm)": (True, False),
    r"trainer\.(benchmark|deterministic|detect_anomaly|sync_batchnorm)": (True, False),
    r"objective": ("val/mse", "val/loss"),
    r"model\.likelihood": ("gaussian", "bernoulli"),
    r"data\.(input|target)": ("gray", "color"),
    r"logger\.name": ("wandb", "csv"),
    r"logger\.mode": ("auto", "online", "offline"),
    r"trainer\.accelerator": ("auto", "cpu", "gpu"),
    r"trainer\.precision": (
        "auto", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true",
        "16", "bf16", "32", "64", 16, 32, 64,
    ),
}  # fmt: skip
TEXTS: dict[str, int] = {  # and how long they may be
    r"resume|data\.root": 4000,
    r"(model\.)?network\.name|trainer\.strategy": 64,
    r"logger\.(project|group)": 128,
    r"logger\.tags\[\d+\]": 64,
}
NULLABLE = (
    r"resume|ema|logger\.group|data\.train_size|trainer\.(gradient_clip_val|check_val_every_n_epoch"
    r"|val_check_interval|limit_(train|val|test)_batches)"
)


def check(cfg: DictConfig) -> None:
    """Raises UserError for a value out of its range and for parts that do not fit together."""
    for name in map(str, cfg):
        if name not in KEYS | GROUPS:
            raise UserError(f"no key {name}: {near(name, KEYS | GROUPS)}")
    for name in sorted(KEYS | GROUPS):
        if name not in cfg:
            raise UserError(f"{name} can't be left out")
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    for key, value in leaves(content):
        if key.startswith(("callbacks", "logger")):
            continue
        _check_value(key, value, trust=content["trust"] is True)
    _check_devices(cfg)
    _check_pairs(cfg)


def _check_value(key: str, value: Any, *, trust: bool) -> None:
    if re.search(r"(^|[.\]])_\w+_($|[.\[])", key):  # what tells Hydra what to instantiate
        known = classes().get(key.partition(".")[0], ())
        if not key.endswith("._target_"):
            raise UserError(f"no key {key}")
        if not isinstance(value, str) or (value not in known and not trust):
            raise UserError(
                f"{key}={value} is no class of this project ({near(str(value), known)}); "
                "one of your own needs trust=true on the command line"
            )
    elif value is None:
        if not re.fullmatch(NULLABLE, key):
            raise UserError(f"{key}=null must have a value")
    elif (limits := _declared(INTEGERS, key)) is not None:
        _check_range(key, value, int, *limits)
    elif (limits := _declared(NUMBERS, key)) is not None:
        _check_range(key, value, (int, float), *limits)
    elif (choices := _declared(CHOICES, key)) is not None:
        if value not in choices:
            said = (str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices)
            raise UserError(f"{key}={value} must be {' or '.join(said)}")
    elif (longest := _declared(TEXTS, key)) is not None:
        _check_text(key, value, longest)
    elif any(_declared(table, f"{key}[0]") is not None for table in (INTEGERS, TEXTS)):
        if value != []:
            raise UserError(f"{key}={value} must be a list, as [1,2]")
    elif not trust:
        raise UserError(f"no key {key}")


def _declared(table: Mapping[str, T], key: str) -> T | None:
    return next((limits for pattern, limits in table.items() if re.fullmatch(pattern, key)), None)


def _check_text(key: str, value: Any, longest: int) -> None:
    if (
        not isinstance(value, str)
        or not value.isprintable()
        or not 1 <= len(value) <= longest
        or value == "???"
    ):
        raise UserError(f"{key}={value} must be a text of 1 to {longest} printable letters")
    if redacted(value) != value:
        raise UserError(f"{key} holds a password or a key, which would end up in the run's files")


@cache
def classes() -> dict[str, frozenset[str]]:
    """What may be instantiated, by group: the classes that conf/ names."""
    return {
        group: frozenset(
            name
            for path in (REPOSITORY / "conf" / group).glob("*.yaml")
            for name in re.findall(r"^_target_: (\S+)$", path.read_text(), re.MULTILINE)
        )
        for group in GROUPS
    }


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


def _check_range(key: str, value: Any, kind: Any, low: float, high: float, ends: str) -> None:
    if value == "auto" and key == "trainer.devices":
        return
    if isinstance(value, bool) or not isinstance(value, kind):
        kinds = "a whole number" if kind is int else "a number"
        raise UserError(f"{key}={value} must be {kinds} {_range(low, high, ends)}")
    above = value > low or (ends[0] == "[" and value == low)
    below = value < high or (ends[1] == "]" and value == high)
    if not (above and below):
        raise UserError(f"{key}={value} must be {_range(low, high, ends)}")


def _range(low: float, high: float, ends: str) -> str:
    upper = "" if high == math.inf else f" and {'≤' if ends[1] == ']' else '<'} {high}"
    return f"{'≥' if ends[0] == '[' else '>'} {low}{upper}"


def _check_devices(cfg: DictConfig) -> None:
    devices = cfg.trainer.devices
    if isinstance(devices, ListConfig):
        devices = len(devices)
    if not isinstance(devices, int):
        return  # "auto": Lightning's Trainer knows
    cores, accelerator, on_linux = os.cpu_count() or 1, cfg.trainer.accelerator, sys.platform == "linux"
    if accelerator == "auto" and devices > cores and on_linux:  # fewer may be right, as Lightning knows
        accelerator = "gpu" if gpus() else "cpu"
    if accelerator == "cpu" and devices > cores:
        raise UserError(f"trainer.devices={devices} is more than the {cores} CPU cores of this machine")
    if accelerator == "gpu" and devices > len(gpus()) and on_linux:
        raise UserError(f"trainer.devices={devices} is more than the {len(gpus())} GPUs of this machine")
    check_batch_size(cfg, devices * cfg.trainer.num_nodes)


def check_batch_size(cfg: DictConfig, processes: int) -> None:
    """Raises UserError for a global batch that can't be split evenly."""
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
    if model == "LinearAutoencoder" and (cfg.network.name, cfg.model.likelihood) != ("linear", "gaussian"):
        raise UserError(
            f"model=linear is linear and gaussian: network={cfg.network.name} with "
            f"model.likelihood={cfg.model.likelihood} is for model=autoencoder"
        )
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


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts and lists, with its path: ("network.hidden[0]", 256); also empty ones."""
    if isinstance(node, dict) and node:
        for name, child in node.items():
            yield from leaves(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and node:
        for index, child in enumerate(node):
            yield from leaves(child, f"{key}[{index}]")
    else:
        yield key, node


def plain(node: DictConfig | ListConfig) -> Any:
    """A config node as plain dicts and lists, everything resolved."""
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)


def composed(overrides: Sequence[str]) -> DictConfig:
    """conf/ with overrides, without Hydra's own part; also while a Hydra application runs."""
    hydra = GlobalHydra.instance()
    running, hydra.hydra = hydra.hydra, None
    try:
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            return compose("train", overrides=list(overrides))
    finally:
        hydra.hydra = running


def quoted(path: Path | str) -> str:
    """A path as Hydra's override grammar takes it whatever is in it."""
    return "'" + str(path).replace("\\", r"\\").replace("'", r"\'") + "'"


@cache
def gpus() -> list[str]:
    """The names of the GPUs that this process may use, found without importing torch."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in chosen.split(",") if name.strip()]
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    query = [program, "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    return done.stdout.split() if done.returncode == 0 else []


BY_HAND = ("bash", "interactive")  # jobs of SLURM in which one types


@cache
def started() -> str:
    """What a run's folder is called: the time, of the first process of all that a run has on its machines;
    where srun started it the job's number and the step's, which a requeued job keeps."""
    by_srun = int(os.environ.get("SLURM_NTASKS", "1")) > 1 or "SLURM_STEP_ID" in os.environ
    if "SLURM_JOB_ID" in os.environ and by_srun and os.environ.get("SLURM_JOB_NAME") not in BY_HAND:
        step = os.environ.get("SLURM_STEP_ID", "0")
        return f"slurm-{os.environ['SLURM_JOB_ID']}" + (f"-{step}" if step != "0" else "")
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        if is_main_process():
            store.set("autoencoders/started", now)
        return str(store.get("autoencoders/started").decode())
    return now


OmegaConf.register_new_resolver("started", started, replace=True)
