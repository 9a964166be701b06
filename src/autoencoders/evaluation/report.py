"""report.html: what was trained and how good it is, in one file that needs nothing else."""

import base64
import inspect
import io
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from autoencoders import figures, untrusted
from autoencoders.config import shareable
from autoencoders.evaluation import intervals
from autoencoders.evaluation.subject import Scores, Subject, averaged
from autoencoders.files import atomic_write
from autoencoders.metrics import metric_names

SIDE = 41  # places of the explorer's grid, each way
POINTS = 2000  # test images on its map
LARGEST = 64  # pixels a side of its images: larger ones are averaged


def write(
    run: Path,
    scores: Mapping[str, Scores],
    names: Sequence[str],
    subject: Subject,
    groups: Mapping[str, Callable[..., Any]],
    cfg: DictConfig,
    left_out: str = "",
) -> None:
    """Writes `run/evaluation/report.html` from the scores, the figures, by name, the explorer of a model's
    code, and a sentence on what is left out."""
    folder = run / "evaluation"
    environment = run / "environment.json"
    metrics = run / "metrics.json"
    page = template("report.html").render(
        title=f"{_class(cfg.model)} on {_class(cfg.data)}",
        run=run,
        facts=_facts(cfg, _read(environment), _read(metrics), subject.model.code_dim),
        groups=[
            (name, _explained(groups.get(name)), metric_names(of_group), of_group)
            for name, of_group in scores.items()
        ],
        figures=[
            (name.replace("_", " "), data_uri((folder / "figures" / f"{name}.png").read_bytes()))
            for name in names
        ],
        explorer=explorer(subject) if subject.model.has_code else None,
        left_out=left_out,
        intervals=intervals.EXPLAINED,
        config=OmegaConf.to_yaml(OmegaConf.create(shareable(cfg))),
    )
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(page)


def template(name: str) -> Any:
    """A page's template; every value that is put into it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    environment.filters["number"] = intervals.text
    return environment.get_template(f"{name}.j2")


def explorer(subject: Subject) -> dict[str, Any]:
    """What the page needs to show the decoded image under the pointer: a picture of the decoder over a
    grid of SIDE x SIDE places of a plane of the code, and where some test images are on it.

    The plane is the code itself if it has two numbers; else that of its two main directions through its mean.
    """
    places, project, axes = plane(subject)
    images = torch.cat(
        [averaged(part, (max(part.shape[2:]) / LARGEST) ** 2) for part in subject.decode(places)]
    )
    height, width = images.shape[-2:]
    sprite = Image.fromarray(figures.to_array(images, SIDE, 0))
    sprite = sprite if images.shape[1] == 3 else sprite.convert("L")
    buffer = io.BytesIO()
    sprite.save(buffer, "png", optimize=True)
    at = project(subject.test_codes[:POINTS])
    points = [
        [round(float(x), 4), round(float(y), 4), int(label)]
        for (x, y), label in zip(at, subject.test_labels, strict=False)
    ]
    return {
        "sprite": data_uri(buffer.getvalue()),
        "axes": axes,
        "coloured": bool(subject.data.classes),
        "data": json.dumps(
            {
                "side": SIDE,
                "width": width,
                "height": height,
                "points": points,
                "classes": list(subject.data.classes),
            }
        ),
    }


def plane(subject: Subject) -> tuple[Tensor, Callable[[Any], Any], str]:
    """A grid over a plane of the code, whose lines are quantiles of the test codes: so a region has the more
    room the more images are there.

    Returns:
        The codes (SIDE², D) in the middle of each place, line by line from the top; a map from codes (N, D)
        to (right, down) (N, 2) in [0, 1]; and what the axes are.
    """
    codes, size = subject.test_codes, subject.model.code_dim
    if size == 2:
        origin, basis, axes = np.zeros(2), np.eye(2), "the two numbers of the code"
    else:
        origin, directions, _ = subject.test_directions
        basis = np.zeros((2, size))
        basis[: min(2, size)] = directions[:2]
        axes = "the two directions in which the codes vary most"
    edges = np.quantile((codes - origin) @ basis.T, np.linspace(0.005, 0.995, SIDE + 1), axis=0)
    middles = (edges[1:] + edges[:-1]) / 2
    right, down = np.meshgrid(middles[:, 0], middles[::-1, 1])
    places = origin + np.stack([right.ravel(), down.ravel()], 1) @ basis

    def project(some: Any) -> Any:
        along, levels = (some - origin) @ basis.T, np.linspace(0, 1, SIDE + 1)
        x, y = (np.interp(along[:, axis], edges[:, axis], levels) for axis in (0, 1))
        return np.stack([x, 1 - y], 1)

    return torch.from_numpy(places).float(), project, axes


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _facts(
    cfg: DictConfig, environment: dict[str, Any], metrics: dict[str, Any], code_dim: int = 0
) -> dict[str, str]:
    """What was trained, with what, when and for how long; what is not known is left out."""
    versions, git = environment.get("versions", {}), environment.get("git", {})
    command = environment.get("command", [])
    facts = {
        "model": _class(cfg.model),
        "code": f"{code_dim} numbers" if code_dim else "",
        **{
            part: _class(cfg.get(part))
            for part in ("network", "optimizer", "scheduler", "data", "corruption")
        },
        "seed": str(cfg.seed),
        "trained": f"{metrics.get('epochs', '?')} epochs, {metrics.get('seconds', 0):.0f} s",
        "started": environment.get("started", "?"),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "commit": f"{git.get('commit') or '?'}{' with changes' if git.get('changed') else ''}",
        "command": f"python {shlex.join(command)}" if command else "",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _class(node: Any) -> str:
    """The class that a part of the configuration is made of, and for a network of one's own its modules'."""
    if not isinstance(node, DictConfig):
        return ""
    name = str(node.get("_target_", "")).rpartition(".")[2]
    inner = [_class(node.get(part)) for part in ("encoder", "decoder")]
    return f"{name} ({', '.join(inner)})" if all(inner) else name


def _read(path: Path) -> dict[str, Any]:
    return untrusted.read_json(path) if path.is_file() else {}


def _explained(group: Callable[..., Any] | None) -> str:
    """What a group's metrics are, from its docstring."""
    text = inspect.getdoc(group) or ""
    text = re.split(r"\n\n(?:Args|Returns):", text)[0].replace("`", "")
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)  # a page breaks its lines itself
