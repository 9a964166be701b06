"""What the trainings of several runs differ in."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoencoders import runs, untrusted
from autoencoders.config import class_name, leaves, shareable
from autoencoders.errors import UserError, one_line
from autoencoders.export import folder as exported

# The keys that say nothing about what is learnt, or begin with one of these.
LEFT_OUT = (
    "logger", "checkpoint", "figures", "evaluat", "trust", "hydra",
    "data.root", "data.eval_batch_size", "data.cache",
    "callbacks.device_stats", "callbacks.film", "callbacks.lr_monitor", "callbacks.rich_progress_bar",
    "trainer.logger", "trainer.log_every", "trainer.enable_", "trainer.default_root_dir",
    "trainer.model_registry", "trainer.profiler", "trainer.barebones", "trainer.detect_anomaly",
    "trainer.limit_test", "trainer.limit_predict", "trainer.num_sanity_val_steps",
)  # fmt: skip
SEEDS = ("seed", "data.seed")
TRAINED = ("epochs", "steps")  # of a run's metrics.json


class Training(NamedTuple):
    """What a folder tells of a run's training."""

    settings: dict[str, Any]  # plain values by their keys; a class stands at the key of what it makes
    trained: dict[str, float]  # those of TRAINED that are known: nothing of a run that is not finished
    exported: bool  # if so, its settings lack the parts that exporting leaves out

    @property
    def unfinished(self) -> bool:
        return not self.trained and not self.exported

    def tells(self, key: str) -> bool:
        return not (self.exported and key.partition(".")[0] in exported.LEFT_OUT)


def read(folder: Path, config: DictConfig) -> Training:
    """The training of a run or of an exported folder, which anyone may have made.

    Args:
        config: the folder's own.
    """
    content: Any
    try:
        content = shareable(config)
    except OmegaConfBaseException:  # such as a logger's key in a variable that is not set here
        content = OmegaConf.to_container(config, resolve=False)
    settings = {
        one_line(key.removesuffix("._target_")): _shown(key, value)
        for key, value in leaves(content)
        if not key.startswith(LEFT_OUT) and value != {}
    }
    root = config.data.get("root")
    if root and config.data.get("_target_") in runs.OF_ONES_OWN:  # it is what tells such pictures apart
        settings["data.root"] = _shown("data.root", root)
    if exported.is_exported(folder):
        return Training(settings, {}, exported=True)
    # The config has none where the run is not trusted.
    settings["init"] = _shown("init", untrusted.read_mapping(folder / runs.CONFIG).get("init"))
    trained = dict[str, float]()
    with suppress(UserError, OSError):  # the run is not finished, or its file is damaged
        metrics = untrusted.read_metrics(folder / "metrics.json")
        trained = {name: metrics[name] for name in TRAINED if name in metrics}
    return Training(settings, trained, exported=False)


def _shown(key: str, value: Any) -> Any:
    if key.endswith("_target_") and str(value).startswith("autoencoders."):
        value = class_name({"_target_": value})
    return value if value is None or isinstance(value, int | float) else one_line(str(value))


def differing(trainings: Mapping[str, Training]) -> dict[str, dict[str, Any]]:
    """The settings in which runs differ: by key, the value of each run that has one."""
    rows = dict[str, dict[str, Any]]()
    for key in sorted({key for of in trainings.values() for key in of.settings}):
        values = {(key in of.settings, of.settings.get(key)) for of in trainings.values() if of.tells(key)}
        if len(values) > 1:
            rows[key] = {name: of.settings[key] for name, of in trainings.items() if key in of.settings}
    return {key: row for key, row in rows.items() if not _follows(key, rows)}


def _follows(key: str, rows: Mapping[str, Any]) -> bool:
    """Whether a key takes its values from another one, as `data.seed` does from `seed`."""
    parts = key.split(".")
    return any(rows.get(".".join(parts[start:])) == rows[key] for start in range(1, len(parts)))


def alike_but_for_seeds(trainings: Mapping[str, Training]) -> list[list[str]]:
    """The names of each set of runs that differ in nothing but their seed, as far as that is known."""
    groups = dict[Any, list[str]]()
    for name, of in trainings.items():
        if of.trained and not of.exported:
            others = frozenset((key, value) for key, value in of.settings.items() if key not in SEEDS)
            groups.setdefault(others, []).append(name)
    return [
        names
        for names in groups.values()
        if len({tuple(trainings[name].settings.get(key) for key in SEEDS) for name in names}) > 1
    ]


def only_the_seed(alike: Sequence[Sequence[str]], runs: int) -> list[str]:
    """A sentence on each of these sets, of so many runs in all."""
    return [
        f"{'These runs' if len(names) == runs else _listed(names)} differ only in their seed, so the "
        "difference between them is what another seed changes, not a better setting."
        for names in alike
    ]


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"
