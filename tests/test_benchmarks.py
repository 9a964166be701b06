"""The benchmarks' own code: what they say must follow from what they measured."""

import json
from pathlib import Path

import pytest
from benchmarks import __main__ as entry
from benchmarks.measuring import Row, apart, in_turns, python, steady

from autoencoders import config


def test_contenders_are_measured_in_turns_and_the_median_counts() -> None:
    order = []

    def contender(name: str, times: list[float]) -> float:
        order.append(name)
        return times.pop(0)

    first, second = [9.0, 1.0, 2.0], [4.0, 5.0, 60.0]
    took = in_turns(3, a=lambda: contender("a", first), b=lambda: contender("b", second))
    assert took == {"a": 2.0, "b": 5.0}
    assert order == ["a", "b"] * 3


def test_warm_up_is_no_part_of_a_step() -> None:
    assert steady([10.0, 20.0, 21.0, 22.0], warm=2) == 1.0


def test_a_process_is_measured_and_its_failure_is_one() -> None:
    done = python("-c", "import time; hold = bytearray(50 << 20); time.sleep(0.2); print('said')")
    assert done.seconds > 0.2
    assert done.peak > 50
    assert done.output == "said\n"
    with pytest.raises(RuntimeError, match="lost"):
        python("-c", "raise SystemExit('lost')")


def test_what_is_measured_apart_is_free_of_what_this_process_holds() -> None:
    held = b"x" * (300 << 20)
    assert apart("measuring.python('-c', '').peak") < 200 < len(held) >> 20


def test_the_table_says_what_is_missed() -> None:
    rows = [Row("fast", "1 s", "2 s", 2.0, ("≥", 1.5)), Row("slow", "1 s", "1 s", 1.0, ("≥", 1.5))]
    rows.append(Row("small", "1 MiB", "", 1.0, ("≤", 1.0), note="a note"))
    measured = [{**vars(row), "reached": row.reached} for row in rows]
    results = json.loads(
        json.dumps({"step": {"machine": {"cpu": "a CPU", "threads": "2"}, "rows": measured}})
    )
    assert entry.table(results).splitlines()[2:] == [
        "| fast | 1 s | 2 s | 2 ✓ | ≥ 1.5 |",
        "| slow | 1 s | 1 s | 1 **missed** | ≥ 1.5 |",
        "| small<br><sub>a note</sub> | 1 MiB |  | 1 ✓ | ≤ 1 |",
        "",
        "<sub>a CPU; 2 threads</sub>",
    ]
    results["data"] = {"machine": {"cpu": "another"}, "rows": []}
    last = "<sub>`step`: a CPU; 2 threads<br>`data`: another</sub>"
    assert entry.table(results).splitlines()[-1] == last


def test_every_benchmark_has_its_file() -> None:
    folder = Path(entry.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__", "measuring"}
    assert files - {"photos", "stream"} == set(entry.NAMES)  # these two need a run, or chunks


def test_the_pages_have_the_tables_of_what_was_measured() -> None:
    results = json.loads(entry.RESULTS.read_text())
    short = entry.table(results, short=True)
    for page, table in {"docs/speed.md": entry.table(results), "README.md": short}.items():
        assert f"{entry.START}\n{table}\n{entry.END}" in (config.REPOSITORY / page).read_text()
    assert [line.split(" | ")[0][2:] for line in short.splitlines()[2:-2]] == list(entry.README_ROWS)
    assert "**missed**" in short  # one sees them, too
