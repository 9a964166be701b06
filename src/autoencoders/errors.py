"""Mistakes of the user's: one clear line, exit code 1, no traceback."""

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Whether the user asked for tracebacks, kept for the processes that this one starts: `one_line_errors` sets
# the variable for Hydra.
FULL_ERRORS = os.environ.setdefault("AUTOENCODERS_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0")) == "1"
# Where what looks like a secret stands in a text: before the @ of a URL, and after the name of a key.
SECRETS = re.compile(r"(://)[^\s/]+(?=@)|((?:token|secret|passw(?:or)?d|api_?key)=)[^\s&'\"]+", re.IGNORECASE)
LONGEST = 1000  # letters of a line
# Where a job of a sweep leaves the reason of its failure.
ERROR_FILE = "AUTOENCODERS_ERROR_FILE"


class UserError(Exception):
    """Something that the user can put right; the message says what was wrong and what would be right."""


def near(name: str, options: Iterable[object]) -> str:
    """The options as a hint: those that look like `name` first asked for, or else all of them.

    >>> near("denoisin", ["linear", "denoising", "vae"])
    "did you mean 'denoising'? There are: denoising, linear, vae"
    """
    options = sorted(str(option) for option in options if not str(option).startswith("_"))
    matches = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    question = f"did you mean '{matches[0]}'? " if matches else ""
    return f"{question}There are: {', '.join(options)}"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns what a user can cause into one line on stderr and exit code 1.

    What `explain` can't explain keeps its traceback; HYDRA_FULL_ERROR=1 shows every one. Of the processes of
    a run only the first speaks.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, where it would print and exit by itself
    try:
        yield
    except Exception as error:
        line = explain(error)
        if is_main_process() and ERROR_FILE in os.environ:
            path = Path(os.environ[ERROR_FILE])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((line or one_line(f"{type(error).__name__}: {error}")) + "\n")
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
    """The text without W&B's key, passwords in URLs and what follows `token=` and its like.

    >>> redacted("https://me:hidden@host/path?token=abc&page=2")
    'https://***@host/path?token=***&page=2'
    """
    key = os.environ.get("WANDB_API_KEY", "")
    return SECRETS.sub(r"\1\2***", text.replace(key, "***") if len(key) >= 8 else text)


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
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for link in chain:
        if isinstance(link, UserError):
            return str(link)
        if isinstance(link, MissingConfigException) and link.missing_cfg_file and link.options:
            group, _, name = link.missing_cfg_file.rpartition("/")
            return f"no {group}={name}: {near(name, link.options)}"
        if isinstance(link, ConfigKeyError | ConfigAttributeError) and link.parent_node is not None:
            options = [key for key in link.parent_node if key != "hydra"]
            return f"no key {link.full_key or link.key}: {near(str(link.key), options)}"
        if type(link).__name__ == "MisconfigurationException":  # Lightning's, not imported yet
            return str(link)
        if isinstance(link, ValueError) and "Config group override must be a string" in str(link):
            return "a group can't be null: choose one of its files, as model=vae, or say nothing of it"
        if isinstance(link, OSError) and link.errno is not None and link.filename:
            return f"{link.filename2 or link.filename}: {link.strerror}"
    for link in chain:
        if isinstance(link, HydraException | OmegaConfBaseException) or _raised_in(link) == "hydra":
            return " ".join(line.strip() for line in str(link).splitlines() if "hydra.cc" not in line)
        if isinstance(link, OSError):
            return str(link)
    return None


def _raised_in(error: BaseException) -> str:
    """The package that raised it: Hydra meets some mistakes in overrides with errors of Python's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
