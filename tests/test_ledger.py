"""The ledger of published results: its entries can be run, and its verdicts and table are right."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from conftest import Compose

from autoencoders import claims, config, errors, ledger, measured, training
from autoencoders.measured import Measurement


@pytest.mark.parametrize("name", ledger.entries())
def test_every_entry_can_be_run(name: str, composed: Compose) -> None:
    entry = ledger.entries()[name]
    for command in ledger.runs_of(entry)[0][:2]:  # of ten digits two
        cfg = composed(*command.split())
        training.build_model(cfg, training.build_data(cfg))
        training.build_data(composed(*command.split(), *entry.get("evaluate", "").split()))
    optional = {"differs", "each", "evaluate", "missed", "readme", "seeds", "start", "timed", "trials"}
    assert set(entry) - optional == {
        "title", "published", "source", "seen", "protocol", "better", "tolerance", "command", "value",
        "times", "quick",
    }  # fmt: skip
    assert entry["better"] in ("lower", "higher")
    if "trials" in entry:
        assert mean(entry["trials"]) == pytest.approx(entry["published"], abs=5e-4)


def test_values_are_found_and_judged() -> None:
    entry: dict[str, Any] = {"value": "reconstruction/PCA 30/mse", "times": 100, "published": 13.87}
    runs = [Measurement({"reconstruction": {"PCA 30": {"mse": mse}}}, seconds=1.5) for mse in (0.02, 0.04)]
    assert ledger.result_of(entry, runs) == {"value": pytest.approx(3), "seconds": 3.0}
    runs = [
        run._replace(intervals={"reconstruction": {"PCA 30": {"mse": [low, low + 0.02]}}})
        for run, low in zip(runs, (0.01, 0.03), strict=True)
    ]
    assert ledger.result_of(entry, runs)["interval"] == pytest.approx([2, 4])
    assert ledger.result_of(entry, [run._replace(gpu="H100") for run in runs])["gpu"] == "H100"
    with pytest.raises(ValueError, match="has no reconstruction/PCA 16/mse"):
        ledger.result_of({**entry, "title": "a", "value": "reconstruction/PCA 16/mse"}, runs)
    lower = {**entry, "better": "lower", "tolerance": 0.01}
    assert ledger.reached(lower, 14.0) is True
    assert ledger.reached(lower, 14.1) is False
    assert ledger.reached({**entry, "better": "higher", "tolerance": 0}, 13.8) is False
    assert ledger.reached({**entry, "published": None}, 1.0) is None


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments of the processes that were started, which do nothing."""
    known: list[list[str]] = []

    def process(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        known.append(arguments[1:])
        if arguments[1] == "evaluate.py":
            run = Path(arguments[2].removeprefix("run=").strip("'"))
            folder = run / "evaluation"
            folder.mkdir(parents=True)
            (run / "environment.json").write_text('{"machine": {"gpus": ["H100", "H100"]}}')
            (folder / "groups.json").write_text('{"g": {"model": {"m": 2}}}')
            (folder / "groups_intervals.json").write_text('{"g": {"model": {"m": [1, 3]}}}')
        return subprocess.CompletedProcess(arguments, int("model=bad" in arguments))

    monkeypatch.setattr(subprocess, "run", process)
    return known


def test_an_entry_begins_with_the_run_of_another(tmp_path: Path, called: list[list[str]]) -> None:
    first = {"command": "model=autoencoder", "value": "g/model/m"}
    both = {"a": first, "b": {"command": "model=dec", "value": "g/model/m", "start": "a"}}
    (alone,), (after,) = (ledger.measure_entry(both, name, 0, tmp_path / "my runs") for name in both)
    trained = [words for words in called if words[0] == "train.py"]
    assert [words[1] for words in trained] == ["model=autoencoder", "model=dec"]
    assert f"init='{tmp_path}/my runs/a-0/0/run'" in trained[1]
    assert after.seconds > alone.seconds


def test_what_was_measured_is_not_measured_again(tmp_path: Path, called: list[list[str]]) -> None:
    """... unless something else is asked for; and what fails does not stop the others."""
    for _ in range(2):
        done = measured.measure("model=vae", "", ["g"], 0, tmp_path / "a")
        assert (done.value("g/model/m"), done.value("g/model/n")) == (2.0, None)
        assert (done.interval("g/model/m"), done.interval("g/PCA 2/m")) == ((1.0, 3.0), None)
        assert done.gpu == "H100"
    assert [words[0] for words in called] == ["train.py", "evaluate.py"]
    measured.measure("model=vae", "x=1", ["g"], 0, tmp_path / "a")
    assert len(called) == 4
    todo = {
        name: partial(measured.measure, f"model={name}", "", ["g"], 0, tmp_path / name)
        for name in ("bad", "good")
    }
    results = dict(measured.side_by_side(todo, 1))
    assert results["bad"] is None
    assert results["good"] is not None


def test_ctrl_c_is_one_line_and_starts_no_other_run(tmp_path: Path) -> None:
    """... of those that wait, and the one in progress comes to its end, as it is told too."""
    script = """
import signal, sys, time
from functools import partial
from pathlib import Path
from autoencoders.errors import one_line_errors
from autoencoders.measured import side_by_side
def run(name):
    Path(name).touch()
    time.sleep(0.5)
    Path(f"{name} ended").touch()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
with one_line_errors():
    list(side_by_side({name: partial(run, name) for name in ("first", "second")}, 1))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "first").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert (process.returncode, err) == (130, "\ninterrupted; the same command continues\n")
    assert {path.name for path in tmp_path.iterdir()} == {"first", "first ended"}


def test_ctrl_c_is_one_line_in_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors.one_line_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("linear --seeds -1", "seed=-1 must be ≥ 0 and ≤ 4294967295"),
        ("linear --seeds 1.5", "seed=1.5 must be a whole number"),
        ("linear seeds=0", "seeds=0 is no entry: options are written as --seeds 0 1"),
        ("linear --jobs 0", "jobs=0 must be ≥ 1"),
        ("liner", "no entry liner: did you mean 'linear'? There are: best_code16, "),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    arguments: str, message: str, called: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        ledger.main(arguments.split())
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert called == []


def test_the_folder_of_the_runs_is_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """... though train.py is started in the repository."""
    monkeypatch.chdir(tmp_path)
    asked = list[Any]()

    def side_by_side(todo: dict[Any, Any], jobs: int) -> list[Any]:
        asked.extend(todo.values())
        return []

    monkeypatch.setattr(ledger, "side_by_side", side_by_side)
    monkeypatch.setattr(ledger, "replace_between", lambda *arguments: None)
    ledger.main(["linear", "--seeds", "0", "--out", "my runs"])
    (measure,) = asked
    assert measure.args[-1] == tmp_path / "my runs"


def test_a_misspelt_claim_is_refused_likewise(capsys: pytest.CaptureFixture[str]) -> None:
    name = next(iter(claims.content()["claims"]))
    with pytest.raises(SystemExit):
        claims.main([f"{name}x"])
    assert f"did you mean '{name}'? There are: " in capsys.readouterr().err


def test_the_command_says_what_it_measured_and_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    names = {"MEASURED": "docs/ledger.json", "RESULTS": "docs/results.md", "README": "README.md"}
    for name, path in names.items():
        monkeypatch.setattr(ledger, name, tmp_path / path)
    for path in ("docs/results.md", "README.md"):
        (tmp_path / path).write_text(f"{ledger.START}\n{ledger.END}")
    monkeypatch.setattr(ledger, "REPOSITORY", tmp_path)
    of_both = {"model": {"mse": 3 / 784}, "PCA 30": {"mse": 15 / 784}}
    measurement = Measurement({"reconstruction": of_both}, seconds=9.0)
    monkeypatch.setattr(ledger, "measure", lambda *arguments: measurement)
    ledger.main(["deep30", "--seeds", "5"])  # whose run answers another entry too
    assert capsys.readouterr().out.splitlines() == [
        "pca30, seed 5: 15 (published 13.87): missed by 8.1%",
        "deep30, seed 5: 3 (published 3): reached",
        "written: docs/ledger.json, docs/results.md, README.md",
    ]
    assert set(json.loads((tmp_path / "docs" / "ledger.json").read_text())) == {"pca30", "deep30"}
    assert "`deep30`" in (tmp_path / "docs" / "results.md").read_text()
    ledger.main(["--seeds"])
    assert capsys.readouterr().out == "written: docs/results.md, README.md\n"


def test_what_was_interrupted_is_continued(
    tmp_path: Path, called: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """... in its training, whose seconds add up, and before its evaluation."""
    run, working = tmp_path / "a" / "run", subprocess.run

    def stopped(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        (run / "checkpoints").mkdir(parents=True)
        (last := run / "checkpoints" / "last.ckpt").touch()
        os.utime(last, (time.time() + 100, time.time() + 100))
        raise KeyboardInterrupt

    def measure() -> Measurement:
        return measured.measure("model=vae", "", ["g"], 0, tmp_path / "a")

    monkeypatch.setattr(subprocess, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        measure()
    monkeypatch.setattr(subprocess, "run", working)
    done = measure()
    assert called[0] == ["train.py", f"resume='{run}'"]
    assert done.seconds == pytest.approx(100, abs=5)
    kept = tmp_path / "a" / "measured.json"
    known = json.loads(kept.read_text())
    del known["scores"]
    kept.write_text(json.dumps(known))
    shutil.rmtree(run / "evaluation")
    assert measure() == done
    assert [words[0] for words in called] == ["train.py", "evaluate.py", "evaluate.py"]


MEASURED: ledger.Measured = {
    "deep30": {"0": {"value": 3.3, "seconds": 9.0}},
    "code2": {
        "0": {"value": 0.03, "seconds": 60.0, "interval": [0.02, 0.04]},
        "1": {"value": 0.04, "seconds": 50.0},
        "2": {"value": 0.035, "seconds": 5.0, "gpu": "H100"},
    },
    "linear": {"0": {"value": 0.026, "seconds": 9.0, "gpu": "H100"}},
}


def test_the_table_says_how_far_off_we_are() -> None:
    code2, linear, deep30 = ledger.table(MEASURED).splitlines()[2:]
    assert (
        "| 0.0392 | **0.035** ± 0.005 (3 seeds) | 0.02 to 0.04 (seed 0) | reached (2 of 3 seeds reach it) "
        "| `experiment=latent_space` | 50 s |" in code2
    )
    assert "<sub>`code2`: `reconstruction/model/mse`<br>" in code2
    assert "<sub>`deep30`: 784 x `reconstruction/model/mse`<br>" in deep30
    assert "on one H100: seed 2<" in code2
    assert "<br>seen: ae_pytorch_demo.ipynb of [roatienza/" in code2
    of_all = {seed: {**result, "interval": [0.02, 0.04]} for seed, result in MEASURED["code2"].items()}
    assert " | 0.02 to 0.04 | " in ledger.table({"code2": of_all})
    assert linear.endswith("| `model=linear` |  |")
    assert "| 3 | **3.3** (one seed) |  | missed by 10.0% |" in deep30
    assert "not seen by us" in deep30
    assert "protocol: test MSE of [0, 1] images" in linear
    assert "ours: SiLU, " in deep30


def test_the_readme_has_the_rows_that_are_marked_for_it_and_the_count_of_all() -> None:
    code2, deep30, _, count = ledger.short_table(MEASURED).splitlines()[2:]
    assert (
        code2 == "| autoencoder, MNIST, code of 2 | 0.0392 | **0.035** ± 0.005 (3 seeds) "
        "| reached (2 of 3 seeds reach it) | 50 s |"
    )
    assert "missed by 10.0%" in deep30
    assert count.startswith("2 of 3 results are reached, 2 of them against numbers that we have checked: ")
    assert ledger.entries()["denoising"]["seen"] is None
    unseen = {**MEASURED, "denoising": {"0": {"value": 0.01, "seconds": 9.0}}}
    assert "3 of 4 results are reached, 2 of them against" in ledger.short_table(unseen)


def test_seeds_are_compared_with_published_trials() -> None:
    entry = ledger.entries()["kmeans_accuracy"]  # 0.807 to 0.921, mean 0.879
    near = {str(i): {"value": value - 0.01, "seconds": 9.0} for i, value in enumerate(entry["trials"])}
    far = {str(i): {"value": 0.5 + i / 100, "seconds": 9.0} for i in range(5)}
    few = {"0": far["0"]}
    row = ledger.table({"kmeans_accuracy": near}).splitlines()[-1]
    assert " | missed by 1.1%, within chance (" in row
    assert "published trials 0.807 to 0.921, our seeds 0.797 to 0.911 (Mann-Whitney p = 0." in row
    # all five are below all ten: 2 of the 15! / (10! 5!) orders are as far apart
    assert ledger.by_chance(entry, far) == pytest.approx(2 / 3003)
    assert "(Mann-Whitney p = 0.00067)" in ledger.table({"kmeans_accuracy": far})
    assert ledger.by_chance(entry, few) is None
    assert ledger.by_chance(ledger.entries()["code2"], far) is None
    for results, more in ((near, True), (far, False), (few, False)):
        count = ledger.short_table({**MEASURED, "kmeans_accuracy": results}).splitlines()[-1]
        assert ("checked; 1 more are within chance of published trials: " in count) == more


def test_a_row_for_comparison_is_neither_reached_nor_missed() -> None:
    beside = {**MEASURED, "long_code2": {"0": {"value": 0.03, "seconds": 9.0}}}
    row = next(line for line in ledger.table(beside).splitlines() if "`long_code2`" in line)
    assert " |  | **0.03** (one seed) |  |  | `experiment=latent_space trainer.max_epochs=400` | 9 s |" in row
    assert "not seen by us" not in row
    assert "2 of 3 results are reached" in ledger.short_table(beside)


def test_the_commands_of_the_table_may_be_pasted_into_a_shell() -> None:
    """zsh takes [...] for the name of a file."""
    for name, entry in ledger.entries().items():
        table = ledger.table({name: {"0": {"value": 1.0, "seconds": 9.0}}})
        command = table.splitlines()[-1].split(" | ")[-2].partition("`")[2].partition("`")[0]
        assert not any("[" in word and "'" not in word for word in command.split())
        assert shlex.split(command) == ledger.runs_of(entry)[0][0].split()


def test_the_pages_have_the_tables_of_what_was_measured() -> None:
    measured = json.loads((config.REPOSITORY / "docs" / "ledger.json").read_text())
    for page, table in {"docs/results.md": ledger.table, "README.md": ledger.short_table}.items():
        text = (config.REPOSITORY / page).read_text()
        assert f"{ledger.START}\n{table(measured)}\n{ledger.END}" in text
