"""A run folder: it is one run's alone, and holds what it takes to resume, repeat or evaluate that run."""

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from autoencoders import config, stored
from autoencoders.errors import UserError, is_main_process, one_line_errors
from autoencoders.overrides import OF_A_SWEEP, parsed, taken

ONCE = ("resume", "trust")  # what a start is told, and the next one not


class Claim(Callback):
    """Takes a run's folder before Hydra writes into it, for as long as this process lives."""

    held: FileLock | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if not is_main_process():
            return
        HydraConfig.instance().set_config(config)  # for ${hydra:...} in the folder's name
        try:
            with one_line_errors():
                Claim.held = claimed(Path(str(config.hydra.run.dir)), resumed=bool(config.resume))
        except UserError as error:  # one whose traceback was asked for; of any Exception Hydra only warns
            raise SystemExit(1) from error


def claimed(folder: Path, resumed: bool) -> FileLock:
    """Locks a run's folder.

    Raises:
        UserError: another process trains in it, or it holds another run, which would be lost.
    """
    lock = FileLock(folder / ".hydra" / "lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"another process is training in {folder}") from None
    if not resumed and (folder / "checkpoints" / "last.ckpt").is_file():
        raise UserError(
            f"{folder} holds a run: go on with it by resume={folder}, or choose another hydra.run.dir"
        )
    return lock


def saved_overrides(run: Path) -> list[str]:
    """The overrides that a run was started with, but for those that hold for one start; and data.root only
    if there is data, as the run may come from elsewhere, and a file must not say where to download to.

    Raises:
        UserError: there is no such folder, or it is not a run's.
    """
    if not run.is_dir():
        raise UserError(f"no run folder {run}")
    stored.check_run(run)
    saved = run / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise UserError(f"{run} is not a run folder: it has no {saved.relative_to(run)}")
    overrides = stored.read_strings(saved, stored.read_yaml(saved))
    kept = [(taken(override, saved), override) for override in overrides]
    return [o for read, o in kept if read.key_or_group not in ONCE and not _root_without_data(read)]


def _root_without_data(override: Override) -> bool:
    root = Path(str(override.value()))
    return override.key_or_group == "data.root" and not any(
        path.is_file() for pattern in ("*/*-ubyte*", "*/*_batch*.bin") for path in root.glob(pattern)
    )


def _saved_sweep(sweep: Path) -> tuple[list[str], list[str]]:
    """The overrides of a sweep's jobs, and those of Hydra, that it was started with."""
    path = sweep / "multirun.yaml"
    stored.check_links(sweep)
    content = stored.read_yaml(path)
    for key in ("hydra", "overrides"):
        content = content.get(key) if isinstance(content, dict) else None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no overrides of a sweep")
    of_jobs, of_hydra = (stored.read_strings(path, content.get(of)) for of in ("task", "hydra"))
    return (
        [o for o in of_jobs if taken(o, path).key_or_group not in ONCE],
        [o for o in of_hydra if taken(o, path, OF_A_SWEEP).key_or_group != "hydra.sweep.dir"],
    )


def best_checkpoint(run: Path) -> Path:
    """The path of a run's best model.

    Raises:
        UserError: the run saved none.
    """
    path = run / "checkpoints" / "best.ckpt"
    if not path.is_file():
        raise UserError(f"{run} holds no checkpoint ({path.relative_to(run)}): it was never validated")
    return path


def expand_resume(arguments: Sequence[str]) -> list[str]:
    """`resume=<run folder>` becomes the run's own overrides and folder, then the other arguments.

    `resume=<sweep folder>` becomes the sweep's own command line: it leaves out the jobs that are done. A run
    that SLURM has requeued needs no `resume`.

    Raises:
        UserError: an argument is none, or there is nothing to resume.
    """
    named, rest = _told(arguments, "resume")
    if requeued := None if named else _requeued():
        named = [requeued]
    if any(argument.startswith("hydra.job.name=train_ddp_process") for argument in arguments):
        return list(arguments)  # Lightning gives the processes that it starts what came out here
    overrides = _overrides(rest)
    if not named:
        return list(arguments)
    run = Path(named[-1])
    if (run / "multirun.yaml").is_file():
        of_jobs, of_hydra = _saved_sweep(run)
        return ["-m", *of_jobs, *of_hydra, f"hydra.sweep.dir={config.quoted(run.resolve())}", *rest]
    saved = saved_overrides(run)
    if requeued:  # its command line is that of the first start, and `+key=...` can't be said twice
        rest = [argument for argument in rest if argument not in saved]
        overrides = [override for override in overrides if override not in saved]
    # Before Hydra writes what may be wrong into the run's folder.
    config.check(config.composed([*saved, *overrides]))
    folder = config.quoted(run.resolve())
    # Hydra's files stay as they are: it doesn't write them whole.
    of_hydra = [f"hydra.run.dir={folder}", "hydra.mode=RUN", "hydra.output_subdir=null"]
    return [*saved, *of_hydra, f"resume={folder}", *rest]


def _overrides(arguments: Sequence[str]) -> list[str]:
    """What of a command line is no flag of Hydra's; all of it is checked."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(message)

    parser.error = refuse  # type: ignore[method-assign]  # it would print how Hydra is used, and exit
    overrides = parser.parse_args(list(arguments)).overrides
    for override in overrides:
        parsed(override)
    return list(overrides)


def _requeued() -> str | None:
    """The folder of the run that SLURM stopped and starts again now."""
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return None
    folders = [path.parents[1] for path in Path("runs").glob(f"*/{config.started()}/checkpoints/last.ckpt")]
    return str(folders[0]) if folders else None


def compose_run(arguments: Sequence[str]) -> tuple[Path, DictConfig]:
    """A run folder, `run=...` of the arguments, and its configuration with the other arguments over it.

    Raises:
        UserError: there is no such run, or the overrides would change the model that it trained.
    """
    named, others = _told(arguments, "run")
    if len(named) != 1 or not named[0]:
        raise UserError("name one run folder: python evaluate.py run=runs/denoising/2026-01-31_12-00-00")
    run = Path(named[0])
    rest = _overrides(others)
    saved = saved_overrides(run)
    best_checkpoint(run)
    # Another corruption than the trained one has other keys, so what was said of the old one is void.
    groups = [argument.partition("=")[0] for argument in rest if "." not in argument.partition("=")[0]]
    kept = [override for override in saved if override.lstrip("+~").partition(".")[0] not in groups]
    cfg = config.composed([*kept, *rest])
    config.check(cfg)
    if config.plain(cfg.model) != config.plain(config.composed(saved).model):
        raise UserError(f"the model of {run} is trained: override data and corruption, or train another one")
    return run, cfg


def expand_rerun(arguments: Sequence[str]) -> list[str]:
    """`rerun=<run folder>` becomes the run's own overrides, then the other arguments: it is trained again, in
    a new folder, to the same weights. Says so where it would not be the same."""
    named, rest = _told(arguments, "rerun")
    if not named:
        return rest
    run = Path(named[-1])
    saved = saved_overrides(run)
    if is_main_process() and (changed := list(_changed(run, config.composed(saved)))):
        print(f"note: not as {run} was trained: {', '.join(changed)}", flush=True)
    return [*saved, *rest]


def _changed(run: Path, cfg: DictConfig) -> Iterator[str]:
    """What is other than it was when the run was trained: settings of conf/, and versions."""
    if (path := run / "config.yaml").is_file():
        resolved = OmegaConf.to_yaml(cfg, resolve=True)
        before, now = (
            dict(config.leaves(stored.as_strings(path, text))) for text in (stored.read_text(path), resolved)
        )
        for key in sorted((before.keys() | now.keys()) - {"resume"}):
            if before.get(key) != now.get(key):
                yield f"{key}={now.get(key)}, then {before.get(key)}"
    if (path := run / "environment.json").is_file():
        for package, then in stored.read_json(path).get("versions", {}).items():
            if package in ("torch", "lightning") and version(package) != then:
                yield f"{package} {version(package)}, then {then}"


def _told(arguments: Sequence[str], key: str) -> tuple[list[str], list[str]]:
    """What the arguments `key=...` say, and the other arguments."""
    said = [argument.removeprefix(f"{key}=") for argument in arguments if argument.startswith(f"{key}=")]
    return said, [argument for argument in arguments if not argument.startswith(f"{key}=")]
