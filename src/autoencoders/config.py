"""Configurations: composed by Hydra from `conf/`, or over the one that a run was trained with.

torch and lightning take seconds to import, so nothing in this file, nor in what it imports, may need them.
"""

import inspect
import pkgutil
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf

from autoencoders.errors import UserError, redacted
from autoencoders.overrides import INTERPOLATION, parse_override, quoted, spells_out_a_secret

REPOSITORY = Path(__file__).resolve().parents[2]
IS_CLONE = (REPOSITORY / "conf" / "train.yaml").is_file()  # else it is installed, and has conf/ in itself
CONF = REPOSITORY / "conf" if IS_CLONE else Path(__file__).resolve().parent / "conf"
# What each run's config has: a mapping each, and the other keys.
PARTS = ("trainer", "callbacks", "logger", "data", "model", "checkpoint", "figures", "evaluation")
KEYS = ("seed", "objective", "evaluate", "ema", "init")
SECRET = re.compile(r"key|token|secret|passw", re.IGNORECASE)  # the name of a key or a variable
SHORTEST = 4  # letters of a secret that is looked for within other values

OmegaConf.register_new_resolver("repository", lambda: str(REPOSITORY if IS_CLONE else "."), replace=True)


def need_clone(what: str) -> None:
    """Raises UserError where this package is installed without the rest of its repository."""
    if not IS_CLONE:
        raise UserError(
            f"{what} needs a clone of the repository, and this is only its package: in a clone, make train"
        )


def compose_conf(
    overrides: Sequence[str], folders: Sequence[Path] = (), primary: str = "train", conf: Path = CONF
) -> DictConfig:
    """conf/ and the user's config folders with overrides, without Hydra's own part."""
    search = [f"hydra.searchpath=[{','.join(quoted(f'file://{folder}') for folder in folders)}]"]
    with _apart_from_a_running_application(), initialize_config_dir(str(conf), version_base="1.3"):
        return compose(primary, overrides=[*(search if folders else []), *overrides])


def compose_over(config: DictConfig, overrides: Sequence[str], folders: Sequence[Path] = ()) -> DictConfig:
    """A run's config with overrides over it: files of conf/ that they choose take the place of what they
    are about, other keys are set.

    Args:
        config: of a run, unresolved.
        folders: the user's own config folders, where files may be chosen as well.
    """
    choices = [override for override in overrides if _chooses_a_file(override, folders)]
    content: Any = OmegaConf.to_container(config, resolve=False)
    if choices:
        before, after = (_unresolved(compose_conf(some, folders)) for some in ([], choices))
        content = _changed(content, before, after)
        for choice in choices:
            if (group := choice.partition("=")[0]) in after:
                content[group] = after[group]
    ConfigStore.instance().store("run", OmegaConf.create(content))
    # An argument of the Trainer may be new to the config; which there are is the Trainer's business.
    values = [
        f"++{override}" if override.startswith("trainer.") else override
        for override in overrides
        if override not in choices
    ]
    with _apart_from_a_running_application(), initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("run", overrides=values)


def _chooses_a_file(override: str, folders: Sequence[Path]) -> bool:
    chosen = parse_override(override)
    group = chosen.key_or_group
    is_group = any((folder / group).is_dir() for folder in (CONF, REPOSITORY, *folders))
    return is_group and not isinstance(chosen.value(), dict)


def _changed(content: Any, before: Any, after: Any) -> Any:
    """`content` with what is different between `before` and `after`."""
    if before == after:
        return content
    dicts = isinstance(content, dict) and isinstance(before, dict) and isinstance(after, dict)
    if not dicts or content.get("_target_") != after.get("_target_"):
        return after
    changed = {k: _changed(content.get(k), before.get(k), value) for k, value in after.items()}
    return {**content, **{k: v for k, v in changed.items() if k in content or before.get(k) != after[k]}}


@contextmanager
def _apart_from_a_running_application() -> Iterator[None]:
    hydra = GlobalHydra.instance()
    running, hydra.hydra = hydra.hydra, None
    try:
        yield
    finally:
        hydra.hydra = running


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


def class_name(node: Mapping[Any, Any] | DictConfig) -> str:
    """That of what a node is made into, without its module; nothing where it names none."""
    return str(node.get("_target_") or "").rpartition(".")[2]


def plain(node: DictConfig | ListConfig) -> Any:
    """A config node as plain dicts and lists, everything resolved."""
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)


def shareable(cfg: DictConfig) -> Any:
    """The config resolved, for files and loggers; secrets, such as ${oc.env:WANDB_API_KEY}, are "***"."""
    raw, resolved = _unresolved(cfg), plain(cfg)
    secrets = dict(_secrets(raw, resolved))

    def hide(raw: Any, value: Any, place: str) -> Any:
        if place in secrets or (_interpolated(raw) and str(value) in secrets.values()):
            return "***"
        if isinstance(value, dict):
            inner = raw if isinstance(raw, dict) else dict.fromkeys(value, raw)
            return {key: hide(inner[key], child, f"{place}.{key}") for key, child in value.items()}
        if isinstance(value, list):
            items = raw if isinstance(raw, list) else [raw] * len(value)
            return [hide(items[i], child, f"{place}.{i}") for i, child in enumerate(value)]
        for secret in secrets.values():
            if isinstance(value, str) and len(secret) >= SHORTEST:
                value = value.replace(secret, "***")
        return value

    return hide(raw, resolved, "")


def settled(cfg: DictConfig) -> Any:
    """The config as a run keeps it to be rebuilt from: a key that follows another key still does, and what
    came from elsewhere, such as ${now:%Y} or ${oc.env:HOME}, has its value of today, unless it is secret."""
    raw = _unresolved(cfg)
    secrets = dict(_secrets(raw, plain(cfg)))

    def settle(raw: Any, value: Any, place: str) -> Any:
        if _interpolated(raw):
            leaks = any(secret in str(value) for secret in secrets.values() if len(secret) >= SHORTEST)
            return raw if place in secrets or leaks or not re.search(INTERPOLATION, raw) else value
        if isinstance(raw, dict):
            return {key: settle(raw[key], value[key], f"{place}.{key}") for key in raw}
        if isinstance(raw, list):
            return [settle(r, v, f"{place}.{i}") for i, (r, v) in enumerate(zip(raw, value, strict=True))]
        return value

    return settle(raw, plain(cfg), "")


def missing_keys(content: Mapping[Any, Any]) -> list[str]:
    """What it takes to be the config of a run, and isn't there."""
    parts = [key for key in PARTS if not isinstance(content.get(key), Mapping)]
    return parts + [key for key in KEYS if key not in content]


def check(cfg: DictConfig) -> None:
    """Raises UserError for a composed config that isn't one of a run, or that spells out a secret."""
    if missing := missing_keys(_unresolved(cfg)):
        raise UserError(
            f"the config has no {', '.join(missing)}: one of your own starts from this project's with "
            "defaults: [train, _self_]"
        )
    check_secrets(cfg)


def check_secrets(cfg: DictConfig) -> None:
    """Raises UserError for a password or a key that a config file spells out: it would end up in the run's
    files."""
    for place, value in leaves(_unresolved(cfg)):
        name = re.sub(r"(\[\d+\])+$", "", place).rpartition(".")[2]
        if isinstance(value, str) and value and spells_out_a_secret(f"{name}={value}"):
            raise UserError(
                f"{place} holds a password or a key, which would end up in the run's files: "
                "write ${oc.env:NAME} and set the variable NAME"
            )


def _secrets(raw: Any, value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """The interpolated values that are keys or passwords, by their name or their look: (place, value)."""
    if _interpolated(raw) and value not in (None, "", {}, []):
        key = re.sub(r"(\.\d+)+$", "", place).rpartition(".")[2]
        names = [key, *re.findall(r"oc\.env:\s*['\"]?(\w+)", raw)]
        if any(map(SECRET.search, names)) or redacted(str(value)) != str(value):
            yield place, str(value)
    elif isinstance(raw, dict) and isinstance(value, dict):
        for key in raw:
            yield from _secrets(raw[key], value[key], f"{place}.{key}")
    elif isinstance(raw, list) and isinstance(value, list):
        for index, (r, v) in enumerate(zip(raw, value, strict=True)):
            yield from _secrets(r, v, f"{place}.{index}")


def _interpolated(raw: Any) -> bool:
    return isinstance(raw, str) and "${" in raw


def _unresolved(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=False)


def parameters_of(node: DictConfig) -> Collection[str]:
    """What the class of a node with a `_target_` may be told; nothing where it isn't found, which
    instantiating it explains."""
    try:
        return inspect.signature(pkgutil.resolve_name(str(node._target_))).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        return ()
