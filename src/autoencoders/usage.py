"""`train.py --help`: the groups with their choices, and the keys that are changed most."""

import re
import shutil
import textwrap
from pathlib import Path

from autoencoders.config import CONF, REPOSITORY

GROUPS = (
    "model", "data", "corruption", "network", "optimizer", "scheduler", "trainer", "callbacks", "logger",
    "debug", "experiment", "sweeps",
)  # fmt: skip
KEYS = {
    "model.code_dim=2": "the dimension of the code",
    "trainer.max_epochs=20": "or any other argument of lightning.Trainer",
    "trainer.devices=2": "GPUs, or processes on CPU cores",
    "data.batch_size=64": "the global batch, split over the devices",
    "optimizer.lr=1e-3": "the peak learning rate",
    "network.hidden=[256,64]": "units per layer from the image to the code; the decoder mirrors them",
    "corruption.std=0.3": "or any other key of the corruption",
    "seed=1": "for the weights, the order of the images and all noise",
    "evaluate=true": "end with an evaluation and its report",
    "hydra.run.dir=runs/mine": "the run folder",
}
OF_A_RUN = {
    "resume=<run or sweep>": "continue where it stopped, bit for bit",
    "rerun=<run>": "repeat the training in a new folder",
    "init=<run or checkpoint>": "start a new run from these weights",
}


def text(width: int | None = None) -> str:
    """The whole help, in lines of at most so many columns; None: the terminal's, up to 100."""
    width = min(100, shutil.get_terminal_size((100, 24)).columns) if width is None else width
    lines = ["Trains an autoencoder: python train.py model=denoising data=mnist trainer.devices=2", ""]
    lines.append("Choose a file of each group by its name; several callbacks or loggers as [a,b]:")
    for group in GROUPS:
        folder = REPOSITORY / group if group == "sweeps" else CONF / group
        names = sorted(path.stem for path in folder.glob("[!_]*.yaml"))
        lines += ["", f"{group}="]
        for name in names:
            lines += _entry(name, _about(folder / f"{name}.yaml"), 20, width)
    lines += ["", "Change any key by its path (--cfg job shows them all):", ""]
    for key, about in KEYS.items():
        lines += _entry(key, about, 26, width)
    lines += ["", "Start from a run:", ""]
    for key, about in OF_A_RUN.items():
        lines += _entry(key, about, 26, width)
    lines += [
        "",
        "Run a job for each combination of values: -m model=vae,linear seed=0,1",
        "",
        "Your own modules, callbacks and config folders: docs/own_code.md",
    ]
    return "\n".join(lines)


def _entry(name: str, about: str, column: int, width: int) -> list[str]:
    """A name and what it is, below which further lines go on."""
    indent = " " * (column + 3)
    return textwrap.wrap(
        f"  {name:{column}} {about}", width, subsequent_indent=indent, break_on_hyphens=False
    )


def _about(path: Path) -> str:
    """The first sentence of a file's first comment."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return re.split(r"(?<=[.?])\s", " ".join(lines))[0].rstrip(".:")
