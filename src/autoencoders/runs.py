"""A run folder: it is one run's alone, and holds what it takes to run that again."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from autoencoders import config, stored
from autoencoders.errors import UserError, is_main_process, one_line_errors


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


def expand_rerun(arguments: Sequence[str]) -> list[str]:
    """`rerun=<run folder>` becomes the run's own overrides, then the other arguments: it is trained again, in
    a new folder, to the same weights. Says so where it would not be the same."""
    named = [argument.partition("=")[2] for argument in arguments if argument.startswith("rerun=")]
    if not named:
        return list(arguments)
    run = Path(named[-1])
    rest = [argument for argument in arguments if not argument.startswith("rerun=")]
    saved = config.saved_overrides(run)
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
