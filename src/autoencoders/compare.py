"""Compares runs on the same test images: python -m autoencoders.compare <run> <run> ... [key=value ...]"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from autoencoders import errors, runs, untrusted
from autoencoders.errors import UserError, suggest
from autoencoders.export import folder as exported
from autoencoders.imports import importing

PROGRAM = ("python", "-m", "autoencoders.compare")
KEYS = {
    "out": "the folder for the page (compared/<time>)",
    "names": "what to call the runs, in their order: small,large (their folders)",
    "groups": "scores to compare (reconstruction), such as reconstruction,features; all runs must have them",
    "beside": "false: leave out the references, such as PCA and filters, some of which are slow",
    "trust": "true: the runs may use classes of your own",
}
GROUPS = ("reconstruction", "clustering", "features", "likelihood", "colorization")  # means over test images
EXAMPLE = "runs/denoising/2026-01-31_12-00-00 runs/autoencoder/2026-01-31_12-30-00"


@dataclass
class Options:
    """What is to be compared, and on which images."""

    runs: list[Path]
    out: Path
    names: list[str] = field(default_factory=list)  # none: of the folders
    groups: list[str] = field(default_factory=lambda: ["reconstruction"])
    beside: bool = True
    trust: list[str] = field(default_factory=list)  # the word, if it was said
    overrides: list[str] = field(default_factory=list)  # of the first run's data and corruption
    command: str = ""  # that does it again, into a new folder


def parse(words: Sequence[str]) -> Options:
    """
    Raises:
        UserError: a word is neither a run's folder nor key=value, a run is named twice, there are fewer than
            two, they are not told apart by the names given, or there is no such group of scores.
    """
    options, given = Options([], Path("compared") / runs.started()), dict[str, str]()
    for word in words:
        key, equals, value = word.partition("=")
        group = key.lstrip("+~").partition(".")[0]
        if (folder := Path(word)).is_dir():
            if same := [run for run in options.runs if run.samefile(folder)]:
                other_path = "" if same[0] == folder else f", the second time as {folder}"
                raise UserError(f"{same[0]} is named twice{other_path}: name each run folder once")
            options.runs.append(folder)
        elif not equals or "/" in key:
            raise UserError(f"no run folder {word}")
        elif key in KEYS:
            given[key] = value
        elif group in ("data", "corruption", "figures", "evaluation"):
            options.overrides.append(word)
        elif group in untrusted.top_level_keys():
            raise UserError(f"{word}: of a run that is trained, only data and corruption can be changed")
        else:
            raise UserError(f"no key {key}: {suggest(key, KEYS)}")
    if len(options.runs) < 2:
        for folder in options.runs:
            read_config(folder, trust=True, trusting="")  # it may be none of a run
        there = f"there is only {options.runs[0]}: " if options.runs else ""
        raise UserError(f"{there}name at least two run folders: {' '.join(PROGRAM)} {EXAMPLE}")
    for key in ("out", "names", "groups"):
        if given.get(key) == "":
            raise UserError(f"{key}= has no value")
    for key in ("beside", "trust"):
        if given.get(key, "true").lower() not in ("true", "false"):
            raise UserError(f"{key}={given[key]} must be true or false")
    options.out = Path(given["out"]) if "out" in given else options.out
    nearest = next(path for path in (options.out, *options.out.parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"out={options.out} must be a folder")
    if options.out.is_dir() and any(options.out.iterdir()):
        raise UserError(f"out={options.out} is not empty: choose a new folder")
    options.names = [name.strip() for name in given["names"].split(",")] if "names" in given else []
    if "names" in given and not len({*options.names} - {""}) == len(options.names) == len(options.runs):
        raise UserError(
            f"names={given['names']} must be {len(options.runs)} different names, one for each run"
        )
    options.groups = list(dict.fromkeys(given.get("groups", "reconstruction").split(",")))
    for group in options.groups:
        if group.replace("_", " ") not in GROUPS:
            raise UserError(
                f"groups={group}: only scores that are means over the test images can be compared: "
                f"{suggest(group, GROUPS)}"
            )
    options.beside = given.get("beside", "true").lower() == "true"
    said = [word for word in words if not word.startswith("out=")]
    whole = (Path(w).absolute() if Path(w) in options.runs else w for w in said)  # to work from anywhere
    options.command = runs.to_paste(*PROGRAM, *whole)
    options.trust = [f"trust={given['trust']}"] if "trust" in given else []
    return options


def read_config(folder: Path, trust: bool, trusting: str) -> DictConfig:
    """That of a run or of an exported folder."""
    if not exported.is_exported(folder):
        return runs.read_evaluated(folder, trust, trusting)
    config = exported.read_config(folder, trust, trusting)
    config.trust = trust
    return config


def usage() -> str:
    """What --help shows."""
    width = max(map(len, KEYS)) + 1
    return "\n".join(
        [
            *(__doc__ or "").splitlines(),
            "",
            "The runs, or exported folders, are tested on the same corrupted images: the first run's, unless",
            "keys of data and corruption change them. Scores, and their differences from the first run's,",
            "have 95 % intervals.",
            "",
            *(f"  {key + '=':{width}}  {about}" for key, about in KEYS.items()),
            "",
            "More: docs/evaluation.md",
        ]
    )


def main(words: list[str]) -> None:
    if {"--help", "-h"} & set(words):
        print(usage())
        return
    options = parse(words)

    def config(run: Path, *overrides: str) -> DictConfig:
        said = [f"run={run}", *options.trust, *overrides]
        return runs.compose_evaluated(said, program=PROGRAM, words=words, read=read_config)[1]

    configs = [config(run) for run in options.runs]
    of_data = config(options.runs[0], *options.overrides)
    with importing():  # torch and lightning: only for runs that are there
        from autoencoders.evaluation import comparison
    comparison.compare(options, configs, of_data)


if __name__ == "__main__":
    sys.path.append(str(Path.cwd()))  # for the user's own modules; at the end, so that it shadows nothing
    with errors.one_line_errors():
        main(sys.argv[1:])
