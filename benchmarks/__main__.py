"""python -m benchmarks [name ...] [--quick]: measures, and writes results.json and the tables of
docs/speed.md and the README."""

import argparse
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from autoencoders import hardware, training
from autoencoders.config import REPOSITORY
from autoencoders.files import replace_between, write_json
from benchmarks.measuring import THREADS

NAMES = (
    "step", "data", "textbook", "quality", "startup", "sweep", "evaluation", "memory", "scaling", "devices",
    "gpu",
)  # fmt: skip
RESULTS = Path(__file__).with_name("results.json")
README_ROWS = {  # what is measured, and the beginning of what it is compared with
    "training step: MNIST, model=autoencoder": "a bare",
    "training, same network (conv) and batch (128)": "the textbook pipeline:",
    "time to a test error of 0.0161: denoising MNIST, code of 16": "30 epochs",
    "`train.py --help`": "",
    "a full evaluation and its report, MNIST": "one epoch",
    "training in two processes, MNIST": "one process",
}
START, END = "<!-- speed: made by `make bench` -->", "<!-- end of speed -->"


def machine() -> dict[str, str]:
    """What the figures depend on."""
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    packages = " ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "hydra-core", "numpy"))
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        **gpu,
        "cpu": f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores",
        "threads": str(THREADS),
        "versions": f"Python {platform.python_version()}, {packages}",
        "date": date.today().isoformat(),
    }


def table(results: Mapping[str, Any], short: bool = False) -> str:
    """The rows of all benchmarks that were run, in their order.

    Args:
        short: only those of `README_ROWS`.
    """
    lines = ["| | ours | against | | goal |", "|---|---|---|---|---|"]
    for name in NAMES:
        for row in results.get(name, {}).get("rows", []):
            ours, note = row["ours"], f"<br><sub>{row['note']}</sub>" if row["note"] else ""
            if short:
                if not row["against"].startswith(README_ROWS.get(row["what"], "\0")):
                    continue
                ours, note = ours.partition(" (`")[0], ""  # without the command
            goal, mark = "", ""
            if row["goal"]:
                goal = f"{row['goal'][0]} {row['goal'][1]:g}"
                mark = " ✓" if row["reached"] else " **missed**"
            lines.append(
                f"| {row['what']}{note} | {ours} | {row['against']} | {row['figure']:.3g}{mark} | {goal} |"
            )
    machines = dict[str, list[str]]()
    for name in NAMES:
        if name in results:
            machines.setdefault(_machine(results[name]["machine"]), []).append(f"`{name}`")
    whose = [f"{', '.join(names)}: {values}" for values, names in machines.items()]
    return "\n".join([*lines, "", f"<sub>{'<br>'.join(whose if len(whose) > 1 else machines)}</sub>"])


def _machine(values: Mapping[str, str]) -> str:
    return "; ".join(f"{value} threads" if key == "threads" else value for key, value in values.items())


def write_tables(results: Mapping[str, Any]) -> None:
    replace_between(REPOSITORY / "docs" / "speed.md", START, END, table(results))
    replace_between(REPOSITORY / "README.md", START, END, table(results, short=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES))
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few repeats and short runs, to see whether they run: nothing is written",
    )
    parser.add_argument(
        "--tables", action="store_true", help="measure nothing: write the tables from results.json"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    if chosen.tables:
        write_tables(json.loads(RESULTS.read_text()))
        return
    torch.set_num_threads(THREADS)
    training.quiet()
    hardware.prepare()
    print("\n".join(f"{key:9} {value}" for key, value in machine().items()), flush=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() and not chosen.quick else {}
    for name in chosen.names or NAMES:
        if name == "gpu" and not torch.cuda.is_available():
            continue  # what was measured on another machine stays
        measured = []
        for row in import_module(f"benchmarks.{name}").rows(chosen.quick):
            measured.append({**asdict(row), "reached": row.reached})
            print(f"{row.what}: {row.ours}; {row.against} → {row.figure:.3g} {row.goal or ''}", flush=True)
        results[name] = {"machine": machine(), "rows": measured}
        if not chosen.quick:
            write_json(RESULTS, results)
    if not chosen.quick:
        write_tables(results)
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
