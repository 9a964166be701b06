"""What an override may say: one of the command line, and one out of a file, which anyone may have written."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException

from autoencoders.errors import UserError, redacted

KEYS = {
    "seed", "objective", "evaluate", "evaluation", "resume", "trust", "checkpoint", "ema", "figures",
}  # fmt: skip
GROUPS = {"trainer", "callbacks", "logger", "corruption", "network", "data", "model"}
NAME = re.compile(r"[\w-]+").fullmatch  # of a file of conf/, and no path to another one
# Find any interpolation but that of a key, and for Hydra's own keys, as hydra.sweep.subdir, of the job.
INTERPOLATION, INTERPOLATION_OF_HYDRA = (
    r"\$\{(?![\w.\[\]]+\})", r"\$\{(?!([\w.\[\]]+|hydra:job\.\w+)\})",
)  # fmt: skip
DERIVED = r"(data|model)\.(input|target)_shape.*|model\.network.*"  # keys that follow from other ones
OPTIONAL = r"(corruption\.steps\.\w+|experiment|sweeps|hydra[./].*)(@.*)?"  # what ~ may take away
# What an override in a sweep's multirun.yaml may say to Hydra.
OF_A_SWEEP = (
    r"hydra/(launcher|sweeper)|hydra\.(mode|sweep\.(dir|subdir)|callbacks\.(summary\.(metric|reference)"
    r"|levels\.(key|values))|sweeper\.(trials|at_a_time|startup|seed|max_batch_size|params\..+)"
    r"|launcher\.(side_by_side|timeout_min|partition|qos|account|constraint|nodes|tasks_per_node|cpus_per_task"
    r"|gpus_per_node|mem_gb|array_parallelism))"
)


def parsed(override: str) -> Override:
    """An override of the command line, if it is one.

    Raises:
        UserError: it is none, or would take away or change what there must be.
    """
    if redacted(override) != override:
        raise UserError(f"{override} holds a password or a key, which would end up in the run's files")
    try:
        result = OverridesParser.create().parse_override(override)
    except HydraException:
        raise
    except Exception as error:  # the parser's own: a number too long, lists too deep
        raise UserError(f"{override[:80]} can't be read: {error}") from None
    key = result.get_key_element().lstrip("+~")
    if not key.startswith("hydra") and any(re.search(INTERPOLATION, text) for text in _texts(result._value)):
        raise UserError(f"{override} asks for more than a key's value: let the shell fill it in")
    if re.fullmatch(DERIVED, key):
        raise UserError(f"{key} follows from data and network: it can't be chosen")
    if result.is_delete() and not re.fullmatch(OPTIONAL, key):
        raise UserError(f"{key} can't be left out")
    return result


def taken(override: str, source: Path, hydra: str = "") -> Override:
    """An override out of a file, which anyone may have written.

    Args:
        hydra: which of Hydra's own keys it may set, as a regular expression.

    Raises:
        UserError: it says more than which files of conf/ are chosen and which values its keys have.
    """
    refused = UserError(f"{source}: {override} is nothing that this project takes from a file")
    try:
        result = parsed(override)
    except (HydraException, UserError):
        raise refused from None
    key, texts = result.key_or_group, list(_texts(result._value))
    if any(re.search(INTERPOLATION_OF_HYDRA, text) for text in texts):
        raise refused
    if key.startswith("hydra"):
        if not re.fullmatch(hydra, key) or result.package or ("/" in key and not all(map(NAME, texts))):
            raise refused
        if searched := key.partition("sweeper.params.")[2]:
            for text in texts:
                taken(f"{searched}={text}", source)
        return result
    chosen = GROUPS | {"experiment", "sweeps"}
    for path in (key, result.package or key):
        if re.split(r"[./]", path)[0] not in KEYS | chosen:
            raise refused
    if key in chosen and not all(map(NAME, texts)):
        raise refused
    return result


def _texts(value: Any) -> Iterator[str]:
    """All strings in the value of an override."""
    if isinstance(value, QuotedString):
        yield value.text
    elif isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, list | tuple | ChoiceSweep):
        for child in value.list if isinstance(value, ChoiceSweep) else value:
            yield from _texts(child)
