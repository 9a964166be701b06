"""The claims of the models' papers: their runs compose, and the table says what was measured."""

import json

import pytest
from conftest import Compose

from autoencoders import claims, config

CONTENT = claims.content()


@pytest.mark.parametrize("name", CONTENT["runs"])
def test_every_run_composes_and_is_claimed_something_of(name: str, composed: Compose) -> None:
    run = CONTENT["runs"][name]
    composed(*run["command"].split(), *run.get("evaluate", "").split())
    assert any(name in claim["runs"] for claim in CONTENT["claims"].values())


def test_claims_are_of_runs_and_say_what_would_hold() -> None:
    for claim in CONTENT["claims"].values():
        assert set(claim["runs"]) <= set(CONTENT["runs"])
        assert claim["says"]
        assert claim["source"]
        for wanted in claim["metrics"].values():
            claims.verdict(wanted, [[1.0], [2.0]])


@pytest.mark.parametrize(
    ("wanted", "values", "said"),
    [
        ("rises", [[1.0, 1.2], [2.0, 2.2]], "holds"),
        ("rises", [[1.0, 3.0], [2.0, 3.0]], "within the spread"),
        ("rises", [[2.0], [1.0], [3.0]], "does not hold"),
        ("falls", [[3.0], [2.0], [1.0]], "holds"),
        ("is at least 0.97", [[0.5], [0.98]], "holds"),
        ("is at least 0.97", [[0.98], [0.5]], "does not hold"),
        ("within 3 %", [[1.0, 1.1], [9.0], [1.0, 1.15]], "holds"),
        ("within 3 %", [[1.0], [0.96]], "does not hold"),
        ("shown", [[1.0]], ""),
        ("rises", [[1.0], []], ""),
    ],
)
def test_verdicts(wanted: str, values: list[list[float]], said: str) -> None:
    assert claims.verdict(wanted, values) == said


def test_the_table_has_a_cell_a_run() -> None:
    of = {"says": "it is better", "source": "me", "runs": ["a", "b"], "metrics": {"g/model/m": "rises"}}
    measured = {
        "a": {"0": {"g/model/m": 1.0, "seconds": 2.0}, "1": {"g/model/m": 3.0}},
        "b": {"0": {"g/model/m": 9.0}},
    }
    (line,) = claims.table({"x": of}, measured).splitlines()[2:]
    assert line == "| it is better<br><sub>me</sub> | g m | a: 2 ± 1.4<br>b: 9 (one seed) | holds |"
    assert claims.table({"x": of}, {"a": measured["a"]}).splitlines()[2:] == []


def test_the_page_has_the_table_of_what_was_measured() -> None:
    measured = json.loads(claims.MEASURED.read_text())
    page = (config.REPOSITORY / "docs" / "models.md").read_text()
    assert f"{claims.START}\n{claims.table(CONTENT['claims'], measured)}\n{claims.END}" in page
