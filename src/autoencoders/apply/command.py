"""The words of `python -m autoencoders.apply`; imports neither torch nor lightning."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from autoencoders import checks, untrusted
from autoencoders.errors import UserError, suggest

PROGRAM = ("python", "-m", "autoencoders.apply")
KEYS = {  # what each is about, and the tasks that it belongs to; none: all
    "run": ("a run folder, or an exported one", ""),
    "images": ("an image, a folder or a glob: 'scans/**/*.png'", "restore codes similar anomalies traverse"),
    "out": ("the folder for the results (applied/<the run's name>)", "restore similar walk traverse"),
    "trust": ("true: the run may use classes of your own", ""),
    "corrupt": ("true: corrupt the images first, as the run does", "restore codes similar anomalies"),
    "side_by_side": ("true: also write sheets, input | output", "restore"),
    "overlap": ("overlap of the tiles, 0.25 to 0.9 (0.5)", "restore"),
    "batch": ("tiles at a time (256)", "restore"),
    "codes": ("write the images' codes to this .npz or .parquet", "codes similar"),
    "similar": ("show the images whose codes are nearest to this image's", "codes similar"),
    "neighbours": ("how many (10)", "similar"),
    "anomalies": ("rank the images by their error, in this .csv", "anomalies"),
    "false_alarms": ("fraction of normal images that may be flagged (0.05, or more if need be)", "anomalies"),
    "normal": ("the subfolder of normal images, for ROC and PR", "anomalies"),
    "walk": ("a,b,...: an animation from image to image", "walk"),
    "traverse": ("true: an animation along each principal direction of the code", "traverse"),
    "steps": ("frames from one image, or end, to the next (20)", "walk traverse"),
    "format": ("gif or mp4 (gif)", "walk traverse"),
}  # fmt: skip
TASKS = ("codes", "similar", "anomalies", "walk", "traverse")  # asked for by their keys; else it is restore


@dataclass
class Options:
    """What is to be done with which pictures."""

    run: str = ""
    images: str = ""
    out: str = ""
    corrupt: bool = False
    side_by_side: bool = False
    overlap: float = 0.5
    batch: int = 256
    codes: str = ""
    similar: str = ""
    neighbours: int = 10
    anomalies: str = ""
    false_alarms: float | None = None  # 0.05, or the least that the validation images allow
    normal: str = ""
    walk: str = ""
    traverse: bool = False
    steps: int = 20
    format: str = "gif"
    overrides: list[str] = field(default_factory=list)  # of the run's config
    trainer: list[str] = field(default_factory=list)  # of the Trainer's arguments

    @property
    def task(self) -> str:
        return next((task for task in TASKS if getattr(self, task)), "restore")

    @property
    def folder(self) -> Path:
        """The one that results go to."""
        return Path(self.out or Path("applied") / Path(self.run).resolve().name)


def parse(words: Sequence[str]) -> Options:
    """
    Raises:
        UserError: a word is not key=value, or a key or value is none.
    """
    options, given = Options(), dict[str, str]()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or word.startswith("-"):
            raise UserError(f"{word} is not key=value; --help shows the keys")
        group = key.lstrip("+~").partition(".")[0]
        if key == "trust":
            options.overrides.append(word)
        elif key in KEYS:
            given[key] = value
        elif group == "trainer":
            options.trainer.append(word)
        elif group in untrusted.top_level_keys():
            options.overrides.append(word)
        else:
            raise UserError(f"no key {key}: {suggest(key, KEYS)}")
    hints = get_type_hints(Options)
    for key, value in given.items():
        kind, *_ = get_args(hints[key]) or (hints[key],)
        setattr(options, key, _value(key, value, kind))
    _check(options, given)
    return options


def _value(key: str, text: str, kind: type) -> Any:
    if kind is str:
        if not text:
            raise UserError(f"{key}= has no value")
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{key}={text} must be true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{key}={text} must be {'a whole number' if kind is int else 'a number'}") from None


def _check(options: Options, given: dict[str, str]) -> None:
    asked = [task for task in TASKS if getattr(options, task)]
    if len(asked) > 1 and asked != ["codes", "similar"]:
        raise UserError(f"{asked[0]}= and {asked[1]}= are two tasks: one at a time")
    if not options.run:
        example = "runs/denoising/2026-01-31_12-00-00"
        raise UserError(f"name one run folder: {' '.join(PROGRAM)} run={example} images=pictures")
    for key in given:
        tasks = KEYS[key][1].split()
        if tasks and not {*(asked or ["restore"])} & {*tasks}:
            said = [f"{task}=" if task in TASKS else "restored pictures" for task in (*tasks, options.task)]
            raise UserError(f"{key}= is for {' or '.join(said[:-1])}, not for {said[-1]}")
    if not options.images and options.task not in ("walk", "traverse"):
        raise UserError("name the pictures: images=<a picture, a folder or a glob>")
    checks.number("overlap", options.overlap, 0.25, 0.9)
    checks.integer("batch", options.batch, 1, 10**6)
    checks.integer("neighbours", options.neighbours, 1, 1000)
    checks.integer("steps", options.steps, 2, 1000)
    if options.false_alarms is not None:
        checks.number("false_alarms", options.false_alarms, above=0, below=1)
    checks.choice("format", options.format, ("gif", "mp4"))
    for key, endings in (("codes", (".npz", ".parquet")), ("anomalies", (".csv",))):
        if (value := given.get(key)) and not value.endswith(endings):
            raise UserError(f"{key}={value} must end in {' or '.join(endings)}")
        if value and not Path(value).parent.is_dir():
            raise UserError(f"{key}={value}: there is no folder {Path(value).parent}")


def usage() -> str:
    """What --help shows."""
    width = max(map(len, KEYS)) + 1
    lines = [
        "Applies a trained model to your images: "
        + " ".join(PROGRAM)
        + " run=<run> images=<folder> out=<folder>",
        "",
        "Denoises, colorizes, fills in or reconstructs them at their own size, unless codes=, similar=,",
        "anomalies=, walk= or traverse= asks for something else:",
        "",
        *(f"  {key + '=':{width}}  {about}" for key, (about, _) in KEYS.items()),
        "",
        "Keys of the run's data and corruption, and trainer keys such as trainer.devices=2, also work.",
        "More: docs/apply.md",
    ]
    return "\n".join(lines)
