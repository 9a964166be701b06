"""The user's mistakes: one clear line, exit code 1, no traceback."""

import difflib
import importlib
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Whether the user asked for tracebacks, kept for the processes that this one starts: `one_line_errors` sets
# the variable for Hydra.
FULL_ERRORS = os.environ.setdefault("AUTOENCODERS_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0")) == "1"
# Where what looks like a secret stands in a text: before the @ of a URL, and after the name of a key.
SECRETS = re.compile(r"(://)[^\s/]+(?=@)|((?:token|secret|passw(?:or)?d|api_?key)=)[^\s&'\"]+", re.IGNORECASE)
SECRET_VARIABLE = re.compile(r"(key|token|secret|passw(or)?d)$", re.IGNORECASE)  # of the environment
EARLY_STOPPING = re.compile(r"Early stopping .* metric `(.+?)` which is not available.*following: (.*)")
LONGEST = 1000  # characters of a line
# Where a job of a sweep leaves the reason for its failure.
ERROR_FILE = "AUTOENCODERS_ERROR_FILE"


class UserError(Exception):
    """Something that the user can put right; the message says what was wrong and what would be right, in one
    line, as it may have names and values of a stranger's file in it."""

    def __str__(self) -> str:
        return one_line(super().__str__())


def suggest(name: str, options: Iterable[object], listed: int = 25) -> str:
    """The options as a hint, the one that looks most like `name` first; it alone of more than `listed`.

    >>> suggest("denoisin", ["linear", "denoising", "vae"])
    "did you mean 'denoising'? There are: denoising, linear, vae"
    """
    options = sorted(str(option) for option in options if not str(option).startswith("_"))
    by_lower = {option.lower(): option for option in options}
    matches = [by_lower[m] for m in difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)]
    if matches and len(options) > listed:
        return f"did you mean '{matches[0]}'?"
    there_are = f"here are: {', '.join(options)}"
    return f"did you mean '{matches[0]}'? T{there_are}" if matches else f"t{there_are}"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns what a user can cause into one line on stderr and exit code 1, and Ctrl-C into one and 130.

    What `explain` can't explain keeps its traceback; HYDRA_FULL_ERROR=1 shows every one. Of the processes of
    a run only the first speaks.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, where it would print and exit by itself
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that can't show a letter, as with LC_ALL=C
    logging.raiseExceptions = FULL_ERRORS  # else it reports a reader that has gone, line by line
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `train.py --cfg job | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt as interrupt:
        if FULL_ERRORS:
            raise
        if is_main_process():
            print(f"\n{interrupt}" if interrupt.args else "\ninterrupted", file=sys.stderr)  # after its ^C
        raise SystemExit(130) from None
    except Exception as error:
        line = explain(error)
        if is_main_process() and ERROR_FILE in os.environ:
            path = Path(os.environ[ERROR_FILE])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((line or one_line(f"{type(error).__name__}: {error}")) + "\n", "utf-8")
        if line is None or FULL_ERRORS:
            raise
        sys.stdout.flush()
        if is_main_process():
            print(f"error: {line}", file=sys.stderr)
        raise SystemExit(1) from None


def is_main_process() -> bool:
    """False in the processes of a run's other devices, whoever started them: Lightning, torchrun or SLURM."""
    ranks = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
    return all(os.environ.get(rank, "0") == "0" for rank in ranks)


def redacted(text: str) -> str:
    """The text without the environment's keys and passwords, such as WANDB_API_KEY's, passwords in URLs and
    what follows `token=` and the like.

    >>> redacted("https://me:hidden@host/path?token=abc&page=2")
    'https://***@host/path?token=***&page=2'
    """
    for name, value in os.environ.items():
        if len(value) >= 8 and SECRET_VARIABLE.search(name):
            text = text.replace(value, "***")
    return SECRETS.sub(r"\1\2***", text)


def one_line(text: str) -> str:
    """Any text as one line that can be shown: without secrets, and without what would steer a terminal."""
    line = redacted(re.sub(r"\s*[\r\n\v\f\x85\u2028\u2029]\s*", " ", text.strip()))
    line = "".join(letter if letter.isprintable() else "�" for letter in line)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def explain(error: BaseException) -> str | None:
    """The line for a user's mistake, looked for along the chain of causes; None for a bug of ours."""
    line = _explained(error)
    return None if line is None else one_line(line)


def _explained(error: BaseException) -> str | None:
    from hydra.errors import HydraException, InstantiationException, MissingConfigException
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        InterpolationResolutionError,
        MissingMandatoryValue,
        OmegaConfBaseException,
    )
    from yaml import YAMLError

    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for link in chain:
        if isinstance(link, UserError):
            return str(link)
        if isinstance(link, InstantiationException):
            return _instantiation(link)
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            group, _, name = link.missing_cfg_file.rpartition("/")
            options = link.options or choices(group)
            wrong = f"{group}={name}" if group else f"config {name}"
            return f"no {wrong}: {suggest(name, options)}{_instead(group, name)}"
        if isinstance(link, ConfigKeyError | ConfigAttributeError) and link.parent_node is not None:
            options = [key for key in link.parent_node if key != "hydra"]
            key = str(link.full_key or link.key)
            group, _, name = key.rpartition(".")
            if name in choices(group):
                hint = f"it is not chosen; choose it too: {group}={name}"
            elif not options and group in ("callbacks", "logger"):
                hint = f"no {group.removesuffix('s')} is chosen"
            elif another := _of_another(key):
                hint = another
            elif set(options) <= {"_target_", "_partial_"}:
                hint = f"the chosen {group} has no keys"
            else:
                hint = suggest(str(link.key), options)
            return f"no key {key}: {habit(key) or hint}"
        if isinstance(link, MissingMandatoryValue):
            key = _own_name(str(link.full_key))
            return f"{key} must be given" + (f": {key}=mymodule.MyClass" if "_target_" in key else "")
        if isinstance(link, InterpolationResolutionError) and "Environment variable" in str(link):
            return str(link).partition(": ")[2].strip().splitlines()[0].strip('"')
        if isinstance(link, YAMLError):
            mark = getattr(link, "problem_mark", None)
            place = f"{mark.name}, line {mark.line + 1}" if mark else (_file_being_read(chain) or "a file")
            return f"{place} is not valid YAML: {getattr(link, 'problem', None) or link}"
        if isinstance(link, UnicodeDecodeError) and (path := _file_being_read(chain)):
            return f"{path} is not a text file"
        if type(link).__name__ == "MisconfigurationException":  # Lightning's, not imported yet
            return str(link)
        if isinstance(link, RuntimeError) and (match := EARLY_STOPPING.match(str(link))):
            known = ", ".join(re.findall(r"`([^`]+)`", match[2]))
            return f"EarlyStopping's monitor={match[1]} is not a metric of this model: there are {known}"
        if isinstance(link, ValueError) and "Config group override must be a string" in str(link):
            return "a group can't be null: choose one of its files, such as model=vae, or leave it out"
        if isinstance(link, ValueError) and (
            _raised_in(link) == "lightning"  # of its Trainer's arguments
            or (_raised_in(link) == "autoencoders" and re.match(r"[\w.]+=", str(link)))  # of our keys
        ):
            return str(link)
        if isinstance(link, OSError) and link.errno is not None and link.filename:
            return f"{link.filename2 or link.filename}: {link.strerror}"
    for link in chain:
        if match := re.search(r"Ambiguous value for argument '([^']+)'", str(link)):
            return f"{match[1]} has several values: add -m to sweep over them, or quote them"
        if isinstance(link, HydraException | OmegaConfBaseException) or _raised_in(link) == "hydra":
            said = " ".join(line.strip() for line in str(link).splitlines() if "hydra.cc" not in line)
            file = _file_being_read(chain)
            if said:  # Hydra's ConfigCompositionException may say nothing, and what led to it all
                return f"{file}: {said}" if file else said
        if isinstance(link, OSError):
            return str(link)
    return None


def _instantiation(error: BaseException) -> str:
    """What went wrong in making an object of the config, by the key that it stands at."""
    text = str(error)
    key = match[1] if (match := re.search(r"full_key: (\S+)", text)) else ""
    target = match[1] if (match := re.search(r"target '([^']+)'", text)) else ""
    key = _own_name(key)
    cause = error.__cause__
    if isinstance(cause, UserError):
        return str(cause)
    if "Error locating target" in text:
        return f"{key}._target_={target} is not found: {_why_not_found(target)}"
    if cause is None:
        return " ".join(text.split())
    said = str(cause)
    if isinstance(cause, ValueError) and re.match(r"(network|optimizer|scheduler)[.:]", said):
        return said
    if isinstance(cause, ValueError) and re.match(r"\w+(\[\d+\])?=", said):
        return f"{key}.{said}"  # a range: "corruption" and "std=-1 must be ≥ 0"
    libraries = isinstance(cause, TypeError) and _raised_in(cause) in ("lightning", "torch")
    if (
        type(cause).__name__ == "MisconfigurationException"
        or isinstance(cause, ValueError | ImportError)
        or libraries
    ):
        return f"{key}: {said}"
    if isinstance(cause, TypeError) and (match := re.search(r"unexpected keyword argument '(\w+)'", said)):
        return f"no key {key}.{match[1]}: {target} does not take it; ~{key}.{match[1]} leaves it out"
    if isinstance(cause, TypeError) and "missing" in said:
        function = " (a plain function also needs corruption._partial_=true)" if key == "corruption" else ""
        return f"{key}: {target} {said.partition('() ')[2] or said}{function}"
    return f"{key} ({target}): {type(cause).__name__}: {said} ({_place(cause)})"


def _place(error: BaseException) -> str:
    """The last line of the user's own code on the way to an error."""
    lines = traceback.extract_tb(error.__traceback__)
    packages = (str(Path(__file__).parent), sys.prefix, str(Path(os.__file__).parent))
    own = [line for line in lines if not line.filename.startswith((*packages, "<"))]
    place = f"{own[-1].filename}, line {own[-1].lineno}; " if own else ""
    return f"{place}HYDRA_FULL_ERROR=1 shows {'all' if own else 'where'}"


def _own_name(key: str) -> str:
    """What the data and the model hold of other groups is known by its own name."""
    return re.sub(r"^(data|model)\.(?=(corruption|network|optimizer|scheduler)\b)", "", key)


def _why_not_found(target: str) -> str:
    """Which part of a dotted name is missing, and what its place holds that looks like it."""
    module, _, name = target.rpartition(".")
    try:
        options = [option for option in vars(importlib.import_module(module)) if option[0] != "_"]
    except (ImportError, ValueError) as error:
        return f"{error}; the current directory and PYTHONPATH are searched"
    except Exception as error:  # of the user's own module
        return f"importing {module} failed: {type(error).__name__}: {error}"
    matches = difflib.get_close_matches(name, options, n=1)
    return f"{module} has no {name}" + (f": did you mean '{matches[0]}'?" if matches else "")


def choices(group: str) -> list[str]:
    """The files of a group of conf/, by name."""
    from autoencoders.config import CONF

    return sorted(path.stem for path in (CONF / group).glob("*.yaml")) if group else ["train"]


def _of_another(key: str) -> str | None:
    """Which other choices of its group have the key."""
    from autoencoders.config import CONF

    group, _, name = key.partition(".")
    has = re.compile(rf"^{re.escape(name)}:", re.MULTILINE)
    known = [
        f"{group}={choice}"
        for choice in choices(group)
        if has.search((CONF / group / f"{choice}.yaml").read_text("utf-8"))
    ]
    return f"{' and '.join(known)} ha{'s' if len(known) == 1 else 've'} it" if known else None


def habit(key: str) -> str | None:
    """The word for a key of other templates."""
    from autoencoders.overrides import HABITS

    return HABITS.get(key)


def _instead(group: str, name: str) -> str:
    from autoencoders.overrides import INSTEAD

    instead = INSTEAD.get(f"{group}={name}")
    return f". {instead}" if instead else ""


def _file_being_read(chain: list[BaseException]) -> str | None:
    """The config file in which reading failed: Hydra's loader knows its name, the error doesn't."""
    for link in chain:
        trace = link.__traceback__
        while trace is not None:
            if (path := trace.tb_frame.f_locals.get("full_path")) is not None:
                return str(path)
            trace = trace.tb_next
    return None


def _raised_in(error: BaseException) -> str:
    """The package that raised it: Hydra meets some mistakes in overrides with errors of Python's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
