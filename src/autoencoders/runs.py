"""A run folder: it is one run's alone, and holds what it takes to resume, repeat or evaluate that run."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from filelock import FileLock, Timeout
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from autoencoders import untrusted
from autoencoders.config import (
    CONF,
    REPOSITORY,
    check,
    check_secrets,
    class_name,
    compose_conf,
    compose_over,
    leaves,
    settled,
)
from autoencoders.errors import (
    UserError,
    choices,
    habit,
    is_main_process,
    one_line,
    one_line_errors,
    suggest,
)
from autoencoders.files import atomic_write
from autoencoders.overrides import INSTEAD, parse_override, parse_stored_override, translate, translate_all

STARTED_IN = Path.cwd()  # Hydra may leave it
CONFIG = Path(".hydra") / "config.yaml"
OVERRIDES = Path(".hydra") / "overrides.yaml"
THUMBNAIL = "thumbnail.png"  # the first test images, and what the model makes of them
# What may be other than it was when a run is resumed.
RESUMABLE = ("trainer", "callbacks", "logger", "figures", "checkpoint", "evaluate", "evaluation", "trust")
FOLDER = re.compile(r"hydra\.(run|sweep)\.dir").fullmatch
OF_CLASSES = re.compile(
    r"network\.(en|de)coder|(callbacks|logger)\.\w+|(corruption|optimizer|scheduler)"
).fullmatch
OF_A_CLASS = re.compile(r"\w+(\.\w+)*\.[A-Z]\w*").fullmatch
Read = Callable[[Path, bool, str], DictConfig]  # the config of a folder: see read_run
RESUMABLE_KEYS = ("data.root", "data.input_root", "data.cache", "data.cache_gb", "data.eval_batch_size")
OF_ONES_OWN = ("autoencoders.data.ImageFolder", "autoencoders.data.ImageStream")  # whose root has no default


# ---- the command line --------------------------------------------------------------------------------------


@dataclass
class Command:
    """A command about an existing folder: `resume=<folder>` and the other arguments."""

    folder: Path
    overrides: list[str]
    config_folders: list[Path]
    trust: bool
    words: list[str]  # all of it, to be shown with one more

    @classmethod
    def parse(cls, key: str, arguments: Sequence[str], script: str) -> "Command | None":
        """The command, if the arguments have one `<key>=<folder>`.

        Raises:
            UserError: an argument isn't one, or the folder isn't there.
        """
        said = [argument.removeprefix(f"{key}=") for argument in arguments if argument.startswith(f"{key}=")]
        named = [re.sub(r"^(['\"])(.+)\1$", r"\2", path) for path in said]  # as Hydra reads it
        if not named:
            return None
        parsed = parse_flags([argument for argument in arguments if not argument.startswith(f"{key}=")])
        overrides = translate_all(parsed.overrides)
        for override in overrides:
            parse_override(override)
        folder = Path(named[-1])
        if folder.is_file() and folder.parent.name == "checkpoints":
            raise UserError(f"{folder} is a checkpoint: name its run's folder, {key}={folder.parents[1]}")
        if not named[-1] or not folder.is_dir():
            raise UserError(f"no run folder {folder if named[-1] else '(the name is empty)'}")
        return cls(
            folder=folder,
            overrides=[override for override in overrides if not override.startswith("trust=")],
            config_folders=[Path(parsed.config_dir).absolute()] if parsed.config_dir else [],
            trust="trust=true" in [override.lower() for override in overrides],
            words=["python", script_path(script), *arguments],
        )

    @classmethod
    def requeued(cls, arguments: Sequence[str]) -> "Command | None":
        """That of a run that SLURM stopped and starts again now, with the arguments of its first start."""
        if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
            return None
        found = [path.parents[1] for path in Path("runs").glob(f"*/{started()}/checkpoints/last.ckpt")]
        return cls(found[0], [], [], True, ["python", script_path("train.py"), *arguments]) if found else None

    @property
    def trusting(self) -> str:
        """The command with trust=true, to be pasted."""
        return to_paste(*self.words, "trust=true")

    def config(self, read: "Read | None" = None) -> tuple[DictConfig, DictConfig]:
        """The run's config as it was trained, and with the overrides over it.

        Args:
            read: what reads it; None: `read_run`.

        Raises:
            UserError: it isn't a run's, or needs trust=true.
        """
        trained = (read or read_run)(self.folder, self.trust, self.trusting)
        cfg = compose_over(trained, self.overrides, self.config_folders)
        check_secrets(cfg)
        cfg.trust = self.trust
        return trained, cfg


def parse_flags(arguments: Sequence[str]) -> Any:
    """Hydra's flags and the overrides, in any order.

    Raises:
        UserError: a flag is none of Hydra's.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(message)

    parser.error = refuse  # type: ignore[method-assign]  # it would print how Hydra is used, and exit
    return parser.parse_intermixed_args(list(arguments))


def expand(arguments: Sequence[str]) -> list[str]:
    """The arguments of a new run or sweep in today's words, flags last, each looked at."""
    parsed = parse_flags(arguments)
    overrides = translate_all(parsed.overrides)
    parts = list(map(parse_override, overrides))
    keys = {override.key_or_group for override in parts}
    elsewhere = parsed.config_name or parsed.config_dir or keys & {"network", "experiment"}
    for override in parts:
        refuse(override, has_network=bool(elsewhere))
    if parsed.config_name:  # it may be no config of a run: before Hydra makes a folder for it
        own, name = Path(parsed.config_path or parsed.config_dir or CONF).absolute(), parsed.config_name
        file = f"{name.removesuffix('.yaml')}.yaml"
        is_own = (own / file).is_file()
        if not is_own and not (CONF / file).is_file():
            raise UserError(
                f"no config {name}: {suggest(name, [*choices(''), *(p.stem for p in own.glob('*.yaml'))])}"
            )
        check(compose_conf([], [CONF], name, own) if is_own else compose_conf([], [own], name))
    flags = list(arguments)
    for argument in parsed.overrides:
        flags.remove(argument)
    return [*overrides, *flags]


def refuse(override: Override, has_network: bool) -> None:
    """Raises UserError for what Hydra would take, and then nobody look at, or explain in its own words.

    Args:
        has_network: whether the network may have been chosen elsewhere.
    """
    key = override.key_or_group
    value = "" if override.is_delete() else str(override.value()).strip()
    if FOLDER(key) and not override.is_delete() and not value:
        raise UserError(f"{key}= names no folder")
    if override.is_add() and (instead := habit(key)):
        raise UserError(f"no key {key}: {instead}")
    if key in ("hydra.sweeper", "hydra.launcher"):
        group = key.replace(".", "/")
        word = INSTEAD.get(f"{group}={value}", f"{group}={value}")
        raise UserError(f"{key}={value}: a file of a group is chosen with a slash: {word}")
    if (OF_CLASSES(key) or (CONF / key).is_dir()) and OF_A_CLASS(value):
        raise UserError(f"{key}={value} is the name of a class: write {key}._target_={value}")
    if (CONF / key).is_dir() and value in ("True", "False"):
        raise UserError(f"no {key}={value.lower()}: {suggest(value, choices(key))}")
    if (CONF / key).is_dir() and override.is_add() and not isinstance(override.value(), dict):
        raise UserError(f"+{key}={value}: there is {key} already, say {key}={value} without the +")
    if re.fullmatch(r"network\.(en|de)coder\._target_", key) and not has_network:
        raise UserError(f"{key}={value} needs network=own")


def script_path(name: str) -> str:
    """A script of this repository as the user has called it, or would have to, from wherever that was."""
    called, here = Path(sys.argv[0]), REPOSITORY / name
    if called.name in ("train.py", "evaluate.py"):
        return str(called.with_name(name))
    return str(near(here)) if here.is_file() else name


def near(path: Path) -> Path:
    """A path as one who has called this program would type it: from there, if it lies below."""
    return path.relative_to(STARTED_IN) if path.is_relative_to(STARTED_IN) else path


def to_paste(*words: object) -> str:
    """A command as it can be pasted into a shell."""
    return shlex.join(map(str, words))


def resume_command(folder: Path) -> str:
    """What resumes a run or a sweep of the user's own."""
    return command_for(folder, "train.py", "resume")


def command_for(folder: Path, script: str, key: str, *more: str) -> str:
    """`python <script> <key>=<folder> <more>` for a run or a sweep of the user's own."""
    return to_paste("python", script_path(script), f"{key}={folder}", *more, *trusting(folder))


def trusting(folder: Path) -> list[str]:
    """The word that lets a run or a sweep of the user's own use other classes than the project's, where it
    does."""
    configs = [folder / CONFIG, *folder.glob(f"*/{CONFIG}")]
    needed = any(untrusted.needs_trust(path) for path in configs if path.is_file())
    return ["trust=true"] if needed else []


# ---- the folder --------------------------------------------------------------------------------------------


class RunFolderLock(Callback):
    """Takes a run's folder before Hydra writes into it, for as long as this process lives."""

    held: FileLock | None = None
    made: ClassVar[Sequence[Path]] = ()  # the folders that this process has made for it

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if not is_main_process():
            return
        HydraConfig.instance().set_config(config)  # for ${hydra:...} in the folder's name
        try:
            with one_line_errors():
                check(config)  # before Hydra writes it
                RunFolderLock.held = lock(Path(str(config.hydra.run.dir)), resumed=False)
        except UserError as error:  # one whose traceback was asked for; of any Exception Hydra only warns
            raise SystemExit(1) from error


def lock(folder: Path, resumed: bool) -> FileLock:
    """Locks a run's folder.

    Raises:
        UserError: another process trains in it, or it holds another run, which would be lost.
    """
    file_lock = FileLock(folder / ".hydra" / "lock")
    RunFolderLock.made = missing(folder / ".hydra")
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    try:
        file_lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"another process is training in {folder}") from None
    if not resumed and any((folder / "checkpoints" / f"{name}.ckpt").is_file() for name in ("last", "best")):
        resume = to_paste("python", script_path("train.py"), f"resume={folder}")
        raise UserError(f"{folder} holds a run: resume it with: {resume}, or choose another hydra.run.dir")
    return file_lock


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """A run folder does not outlive a run that fails before it has put anything there; nor do the folders
    around it, as far as they were made for it."""
    try:
        yield
    except BaseException:
        if is_main_process() and folder.is_dir() and not _files(folder):
            remove(RunFolderLock.made, folder / "checkpoints", folder / "figures")
        raise


def missing(folder: Path) -> list[Path]:
    """The folders that have to be made for it to be there, from the inside out."""
    absolute = folder.absolute()
    return [path for path in (absolute, *absolute.parents) if not path.exists()]


def remove(made: Sequence[Path], *empty: Path) -> None:
    """Removes the first folder that was made, and of the others those that are empty then."""
    if made:
        shutil.rmtree(made[0], ignore_errors=True)
    for path in (*empty, *made[1:]):
        with suppress(OSError):  # it holds something
            path.rmdir()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".hydra" not in path.parts]


def read_run(run: Path, trust: bool, trusting: str = "") -> DictConfig:
    """The config that a run was trained with, unresolved; where to find its data only if there is data, as
    the run may come from elsewhere, and a file must not say where to download to.

    Args:
        trust: whether it may name other classes than the project's.
        trusting: the command that would trust it, to be shown where that is needed.

    Raises:
        UserError: it isn't a run's, or needs trust=true.
    """
    if not run.is_dir():
        raise UserError(f"no run folder {run}")
    if not (run / CONFIG).exists():
        _refuse_exported(run)
        if inside := sorted(path.parents[1] for path in run.glob(f"*/{CONFIG}")):
            raise UserError(f"{run} is not a run folder but holds some: name one, such as {inside[0]}")
        raise UserError(f"{run} is not a run folder: it has no {CONFIG}")
    untrusted.check_run(run)
    config = untrusted.read_config(run / CONFIG, trust, trusting)
    if not trust:
        config.init = None
        if "cache" in config.data:
            config.data.cache = None
    for key in ("root", "input_root"):
        place = config.data.get(key)
        if not isinstance(place, str) or "://" in place or _exists(Path(place)):
            continue
        if _exists(there := Path(_trained_in(run), place)):
            config.data[key] = str(there)
    root = config.data.get("root")
    if not trust and isinstance(root, str) and "://" in root:  # a bucket, with the user's credentials
        root = config.data.root = None
    fetched = config.data._target_ not in OF_ONES_OWN
    if fetched and isinstance(root, str) and not trust and not _has_data(Path(root)):
        config.data.root = "${repository:}/data"
    return config


def _trained_in(run: Path) -> str:
    """The folder that relative paths of the config are of; nothing where that isn't known."""
    path = run / "environment.json"
    folder = untrusted.read_json(path).get("folder") if path.is_file() else None
    return folder if isinstance(folder, str) else ""


def _exists(path: Path) -> bool:
    with suppress(OSError, ValueError):  # it is no path
        return path.exists()
    return False


def _has_data(root: Path) -> bool:
    with suppress(OSError, ValueError):  # it is no path
        patterns = ("*/*-ubyte*", "*/*_batch*.bin")
        return any(path.is_file() for pattern in patterns for path in root.glob(pattern))
    return False


def read_evaluated(run: Path, trust: bool, trusting: str = "") -> DictConfig:
    """As `read_run`, of a run that has a best model."""
    config = read_run(run, trust, trusting)
    best_checkpoint(run)
    return config


def write_config(folder: Path, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Saves what a run is rebuilt from, and the overrides that led to it."""
    (folder / CONFIG).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / CONFIG) as temporary:
        OmegaConf.save(OmegaConf.create(settled(cfg)), temporary)
    with atomic_write(folder / OVERRIDES) as temporary:
        OmegaConf.save(OmegaConf.create(list(overrides)), temporary)


def read_overrides(run: Path) -> list[str]:
    """What was said to make a run what it is, for people to read: nothing is composed from it."""
    path = run / OVERRIDES
    return untrusted.read_strings(path, untrusted.read_yaml(path)) if path.is_file() else []


def _refuse_exported(folder: Path) -> None:
    if (folder / "model.safetensors").is_file():
        raise UserError(f"{folder} is an exported folder, to be loaded and applied: this needs its run")


def is_evaluated(run: Path) -> bool:
    """Whether its best model has been evaluated: a run that is finished and resumed isn't once more."""
    scores = run / "evaluation" / "metrics.json"
    has_both = scores.is_file() and (run / "checkpoints" / "best.ckpt").is_file()
    return has_both and not is_outdated(run, scores)


def is_outdated(run: Path, path: Path) -> bool:
    """Whether a file that is there is of the run's best model of before it was trained further."""
    best = run / "checkpoints" / "best.ckpt"
    return best.is_file() and path.is_file() and path.stat().st_mtime < best.stat().st_mtime


def best_checkpoint(run: Path) -> Path:
    """The path of a run's best model.

    Raises:
        UserError: the run saved none.
    """
    path = run / "checkpoints" / "best.ckpt"
    if not path.is_file():
        _refuse_exported(run)
        if not (run / ".hydra").is_dir():
            raise UserError(f"{run} is not a run folder")
        raise UserError(f"{run} holds no checkpoint ({path.relative_to(run)}): it was never validated")
    return path


@cache
def started() -> str:
    """What a run's folder is called: the time, of the first process of all that a run has on its machines;
    where srun started it the job's number and the step's, which a requeued job keeps."""
    by_srun = int(os.environ.get("SLURM_NTASKS", "1")) > 1 or "SLURM_STEP_ID" in os.environ
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if "SLURM_JOB_ID" in os.environ and by_srun and not interactive:
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


# ---- resume, rerun, evaluate -------------------------------------------------------------------------------


def compose_resumed(command: Command) -> DictConfig:
    """The config to resume a run with.

    Raises:
        UserError: the overrides would make another run of it.
    """
    for override in command.overrides:
        if override.startswith("hydra"):
            raise UserError(f"{override} is for new runs: a resumed run stays in its folder")
    trained, cfg = command.config()
    before, now = (dict(leaves(OmegaConf.to_container(some, resolve=False))) for some in (trained, cfg))
    for key in sorted(before.keys() | now.keys()):
        if key.split(".")[0] in RESUMABLE or key in RESUMABLE_KEYS or before.get(key) == now.get(key):
            continue
        again = to_paste("python", script_path("train.py"), f"rerun={command.folder}", *command.overrides)
        raise UserError(
            f"{key}={now.get(key)} would make it another run: it was trained with {before.get(key)}. "
            f"To train it again with this: {again}"
        )
    if (command.folder / "checkpoints" / "last.ckpt").is_file():
        cfg.init = None  # these weights have been trained since
    else:
        check_init(command)
    return cfg


def compose_rerun(command: Command) -> tuple[Path, DictConfig]:
    """A new folder, and the config of a run with the overrides over it: it's trained again, to the same
    weights. Says so where it would not be the same."""
    named = [parse_override(o).value() for o in command.overrides if o.startswith("hydra.run.dir=")]
    if named and not str(named[-1]).strip():
        raise UserError("hydra.run.dir= names no folder")
    command.overrides = [o for o in command.overrides if not o.startswith("hydra.run.dir=")]
    if others := [override for override in command.overrides if override.startswith("hydra")]:
        raise UserError(
            f"{others[0]} can't be combined with rerun=: one run is trained again, in a new folder"
        )
    trained, cfg = command.config()
    check_init(command)
    if is_main_process() and (changed := list(_changed(command.folder, trained))):
        print(one_line(f"note: today's defaults and versions differ: {', '.join(changed)}"), flush=True)
    name = class_name(cfg.model).removesuffix("Autoencoder").lower() or "autoencoder"
    # The processes that Lightning starts for the run's other devices must find its folder; what this one has
    # inherited is another run's.
    default = f"runs/{name}/{started()}"
    if is_main_process():
        os.environ["AUTOENCODERS_RERUN"] = default
    default = os.environ.get("AUTOENCODERS_RERUN", default)
    return Path(str(named[-1]) if named else default), cfg


def check_init(command: Command) -> None:
    """Raises UserError where a run starts from weights of a place that its config names, and which is not
    trusted."""
    init = untrusted.read_mapping(command.folder / CONFIG).get("init")
    if init and not command.trust and not any(o.startswith("init=") for o in command.overrides):
        raise UserError(
            f"{command.folder} started from init={init}, out of its folder; "
            f"if you trust it: {command.trusting}"
        )


def _changed(run: Path, trained: DictConfig) -> Iterator[str]:
    """What is other than it was when the run was trained: settings of conf/, and versions."""
    said = [
        o for o in map(translate, read_overrides(run)) if not o.startswith(("resume=", "trust=", "hydra"))
    ]
    try:
        for override in said:  # anyone may have written them
            parse_stored_override(override, run / OVERRIDES, untrusted.top_level_keys())
        today = compose_conf(said)
    except Exception:  # an override of then that says nothing today, or of a config folder of the user's
        today = trained
    before, now = (dict(leaves(OmegaConf.to_container(some, resolve=False))) for some in (trained, today))
    for key in sorted(before.keys() & now.keys()):
        if before[key] != now[key] and key not in ("resume", "data.root"):
            yield f"{key} is {before[key]}, today {now[key]}"
    if (path := run / "environment.json").is_file():
        for package, then in untrusted.read_json(path).get("versions", {}).items():
            if package in ("torch", "lightning") and version(package) != then:
                yield f"{package} was {then}, today {version(package)}"


def compose_evaluated(
    arguments: Sequence[str],
    program: Sequence[str] = (),
    words: Sequence[str] = (),
    read: Read = read_evaluated,
) -> tuple[Path, DictConfig]:
    """A run folder, `run=...` of the arguments, and its config with the other arguments over it.

    Args:
        program: that asks, and
        words: all that it was told, to be shown where more is to be said; by default the script's.
        read: what reads the folder's config.

    Raises:
        UserError: there is no such run, or the overrides would change the model that it trained.
    """
    command = Command.parse("run", arguments, Path(sys.argv[0]).name)
    if command is None:
        raise UserError("name one run folder: python evaluate.py run=runs/denoising/2026-01-31_12-00-00")
    if program:
        command.words = [*program, *words]
    trained, cfg = command.config(read)
    before, now = (OmegaConf.to_container(some, resolve=False) for some in (trained, cfg))
    assert isinstance(before, dict)
    assert isinstance(now, dict)
    for key in ("model", "network", "optimizer", "scheduler", "objective", "ema", "init"):
        if before.get(key) != now.get(key):
            raise UserError(
                f"the model of {command.folder} is trained: override data and corruption, or train another"
            )
    return command.folder, cfg
