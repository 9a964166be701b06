"""Overrides: of the command line, which is the user's own, and of a sweep's file, which anyone may have
written."""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString

from autoencoders.errors import UserError, redacted

RENAMED = {  # keys of earlier versions, which are still understood
    "model.lr": "optimizer.lr",
    "model.weight_decay": "optimizer.weight_decay",
    "model.warmup": "scheduler.warmup",
    "logger.project": "logger.wandb.project",
    "logger.group": "logger.wandb.group",
    "logger.tags": "logger.wandb.tags",
    "logger.mode": "logger.wandb.mode",
    "hydra.launcher.side_by_side": "hydra.launcher.max_parallel",
    "hydra.callbacks.levels.key": "hydra.callbacks.summary.levels.key",
    "hydra.callbacks.levels.values": "hydra.callbacks.summary.levels.values",
}
HABITS = {  # keys of other templates, and the word for them here
    "ckpt_path": "resume=<run folder> continues a run, init=<run folder> starts from its weights",
    "train": "train.py always trains; evaluate.py run=<run folder> only tests",
    "test": "a run is always tested at its end; evaluate=true adds the report",
    "tags": "use logger.wandb.tags=[a,b]",
    "task_name": "hydra.run.dir=<folder> names the run's folder",
    "name": "hydra.run.dir=<folder> names the run's folder",
    "paths": "data.root=<folder> holds the data, hydra.run.dir=<folder> is the run's folder",
    "extras": "callbacks=rich_progress_bar and the like choose what is shown",
    "hparams_search": "sweeps=lr_batch searches with Optuna",
    "data.data_dir": "use data.root=<folder>",
    "data.num_workers": "not needed: the images are in memory",
    "data.pin_memory": "not needed: the images are in memory",
    "callbacks.model_checkpoint": "objective=val/mse chooses best.ckpt",
    "callbacks.checkpoint": "objective=val/mse chooses best.ckpt",
    "model.optimizer.lr": "use optimizer.lr=1e-3",
    "model.net": "use network=mlp, network=conv or network=own",
    "model.beta2": "use optimizer.betas=[0.9,0.95]",
    "model.latent_dim": "use model.code_dim=16",
    "model.batch_size": "use data.batch_size=128",
    "trainer.gpus": "use trainer.devices=1 trainer.accelerator=gpu",
    "trainer.lr": "use optimizer.lr=1e-3",
    "lr": "use optimizer.lr=1e-3",
    "batch_size": "use data.batch_size=128",
    "epochs": "use trainer.max_epochs=10",
    "max_epochs": "use trainer.max_epochs=10",
}
INSTEAD = {  # choices of other templates, likewise
    "hydra/sweeper=optuna": "hydra/sweeper=tpe searches with Optuna (see sweeps/lr_batch.yaml)",
    "hydra/launcher=joblib": "hydra.launcher.max_parallel=2 runs two jobs at a time",
    "logger=many_loggers": "logger=[wandb,tensorboard] uses several",
    "callbacks=default": "callbacks=[early_stopping,lr_monitor] uses several",
}

PATHS = ("init", "data.root", "hydra.run.dir", "hydra.sweep.dir")  # need no quoting for Hydra's grammar
NAME = re.compile(r"[\w-]+").fullmatch  # of a file of conf/, and no path to another one
# Finds any interpolation but that of a key, and for Hydra's own keys, as hydra.sweep.subdir, of the job.
INTERPOLATION, INTERPOLATION_OF_HYDRA = (
    r"\$\{(?!([\w.\[\]]+|repository:)\})", r"\$\{(?!([\w.\[\]]+|hydra:job\.\w+)\})",
)  # fmt: skip
# What an override in a sweep's multirun.yaml may say to Hydra.
OF_A_SWEEP = (
    r"hydra/(launcher|sweeper)|hydra\.(mode|sweep\.(dir|subdir)|callbacks\.summary\.(metric|reference"
    r"|levels\.(key|values))|sweeper\.(trials|at_a_time|startup|seed|max_batch_size|params\..+)"
    r"|launcher\.(max_parallel|timeout_min|partition|qos|account|constraint|nodes|tasks_per_node|cpus_per_task"
    r"|gpus_per_node|mem_gb|array_parallelism))"
)


def translate(argument: str) -> str:
    """An argument of the command line in today's words; `+trainer.x=` adds or changes, whichever it takes.

    >>> translate("model.lr=1e-3")
    'optimizer.lr=1e-3'
    """
    match = re.match(r"([~+]*)([\w./@]+)(.*)", argument, re.DOTALL)
    if match is None:
        return argument
    sign, key, rest = match.groups()
    searched = "hydra.sweeper.params."
    before, key = (searched, key.removeprefix(searched)) if key.startswith(searched) else ("", key)
    if sign == "+" and key.startswith("trainer."):
        sign = "++"  # Hydra refuses + on a key that is there already
    if (
        key in PATHS
        and re.search(r"[()\[\]{}'\"=]", rest[1:])
        and rest[1:2] not in "'\""
        and "${" not in rest
    ):
        rest = "=" + quoted(rest[1:])
    if key in ("callbacks", "logger") and rest.lower() in ("=[]", "=null", "=false"):
        rest = "=none"
    return sign + before + RENAMED.get(key, key) + rest


def translate_all(arguments: Sequence[str]) -> list[str]:
    """Arguments of the command line, each in today's words. Keys beside a `_target_` that they choose are for
    that class to know: they are added where conf/ doesn't have them.

    >>> translate_all(["network.encoder._target_=mynet.Encoder", "network.encoder.width=64"])
    ['++network.encoder._target_=mynet.Encoder', '++network.encoder.width=64']
    """
    words = [translate(argument) for argument in arguments]
    chosen = (re.match(r"\+*([\w.]+\.)_target_=", word) for word in words)
    own = tuple(match[1] for match in chosen if match)
    return [f"++{word}" if own and word.startswith(own) else word for word in words]


def quoted(path: Path | str) -> str:
    """A path as Hydra's override grammar takes it whatever is in it."""
    return "'" + str(path).replace("\\", r"\\").replace("'", r"\'") + "'"


def parse_override(override: str) -> Override:
    """An override of the command line.

    Raises:
        UserError: it isn't one, or holds a secret.
    """
    if spells_out_a_secret(override):
        key = override.partition("=")[0]
        raise UserError(
            f"{key} holds a password or a key, which would end up in the run's files: "
            "give it as '${oc.env:NAME}' and set the variable NAME"
        )
    try:
        return OverridesParser.create().parse_override(override)
    except Exception as error:  # the parser's own, too: a number too long, lists too deep
        said = " ".join(str(error).split()).partition(" See https")[0]
        if re.fullmatch(r"[\w./-]+", override):
            raise UserError(f"{override} is neither key=value nor one of Hydra's flags") from None
        raise UserError(f"{override[:80]} can't be read: {said}") from None


def parse_stored_override(override: str, source: Path, keys: Collection[str], hydra: str = "") -> Override:
    """An override out of a file, which anyone may have written.

    Args:
        keys: the top-level keys and groups of conf/.
        hydra: which of Hydra's own keys it may set, as a regular expression.

    Raises:
        UserError: it says more than which files of conf/ are chosen and which values its keys have.
    """
    refused = UserError(f"{source}: {override} is not allowed in a stored override")
    try:
        result = parse_override(override)
    except UserError:
        raise refused from None
    key, texts = result.key_or_group, list(_texts(result._value))
    if any(re.search(INTERPOLATION_OF_HYDRA, text) for text in texts):
        raise refused
    if re.search(r"(^|[./{ ,])_\w+_($|[.:=])", override):  # what tells Hydra what to instantiate
        raise refused
    if key.startswith("hydra"):
        if not re.fullmatch(hydra, key) or result.package or ("/" in key and not all(map(NAME, texts))):
            raise refused
        if searched := key.partition("sweeper.params.")[2]:
            for text in ["0", *texts]:
                parse_stored_override(f"{searched}={text}", source, keys)
        return result
    for path in (key, result.package or key):
        if re.split(r"[./]", path)[0] not in keys:
            raise refused
    if "." not in key and any(re.search(r"[/\\]", text) for text in texts):
        raise refused
    return result


def spells_out_a_secret(override: str) -> bool:
    """Whether a password or a key is in it, as `token=...` or `{token: ...}`, and no ${oc.env:TOKEN}, which
    keeps it out of files."""
    before = ""
    while override != before:
        before, override = override, re.sub(r"\$\{[^{}]*\}", "", override)
    return any(redacted(text) != text for text in (override, re.sub(r":\s+", "=", override)))


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
