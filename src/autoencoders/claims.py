"""Measures what the models' papers claim: each variant against its plain baseline, with the same network,
data and budget. `claims.yaml` has the runs and the claims.

python -m autoencoders.claims [claim ...] [--seeds 0 1 2] [--jobs 1] [--out <folder>]: each run trains
and evaluates the groups that its claims need, in separate processes. Measurements are kept in
docs/claims.json, from which the table of docs/models.md is written; runs that are in it are not repeated.
(--seeds without a number only writes the table.)
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from autoencoders.config import REPOSITORY, need_clone
from autoencoders.errors import one_line_errors, suggest
from autoencoders.files import replace_between, write_json
from autoencoders.measured import folder_argument, jobs_argument, measure, seed_argument, side_by_side

MEASURED = REPOSITORY / "docs" / "claims.json"
START, END = "<!-- claims: made by `python -m autoencoders.claims` -->", "<!-- end of claims -->"
Measured = dict[str, dict[str, dict[str, float]]]  # run: seed: metric ("<group>/<row>/<metric>"): value


def content() -> dict[str, Any]:
    """`runs` and `claims`, by name."""
    loaded: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    return loaded


def metrics_of(name: str, claims: Mapping[str, Any]) -> list[str]:
    """The metrics that claims compare of a run."""
    used = [claim["metrics"] for claim in claims.values() if name in claim["runs"]]
    return sorted({metric for metrics in used for metric in metrics})


def slug(name: str, seed: int) -> str:
    """A run's name and seed as a folder's."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{name} {seed}")


def table(claims: Mapping[str, Any], measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Of all claims whose runs were measured: a line for each metric, a cell for each run."""
    lines = ["| claim | metric | measured, mean ± standard deviation | |", "|---|---|---|---|"]
    for claim in claims.values():
        if not all(measured.get(name) for name in claim["runs"]):
            continue
        said = f"{claim['says']}<br><sub>{claim['source']}</sub>"
        for metric, wanted in claim["metrics"].items():
            values = {name: _values(measured[name], metric) for name in claim["runs"]}
            cells = "<br>".join(f"{name}: {_shown(some)}" for name, some in values.items() if some)
            short = metric.replace("/model/", " ")
            lines.append(f"| {said} | {short} | {cells} | {verdict(wanted, [*values.values()])} |")
            said = ""
        if "note" in claim:
            lines.append(f"| <sub>{claim['note']}</sub> | | | |")
    return "\n".join(lines)


def verdict(wanted: str, values: Sequence[Sequence[float]]) -> str:
    """Whether the means rise or fall from run to run as claimed ("rises", "falls"), the first being the plain
    rival, and by more than the seeds' standard deviation; "is at least 0.97": whether the last one's mean is;
    "within 3 %": whether it is so near to the first's; "shown": nothing is claimed."""
    means = [mean(some) for some in values if some]
    pairs = list(pairwise(means))
    kind, _, bound = wanted.partition(" at least ")
    percent = re.fullmatch(r"within ([\d.]+) %", wanted)
    if wanted == "shown" or len(means) < len(values):
        return ""
    if percent:
        return "holds" if abs(means[-1] / means[0] - 1) <= float(percent[1]) / 100 else "does not hold"
    if bound:
        holds = means[-1] >= float(bound)
    elif kind == "rises":
        holds = all(a < b for a, b in pairs)
    elif kind == "falls":
        holds = all(a > b for a, b in pairs)
    else:
        raise ValueError(
            f"{wanted!r} must be rises, falls, within <number> %, shown, or is at least <number>"
        )
    spread = max(stdev(some) if len(some) > 1 else 0.0 for some in values)
    if holds and not bound and min(abs(a - b) for a, b in pairs) < spread:
        return "within the spread"
    return "holds" if holds else "does not hold"


def _values(seeds: Mapping[str, Mapping[str, float]], metric: str) -> list[float]:
    return [scores[metric] for scores in seeds.values() if metric in scores]


def _shown(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.2g}" if len(values) > 1 else " (one seed)"
    return f"{mean(values):.4g}{spread}"


def known() -> Measured:
    measured: Measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    return measured


def main(arguments: Sequence[str] | None = None) -> None:
    need_clone("measuring claims")
    loaded = content()
    runs, claims = loaded["runs"], loaded["claims"]
    parser = argparse.ArgumentParser(
        prog="python -m autoencoders.claims",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("claims", nargs="*", help=", ".join(claims), metavar="claim")
    parser.add_argument("--seeds", type=seed_argument, nargs="*", default=(0, 1, 2))
    parser.add_argument("--jobs", type=jobs_argument, default=1, help="runs side by side")
    parser.add_argument(
        "--out", type=folder_argument, default=REPOSITORY / "runs" / "claims", help="folder of the runs"
    )
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.claims if name not in claims]:
        parser.error(f"no claim {unknown[0]}: {suggest(unknown[0], claims, listed=len(claims))}")
    some = {name: claims[name] for name in chosen.claims or claims}
    names = dict.fromkeys(name for claim in some.values() for name in claim["runs"])
    measured, failed = known(), False
    todo = {
        (name, seed): partial(
            measure,
            runs[name]["command"],
            runs[name].get("evaluate", ""),
            metrics_of(name, claims),
            seed,
            chosen.out / slug(name, seed),
        )
        for seed in chosen.seeds
        for name in names
        if str(seed) not in measured.get(name, {})
    }
    for (name, seed), result in side_by_side(todo, chosen.jobs):
        if result is None:
            failed = True
            continue
        values = {metric: result.value(metric) for metric in metrics_of(name, claims)}
        found = {metric: value for metric, value in values.items() if value is not None}
        measured = known()  # read now: another process may have added its own
        measured.setdefault(name, {})[str(seed)] = {"seconds": result.seconds, **found}
        write_json(MEASURED, measured)
    replace_between(REPOSITORY / "docs" / "models.md", START, END, table(claims, measured))
    print(table(some, measured))
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    with one_line_errors():
        main()
