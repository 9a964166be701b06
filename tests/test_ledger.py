"""The ledger of published results: its entries can be run, and its verdicts and table are right."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Compose

from autoencoders import config, ledger


@pytest.mark.parametrize("name", ledger.entries())
def test_every_entry_can_be_run(name: str, composed: Compose) -> None:
    entry = ledger.entries()[name]
    config.check(composed(*entry["command"].split(), *entry.get("evaluate", "").split()))
    assert set(entry) - {"differs", "evaluate"} == {
        "title", "published", "source", "seen", "protocol", "better", "tolerance", "command", "value",
        "times", "quick",
    }  # fmt: skip
    assert entry["better"] in ("lower", "higher")


def test_values_are_found_and_judged() -> None:
    entry: dict[str, Any] = {"value": "reconstruction/PCA 30/mse", "times": 784, "published": 13.87}
    scores = {"reconstruction": {"PCA 30": {"mse": 0.02}}}
    assert ledger.value_of(entry, scores) == pytest.approx(15.68)
    lower = {**entry, "better": "lower", "tolerance": 0.01}
    assert ledger.reached(lower, 14.0) is True
    assert ledger.reached(lower, 14.1) is False
    assert ledger.reached({**entry, "better": "higher", "tolerance": 0}, 13.8) is False
    assert ledger.reached({**entry, "published": None}, 1.0) is None


def test_the_table_says_how_far_off_we_are() -> None:
    measured = {
        "deep30": {"0": {"value": 3.3, "seconds": 9.0}},
        "code2": {"0": {"value": 0.03, "seconds": 60.0}, "1": {"value": 0.04, "seconds": 50.0}},
    }
    code2, deep30 = ledger.table(measured).splitlines()[2:]
    assert "| 0.0392 | **0.035** ± 0.0071 | reached | `experiment=latent_space` | 50 s |" in code2
    assert "| 3 | **3.3** (one seed) | off by 10.0% |" in deep30
    assert "not seen by us" in deep30


def test_the_readme_has_the_table_of_what_was_measured() -> None:
    measured = json.loads((config.REPOSITORY / "docs" / "ledger.json").read_text())
    readme = Path(config.REPOSITORY / "README.md").read_text()
    assert f"{ledger.START}\n{ledger.table(measured)}\n{ledger.END}" in readme
