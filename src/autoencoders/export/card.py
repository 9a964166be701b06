"""README.md of an exported folder: a model card, with the metadata that the Hugging Face hub reads."""

import inspect
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader

from autoencoders.config import class_name, shareable
from autoencoders.corruption import Identity
from autoencoders.data import ImageDataModule
from autoencoders.errors import one_line
from autoencoders.export.checking import ERROR_TOLERANCE, TOLERANCE, TRAINING_TOLERANCE, Checked
from autoencoders.export.record import Record
from autoencoders.metrics import metric_names
from autoencoders.models.base import is_unchanged
from autoencoders.trained import TrainedRun

NAME = "README.md"
HUB = {  # what the hub calls the data sets of this project
    "MNIST": "ylecun/mnist",
    "NoisyMNIST": "ylecun/mnist",
    "FashionMNIST": "zalando-datasets/fashion_mnist",
    "CIFAR10": "uoft-cs/cifar10",
    "GrayCIFAR10": "uoft-cs/cifar10",
}
INNER = ("network", "optimizer", "scheduler", "corruption")  # parts that have a line of their own


def text(
    name: str,
    trained: TrainedRun,
    data: ImageDataModule,
    record: Record,
    checked: Checked,
    digest: str,
    versions: Mapping[str, str],
) -> str:
    """The card of the folder that is called `name`."""
    config, model = shareable(trained.config), trained.model
    kind, of_data = type(model).__name__, type(data).__name__
    corrupts = not isinstance(data.corruption, Identity)
    restores = not is_unchanged(data) or model.input_shape != model.target_shape
    parameters = sum(weight.numel() for weight in model.parameters())
    values = {
        "metadata": yaml.safe_dump(
            metadata(name, kind, of_data, restores, record, checked), sort_keys=False, allow_unicode=True
        ),
        "title": f"{kind} on {of_data}",
        "about": _about(type(model)),
        "facts": {
            "model": f"{described(config['model'])}, {parameters:,} parameters",
            "network": described(config.get("network")),
            "data": f"{of_data}: {_about(type(data))}",
            "corruption": described(config.get("corruption")) if corrupts else "",
        },
        "training": {
            "took": _took(record),
            "optimizer": described(config.get("optimizer")),
            "schedule": described(config.get("scheduler")),
            "seed": str(config.get("seed", "")),
        },
        "shapes": {
            name: (numbers[0], "H", "W") if model.any_size else numbers
            for name, numbers in (("reads", model.input_shape), ("gives", model.target_shape))
        },
        "name": name,
        "download": shlex.join(["hf", "download", f"<user>/{name}", "--local-dir", name]),
        "record": record,
        "checked": checked,
        "whole": [*checked.graphs][-1],
        "tested": {
            key.removeprefix("test/"): value
            for key, value in record.metrics.items()
            if key.startswith("test/")
        },
        "groups": [(group, metric_names(rows), rows) for group, rows in record.scores.items() if rows],
        "model": model,
        "vae": hasattr(model, "posterior"),
        "clips": model.bounded,
        "corrupts": corrupts,
        "tolerance": TOLERANCE,
        "error_tolerance": ERROR_TOLERANCE,
        "training_tolerance": TRAINING_TOLERANCE,
        "digest": digest,
        "versions": versions,
    }
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True)
    environment.filters |= {"caption": caption, "cell": cell, "number": number, "shape": shape}
    rendered = environment.get_template(f"{NAME}.j2").render(values)
    return "\n".join(line.rstrip() for line in rendered.splitlines()) + "\n"


def metadata(
    name: str, kind: str, of_data: str, restores: bool, record: Record, checked: Checked
) -> dict[str, Any]:
    """What the hub reads. No license: that is the owner's to choose."""
    task = "image-to-image" if restores else "image-feature-extraction"
    own = record.scores.get("reconstruction", {}).get("model") or {
        key.removeprefix("test/"): value for key, value in record.metrics.items() if key.startswith("test/")
    }
    metrics = {**own, "mse": checked.mses["onnx"]}
    known = {"datasets": [HUB[of_data]]} if of_data in HUB else {}
    return {
        "library_name": "autoencoders",
        "pipeline_tag": task,
        "tags": [
            "autoencoder",
            kind.removesuffix("Autoencoder").lower() or "undercomplete",
            "onnx",
            "safetensors",
        ],
        **known,
        "metrics": ["mse"],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": task, "name": task.replace("-", " ")},
                        "dataset": {
                            "type": HUB.get(of_data, of_data.lower()),
                            "name": of_data,
                            "split": "test",
                        },
                        "metrics": [
                            {"type": metric, "name": f"test {metric}", "value": float(f"{value:.6g}")}
                            for metric, value in metrics.items()
                            if math.isfinite(value) and not metric.startswith(("mse_", "code_"))
                        ],
                    }
                ],
            }
        ],
    }


def described(node: Any) -> str:
    """A part of a config as a call, without what has a line of its own.

    >>> described({"_target_": "a.Gaussian", "std": 0.5})
    'Gaussian(std=0.5)'
    """
    if isinstance(node, list):
        return f"[{', '.join(map(described, node))}]"
    if isinstance(node, float):
        return f"{node:.6g}"
    if not isinstance(node, dict):
        return "" if node is None else str(node)
    inner = [
        f"{key}={described(value)}"
        for key, value in node.items()
        if not key.startswith("_") and key not in INNER and value is not None
    ]
    return f"{class_name(node)}({', '.join(inner)})"


def cell(value: object) -> str:
    """Any text in one cell of a table, as text."""
    plain = one_line(str(value)).replace("\\", "\\\\")
    for letter in "|`*[]<":
        plain = plain.replace(letter, f"\\{letter}")
    return plain


def caption(name: str) -> str:
    """Of a figure's file or of a group of metrics."""
    return name.removesuffix(".png").replace("_", " ")


def number(value: float) -> str:
    return format(value, ".4g")


def shape(numbers: Any) -> str:
    return ", ".join(map(str, ("N", *numbers)))


def _about(kind: type) -> str:
    """The first paragraph of a class's own docstring, on one line."""
    own = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
    return " ".join(own.partition("\n\n")[0].split())


def _took(record: Record) -> str:
    parts = [
        f"{record.metrics[name]:,.0f} {name}"
        for name in ("steps", "epochs", "seconds")
        if name in record.metrics
    ]
    parts += [f"started {record.started}"] if record.started else []
    return ", ".join(parts)
