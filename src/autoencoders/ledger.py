"""Published results next to ours: `ledger.yaml` has what was published, and the command that measures ours.

python -m autoencoders.ledger [entry ...] [--quick] [--seeds 0 1 2] [--jobs 1] [--out <folder>]: each run is
`python train.py ...` in its own process, timed from start to end, and an evaluation. Measurements are kept in
docs/ledger.json, from which the tables of docs/results.md and the README are written. (--seeds without a
number only writes them.) Finished runs in the folder, runs/ledger, are not repeated, and an interrupted one
continues from its last checkpoint; remove the folder to measure again.
"""

import argparse
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml
from scipy.stats import mannwhitneyu
from tqdm import tqdm

from autoencoders.config import REPOSITORY, need_clone
from autoencoders.errors import one_line_errors, suggest
from autoencoders.files import replace_between, write_json
from autoencoders.measured import (
    Measurement,
    folder_argument,
    jobs_argument,
    measure,
    seed_argument,
    side_by_side,
)

MEASURED = REPOSITORY / "docs" / "ledger.json"
RESULTS, README = REPOSITORY / "docs" / "results.md", REPOSITORY / "README.md"
START, END = "<!-- ledger: made by `make reproduce` -->", "<!-- end of ledger -->"
SEEDS = 3  # of an entry that does not say how many
FEW, LEVEL = 5, 0.05  # seeds below which chance is not told; the level at which a difference is beyond it
# seed: {"value": ..., "seconds": ..., "interval": [low, high], "gpu": ...}, the last two where there is one
Results = Mapping[str, Mapping[str, Any]]
Measured = dict[str, dict[str, dict[str, Any]]]  # entry: results


def entries() -> dict[str, dict[str, Any]]:
    """The ledger, by name."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(
        Path(__file__).with_suffix(".yaml").read_text("utf-8")
    )
    return content


def runs_of(entry: Mapping[str, Any]) -> tuple[list[str], str]:
    """The overrides of each of its runs, and those of their evaluations."""
    commands = [" ".join(f"{entry['command']} {more}".split()) for more in entry.get("each", [""])]
    return commands, entry.get("evaluate", "")


def result_of(entry: Mapping[str, Any], measurements: Sequence[Measurement]) -> dict[str, Any]:
    """What the ledger keeps of the runs of one seed: means over them, and the seconds of all. The mean of the
    intervals of several is an interval of their mean, and wider than need be.

    Raises:
        ValueError: there is no such value.
    """
    name, times = entry["value"], entry["times"]
    values, intervals = [m.value(name) for m in measurements], [m.interval(name) for m in measurements]
    if None in values:
        raise ValueError(f"{entry['title']}: the evaluation has no {name}")
    result = {
        "value": times * mean(value for value in values if value is not None),
        "seconds": sum(measurement.seconds for measurement in measurements),
    }
    if None not in intervals:
        result["interval"] = [times * mean(ends) for ends in zip(*filter(None, intervals), strict=True)]
    if gpu := next((m.gpu for m in measurements if m.gpu), None):
        result["gpu"] = gpu
    return result


def reached(entry: Mapping[str, Any], ours: float) -> bool | None:
    """Whether ours is as good as what was published, within the tolerance; None where nothing is quoted."""
    if entry["published"] is None:
        return None
    margin = entry["tolerance"] * abs(entry["published"])
    if entry["better"] == "lower":
        return ours <= entry["published"] + margin
    return ours >= entry["published"] - margin


def by_chance(entry: Mapping[str, Any], results: Results) -> float | None:
    """How probable a difference like that between our seeds and the published trials is by chance alone (the
    two-sided p-value of Mann & Whitney 1947); None where single trials are not published, or seeds are few.
    """
    if "trials" not in entry or len(results) < FEW:
        return None
    return float(mannwhitneyu(_values(results), entry["trials"]).pvalue)


def _within_chance(entry: Mapping[str, Any], results: Results) -> bool:
    return (by_chance(entry, results) or 0) > LEVEL


def table(measured: Measured) -> str:
    """All entries that were measured, each with its source and protocol: the table of docs/results.md."""
    lines = ["| | published | ours | 95 % | | our command | time |", "|---|---|---|---|---|---|---|"]
    for name, entry in _shown(measured).items():
        factor = "" if entry["times"] == 1 else f"{entry['times']:g} x "
        notes = [
            f"`{name}`: {factor}`{entry['value']}`",
            entry["source"] + ("" if entry["seen"] else " (not seen by us in the source)"),
            *([f"seen: {entry['seen']}"] if entry["seen"] and entry["published"] is not None else []),
            f"protocol: {entry['protocol']}",
            *([f"ours: {entry['differs']}"] if "differs" in entry else []),
            *_trials(entry, measured[name]),
            *([f"why missed: {entry['missed']}"] if "missed" in entry else []),
            *([f"time: {entry['timed']}"] if "timed" in entry else []),
            *_on_gpus(measured[name]),
        ]
        said = _said(entry)
        if "each" in entry:
            said += f" {shlex.quote(entry['each'][0])}` … `{shlex.quote(entry['each'][-1])}"
        if "start" in entry:
            said += f"`, which begins with the weights of `{_said(entries()[entry['start']])}"
        if "evaluate" in entry:
            said += f"`, scored with `{entry['evaluate']}"
        lines.append(
            f"| {entry['title']}<br><sub>{'<br>'.join(notes)}</sub> | {_quoted(entry)} "
            f"| {_mean(measured[name])} | {_interval(measured[name])} | {_verdict(entry, measured[name])} "
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
            cells = (
                entry["title"],
                _quoted(entry),
                _mean(results),
                _verdict(entry, results),
                _seconds(results),
            )
            lines.append(f"| {' | '.join(cells)} |")
    published = {name: entry for name, entry in shown.items() if entry["published"] is not None}
    good = [name for name, entry in published.items() if reached(entry, _ours(measured[name]))]
    checked = sum(bool(shown[name]["seen"]) for name in good)
    near = sum(_within_chance(entry, measured[n]) for n, entry in published.items() if n not in good)
    lines += [
        "",
        f"{len(good)} of {len(published)} results are reached, {checked} of them against numbers that we have"
        f" checked{f'; {near} more are within chance of published trials' if near else ''}: "
        "[all of them](docs/results.md).",
    ]
    return "\n".join(lines)


def _said(entry: Mapping[str, Any]) -> str:
    """Its command, as one may paste it into a shell: zsh takes [...] for the name of a file."""
    return " ".join(shlex.quote(word) for word in entry["command"].split())


def _shown(measured: Measured) -> dict[str, dict[str, Any]]:
    return {name: entry for name, entry in entries().items() if name in measured}


def _quoted(entry: Mapping[str, Any]) -> str:
    return "" if entry["published"] is None else f"{entry['published']:g}"


def _mean(results: Results) -> str:
    values = _values(results)
    spread = f" ± {stdev(values):.2g} ({len(values)} seeds)" if len(values) > 1 else " (one seed)"
    return f"**{mean(values):.4g}**{spread}"


def _interval(results: Results) -> str:
    """The mean of those of the seeds, which are named where not all have one."""
    found = {seed: result["interval"] for seed, result in results.items() if "interval" in result}
    ends = " to ".join(f"{mean(ends):.4g}" for ends in zip(*found.values(), strict=True))
    return f"{ends} ({_seeds(found)})" if 0 < len(found) < len(results) else ends


def _seeds(seeds: Iterable[str]) -> str:
    named = sorted(seeds, key=int)
    return f"seed{'s' * (len(named) > 1)} {', '.join(named)}"


def _verdict(entry: Mapping[str, Any], results: Results) -> str:
    ours = _ours(results)
    if (good := reached(entry, ours)) is None:
        return ""
    off = abs(ours - entry["published"]) / abs(entry["published"])
    verdict = "reached" if good else f"missed by {off:.1%}"
    count = sum(bool(reached(entry, result["value"])) for result in results.values())
    if not good and _within_chance(entry, results):
        verdict += ", within chance"
    some = f" ({count} of {len(results)} seeds reach it)" if 0 < count < len(results) else ""
    return verdict + some


def _trials(entry: Mapping[str, Any], results: Results) -> Iterator[str]:
    """The published trials beside our seeds."""
    if (p := by_chance(entry, results)) is not None:
        both = entry["trials"], _values(results)
        ranges = [f"{min(values):.3g} to {max(values):.3g}" for values in both]
        yield f"published trials {ranges[0]}, our seeds {ranges[1]} (Mann-Whitney p = {p:.2g})"


def line(name: str, entry: Mapping[str, Any], seed: int, result: Mapping[str, Any]) -> str:
    """What one seed of an entry came to."""
    said = f"{name}, seed {seed}: {result['value']:.4g}"
    if entry["published"] is None:
        return said
    return f"{said} (published {_quoted(entry)}): {_verdict(entry, {str(seed): result})}"


def _ours(results: Results) -> float:
    return mean(_values(results))


def _values(results: Results) -> list[float]:
    return [result["value"] for result in results.values()]


def _seconds(results: Results) -> str:
    on_cpu = [result["seconds"] for result in results.values() if "gpu" not in result]
    return f"{min(on_cpu):.0f} s" if on_cpu else ""  # the fastest: other work only adds


def _on_gpus(results: Results) -> Iterator[str]:
    """Which seeds were trained on a GPU."""
    for gpu in sorted({result["gpu"] for result in results.values() if "gpu" in result}):
        yield f"on one {gpu}: {_seeds(seed for seed in results if results[seed].get('gpu') == gpu)}"


def answered(ledger: Mapping[str, Mapping[str, Any]], first: str) -> list[str]:
    """The entries that are answered by the same run as this one."""
    return [name for name, entry in ledger.items() if _same_run(entry, ledger[first])]


def _same_run(entry: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return runs_of(entry) == runs_of(other) and entry.get("start") == other.get("start")


def measure_entry(
    ledger: Mapping[str, Mapping[str, Any]], first: str, seed: int, out: Path
) -> list[Measurement]:
    """Its runs, one after the other, in folders of `out`."""
    metrics = [ledger[name]["value"] for name in answered(ledger, first)]
    commands, evaluate = runs_of(ledger[first])
    before, init = 0.0, None
    if start := ledger[first].get("start"):
        (begun,) = measure_entry(ledger, start, seed, out)
        before, init = begun.seconds, _folder(out, start, seed, 0) / "run"
    measurements = (
        measure(command, evaluate, metrics, seed, _folder(out, first, seed, i), init)
        for i, command in enumerate(commands)
    )
    return [measured._replace(seconds=before + measured.seconds) for measured in measurements]


def _folder(out: Path, entry: str, seed: int, run: int) -> Path:
    return out / f"{entry}-{seed}" / str(run)


def main(arguments: Sequence[str] | None = None) -> None:
    need_clone("reproducing published results")
    parser = argparse.ArgumentParser(
        prog="python -m autoencoders.ledger",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    ledger = entries()
    parser.add_argument("entries", nargs="*", help=", ".join(ledger), metavar="entry")
    parser.add_argument("--quick", action="store_true", help="only the entries marked quick")
    parser.add_argument(
        "--seeds",
        type=seed_argument,
        nargs="*",
        help=f"default: 0 to {SEEDS - 1}, or as many as the entry says",
    )
    parser.add_argument(
        "--jobs", type=jobs_argument, default=1, help="runs side by side, which distorts their times"
    )
    parser.add_argument(
        "--out",
        type=folder_argument,
        default=REPOSITORY / "runs" / "ledger",
        help="folder of the runs; the tables are written in any case",
    )
    chosen = parser.parse_args(arguments)
    if equals := [name for name in chosen.entries if "=" in name]:
        parser.error(f"{equals[0]} is no entry: options are written as --seeds 0 1 --jobs 2")
    if unknown := [name for name in chosen.entries if name not in ledger]:
        parser.error(f"no entry {unknown[0]}: {suggest(unknown[0], ledger, listed=len(ledger))}")
    names = [n for n in chosen.entries or ledger if ledger[n]["quick"] or not chosen.quick]
    firsts = [
        name
        for i, name in enumerate(names)
        if not any(_same_run(ledger[name], ledger[other]) for other in names[:i])
    ]  # one run may answer several entries
    pairs = [
        (first, seed)
        for first in firsts
        for seed in (range(ledger[first].get("seeds", SEEDS)) if chosen.seeds is None else chosen.seeds)
    ]
    todo = {
        (first, seed): partial(measure_entry, ledger, first, seed, chosen.out)
        for first, seed in sorted(pairs, key=itemgetter(1))  # all entries' first seeds first
    }
    failed, written = False, [RESULTS, README]
    for (first, seed), results in side_by_side(todo, chosen.jobs):
        if results is None:
            failed = True
            continue
        measured = _known()  # read now: another process may have added its own
        for name in answered(ledger, first):
            result = measured.setdefault(name, {})[str(seed)] = result_of(ledger[name], results)
            tqdm.write(line(name, ledger[name], seed, result))
        write_json(MEASURED, measured)
        written = [MEASURED, RESULTS, README]
    measured = _known()
    replace_between(RESULTS, START, END, table(measured))
    replace_between(README, START, END, short_table(measured))
    print("written:", ", ".join(str(path.relative_to(REPOSITORY)) for path in written))
    if failed:
        raise SystemExit(1)


def _known() -> Measured:
    measured: Measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    return measured


if __name__ == "__main__":
    with one_line_errors():
        main()
