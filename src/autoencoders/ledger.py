"""Published results beside ours: `ledger.yaml` has what was published, and the command that measures ours.

python -m autoencoders.ledger [entry ...] [--quick] [--seeds 0 1 2] [--jobs 1] [--out <folder>]: each run is
`python train.py ...` in a process of its own, timed from start to end, and an evaluation. What was measured
is kept in docs/ledger.json, from which the tables of docs/results.md and the README are written. (--seeds
without a number only writes them.) Runs that are finished in the folder, runs/ledger, are not done again, so
one may interrupt it; remove the folder to measure anew.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from autoencoders.config import REPOSITORY, need_clone
from autoencoders.errors import one_line_errors
from autoencoders.files import replace_between, write_json
from autoencoders.measured import Measurement, measure, side_by_side

MEASURED = REPOSITORY / "docs" / "ledger.json"
START, END = "<!-- ledger: made by `make reproduce` -->", "<!-- end of ledger -->"
Measured = dict[str, dict[str, dict[str, float]]]  # entry: seed: {"value": ..., "seconds": ...}


def entries() -> dict[str, dict[str, Any]]:
    """The ledger, by name."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return content


def runs_of(entry: Mapping[str, Any]) -> tuple[list[str], str]:
    """The overrides of each of its runs, and those of their evaluations."""
    commands = [" ".join(f"{entry['command']} {more}".split()) for more in entry.get("each", [""])]
    return commands, entry.get("evaluate", "")


def value_of(entry: Mapping[str, Any], measurement: Measurement) -> float:
    """Raises ValueError where there is none."""
    value = measurement.value(entry["value"])
    if value is None:
        raise ValueError(f"{entry['title']}: the evaluation has no {entry['value']}")
    return value * entry["times"]


def reached(entry: Mapping[str, Any], ours: float) -> bool | None:
    """Whether ours is as good as what was published, within the tolerance; None where nothing is quoted."""
    if entry["published"] is None:
        return None
    margin = entry["tolerance"] * abs(entry["published"])
    if entry["better"] == "lower":
        return ours <= entry["published"] + margin
    return ours >= entry["published"] - margin


def table(measured: Measured) -> str:
    """All entries that were measured, each with its source and protocol: the table of docs/results.md."""
    lines = ["| | published | ours | | our command | time |", "|---|---|---|---|---|---|"]
    for name, entry in _shown(measured).items():
        notes = [
            entry["source"] + ("" if entry["seen"] else " (not seen by us in the source)"),
            f"protocol: {entry['protocol']}",
            *([f"ours: {entry['differs']}"] if "differs" in entry else []),
        ]
        said = " ".join(entry["command"].split())
        if "each" in entry:
            said += f" {entry['each'][0]}` … `{entry['each'][-1]}"
        if "evaluate" in entry:
            said += f"`, scored with `{entry['evaluate']}"
        lines.append(
            f"| {entry['title']}<br><sub>{'<br>'.join(notes)}</sub> | {_scores(entry, measured[name])} "
            f"| `{said}` | {_seconds(measured[name])} |"
        )
    return "\n".join(lines)


def short_table(measured: Measured) -> str:
    """The entries that are marked for the README, and how many of all are reached."""
    shown = _shown(measured)
    lines = ["| | published | ours | | time |", "|---|---|---|---|---|"]
    for name, entry in shown.items():
        if entry.get("readme"):
            results = measured[name]
            lines.append(f"| {entry['title']} | {_scores(entry, results)} | {_seconds(results)} |")
    count = sum(bool(reached(entry, _ours(measured[name]))) for name, entry in shown.items())
    lines += ["", f"{count} of {len(shown)} results are reached: [all of them](docs/results.md)."]
    return "\n".join(lines)


def _shown(measured: Measured) -> dict[str, dict[str, Any]]:
    return {name: entry for name, entry in entries().items() if name in measured}


def _scores(entry: Mapping[str, Any], results: Mapping[str, Mapping[str, float]]) -> str:
    """The cells "published | ours | verdict"."""
    ours, values = _ours(results), [result["value"] for result in results.values()]
    spread = f" ± {stdev(values):.2g}" if len(values) > 1 else " (one seed)"
    quoted = "" if entry["published"] is None else f"{entry['published']:g}"
    verdict = {True: "reached", False: "missed", None: ""}[reached(entry, ours)]
    if verdict == "missed":
        verdict += f" by {abs(ours - entry['published']) / abs(entry['published']):.1%}"
    return f"{quoted} | **{ours:.4g}**{spread} | {verdict}"


def _ours(results: Mapping[str, Mapping[str, float]]) -> float:
    return mean(result["value"] for result in results.values())


def _seconds(results: Mapping[str, Mapping[str, float]]) -> str:
    return f"{min(result['seconds'] for result in results.values()):.0f} s"  # other work only adds


def answered(ledger: Mapping[str, Mapping[str, Any]], first: str) -> list[str]:
    """The entries that are answered by the same run as this one."""
    return [name for name, entry in ledger.items() if runs_of(entry) == runs_of(ledger[first])]


def measure_entry(
    ledger: Mapping[str, Mapping[str, Any]], first: str, seed: int, folder: Path
) -> list[Measurement]:
    """Its runs, one after the other."""
    metrics = [ledger[name]["value"] for name in answered(ledger, first)]
    commands, evaluate = runs_of(ledger[first])
    return [measure(command, evaluate, metrics, seed, folder / str(i)) for i, command in enumerate(commands)]


def main(arguments: Sequence[str] | None = None) -> None:
    need_clone("reproducing published results")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ledger = entries()
    parser.add_argument("entries", nargs="*", help=", ".join(ledger), metavar="entry")
    parser.add_argument("--quick", action="store_true", help="only the entries marked quick")
    parser.add_argument("--seeds", type=int, nargs="*", default=(0, 1, 2))
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, which falsifies their times")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "ledger", help="folder of the runs")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.entries) - set(ledger):
        parser.error(f"no entry {', '.join(sorted(unknown))}: there are {', '.join(ledger)}")
    names = [n for n in chosen.entries or ledger if ledger[n]["quick"] or not chosen.quick]
    firsts = [
        name
        for i, name in enumerate(names)
        if not any(runs_of(ledger[name]) == runs_of(ledger[other]) for other in names[:i])
    ]  # one run may answer several entries
    todo = {
        (first, seed): partial(measure_entry, ledger, first, seed, chosen.out / f"{first}-{seed}")
        for seed in chosen.seeds
        for first in firsts
    }
    failed = False
    for (first, seed), results in side_by_side(todo, chosen.jobs):
        if results is None:
            failed = True
            continue
        measured = _known()  # read now: another process may have added its own
        for name in answered(ledger, first):
            value = mean(value_of(ledger[name], result) for result in results)
            seconds = sum(result.seconds for result in results)
            measured.setdefault(name, {})[str(seed)] = {"value": value, "seconds": seconds}
        write_json(MEASURED, measured)
    measured = _known()
    replace_between(REPOSITORY / "docs" / "results.md", START, END, table(measured))
    replace_between(REPOSITORY / "README.md", START, END, short_table(measured))
    print(f"\n{table(measured)}")
    if failed:
        raise SystemExit(1)


def _known() -> Measured:
    measured: Measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    return measured


if __name__ == "__main__":
    with one_line_errors():
        main()
