"""Published results beside ours: `ledger.yaml` says what was published and which command of ours answers it.

python -m autoencoders.ledger [entry ...] [--quick] [--seeds 0 1 2]: each run is `python train.py ...` in a
process of its own, timed from its start to its end, and an evaluation. What was measured is kept in
docs/ledger.json, and the README's table is made of it. (--seeds without a number only makes the table.)
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from autoencoders.config import REPOSITORY
from autoencoders.files import replace_between, write_json

MEASURED = REPOSITORY / "docs" / "ledger.json"
START, END = "<!-- ledger: made by `make reproduce` -->", "<!-- end of ledger -->"
Measured = dict[str, dict[str, dict[str, float]]]  # entry: seed: {"value": ..., "seconds": ...}


def entries() -> dict[str, dict[str, Any]]:
    """The ledger, by name."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return content


def measure(command: str, evaluate: str, seed: int, folder: Path) -> tuple[dict[str, Any], float]:
    """The scores of one run, and the seconds that its training took as a process."""
    shutil.rmtree(folder, ignore_errors=True)
    arguments = ["train.py", *command.split(), f"seed={seed}", f"hydra.run.dir={folder}"]
    print("python", *arguments, flush=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=True)
    seconds = time.perf_counter() - start
    scorer = [sys.executable, "evaluate.py", f"run={folder}", *evaluate.split()]
    subprocess.run(scorer, cwd=REPOSITORY, check=True)
    scores: dict[str, Any] = json.loads((folder / "evaluation" / "metrics.json").read_text())
    return scores, seconds


def value_of(entry: Mapping[str, Any], scores: Mapping[str, Any]) -> float:
    group, row, metric = entry["value"].split("/")
    return float(scores[group][row][metric]) * entry["times"]


def reached(entry: Mapping[str, Any], ours: float) -> bool | None:
    """Whether ours is as good as what was published, within the tolerance; None where nothing is quoted."""
    if entry["published"] is None:
        return None
    margin = entry["tolerance"] * abs(entry["published"])
    if entry["better"] == "lower":
        return ours <= entry["published"] + margin
    return ours >= entry["published"] - margin


def table(measured: Measured) -> str:
    """The README's table, of the entries that were measured."""
    lines = [
        "| | published | ours | | our command | whole process |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in entries().items():
        if name not in measured:
            continue
        values = [result["value"] for result in measured[name].values()]
        ours = mean(values)
        spread = f" ± {stdev(values):.2g}" if len(values) > 1 else " (one seed)"
        seconds = min(result["seconds"] for result in measured[name].values())  # other work only adds
        quoted = "" if entry["published"] is None else f"{entry['published']:g}"
        mark = {True: "reached", False: f"off by {_gap(entry, ours):.1%}", None: ""}[reached(entry, ours)]
        source = entry["source"] + ("" if entry["seen"] else " (not seen by us in the source)")
        lines.append(
            f"| {entry['title']}<br><sub>{source}</sub> | {quoted} | **{ours:.4g}**{spread} | {mark} "
            f"| `{' '.join(entry['command'].split())}` | {seconds:.0f} s |"
        )
    return "\n".join(lines)


def _gap(entry: Mapping[str, Any], ours: float) -> float:
    return float(abs(ours - entry["published"]) / abs(entry["published"]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ledger = entries()
    parser.add_argument("entries", nargs="*", help=", ".join(ledger), metavar="entry")
    parser.add_argument("--quick", action="store_true", help="only the entries that are marked quick")
    parser.add_argument("--seeds", type=int, nargs="*", default=(0, 1, 2))
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.entries) - set(ledger):
        parser.error(f"no entry {', '.join(sorted(unknown))}: there are {', '.join(ledger)}")
    names = [n for n in chosen.entries or ledger if ledger[n]["quick"] or not chosen.quick]
    runs = {(ledger[n]["command"], ledger[n].get("evaluate", "")): n for n in reversed(names)}
    for (command, evaluate), first in reversed(runs.items()):
        for seed in chosen.seeds:
            scores, seconds = measure(
                command, evaluate, seed, REPOSITORY / "runs" / "ledger" / f"{first}-{seed}"
            )
            measured = _known()  # read now: another process may have added its own
            for name, entry in ledger.items():  # one run may answer several entries
                if (entry["command"], entry.get("evaluate", "")) == (command, evaluate):
                    result = {"value": value_of(entry, scores), "seconds": seconds}
                    measured.setdefault(name, {})[str(seed)] = result
            write_json(MEASURED, measured)
    made = table(_known())
    replace_between(REPOSITORY / "README.md", START, END, made)
    print(f"\n{made}")


def _known() -> Measured:
    measured: Measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    return measured


if __name__ == "__main__":
    main()
