"""`train.py --help`: the groups with their choices, and the keys that are changed most."""

import re
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


def text() -> str:
    lines = ["Trains an autoencoder: python train.py model=denoising data=mnist trainer.devices=2", ""]
    lines.append("Choose a file from each group by its name; several callbacks or loggers as [a,b]:")
    for group in GROUPS:
        folder = REPOSITORY / group if group == "sweeps" else CONF / group
        names = sorted(path.stem for path in folder.glob("[!_]*.yaml"))
        lines += ["", f"{group}="]
        lines += [f"  {name:20} {_about(folder / f'{name}.yaml')}".rstrip() for name in names]
    lines += ["", "Change any key by its path (--cfg job shows them all):", ""]
    lines += [f"  {key:26} {about}" for key, about in KEYS.items()]
    lines += ["", "Start from a run:", ""]
    lines += [
        "  resume=<run or sweep>      continue where it stopped, bit for bit",
        "  rerun=<run>                repeat the training in a new folder",
        "  init=<run or checkpoint>   start a new run from these weights",
        "",
        "Run a job for each combination of values: -m model=vae,linear seed=0,1",
        "",
        "Your own modules, callbacks and config folders: docs/own_code.md",
    ]
    return "\n".join(lines)


def _about(path: Path) -> str:
    """The first sentence of a file's first comment."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return re.split(r"(?<=[.?])\s", " ".join(lines))[0].rstrip(".:")
