"""The pages of all runs and of a sweep: what is listed, how it is told, and what a browser does with it."""

import json
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from chromium import seen
from PIL import Image

from autoencoders import index, runs, sweeps
from autoencoders.errors import UserError
from autoencoders.pages import sweep


def make_run(
    folder: Path, *overrides: str, mse: float | None = None, model: str = "VAE", corruption: str = "Identity"
) -> Path:
    """A folder with as much of a run as the pages read."""
    (folder / ".hydra").mkdir(parents=True)
    dim = next((o.partition("=")[2] for o in overrides if o.startswith("model.code_dim=")), "2")
    config = f"model: {{_target_: autoencoders.models.{model}, code_dim: {dim}}}\n"
    config += "data: {_target_: autoencoders.data.MNIST}\n"
    config += f"corruption: {{_target_: autoencoders.corruption.{corruption}}}\n"
    (folder / runs.CONFIG).write_text(config)
    (folder / "config.yaml").write_text(config)
    (folder / runs.OVERRIDES).write_text(json.dumps(overrides))
    Image.fromarray(np.full((8, 32, 3), 128, np.uint8)).save(folder / "thumbnail.png")
    if mse is not None:
        (folder / "metrics.json").write_text(json.dumps({"val/mse": mse, "test/mse": mse, "seconds": 3.0}))
    return folder


def make_sweep(folder: Path) -> Path:
    for number, (size, seed) in enumerate([(2, 0), (2, 1), (16, 0), (16, 1)]):
        make_run(
            folder / str(number), f"model.code_dim={size}", f"seed={seed}", mse=0.1 / size + 0.001 * seed
        )
    make_run(folder / "4", "model.code_dim=32", "seed=0")
    (folder / "multirun.yaml").write_text("hydra: {runtime: {choices: {sweeps: latent_dim}}}\n")
    return folder


# ---- all runs ----------------------------------------------------------------------------------------------


def test_runs_and_sweeps_are_listed_the_newest_first(tmp_path: Path) -> None:
    of_runs, of_sweeps = tmp_path / "my runs", tmp_path / "multirun"
    done = make_run(of_runs / "vae" / "2026-01-31_12-00-00", mse=0.02, corruption="SaltPepper")
    (done / "evaluation").mkdir()
    (done / "evaluation" / "report.html").touch()
    going = make_run(of_runs / "vae" / "2026-02-01_09-30-00")
    (going / "metrics.csv").write_text("step\n")
    (make_run(of_runs / "aae" / "2026-01-30_12-00-00") / "error.txt").write_text("out of memory")
    old = make_run(of_runs / "aae" / "2026-01-29_12-00-00")
    (old / "metrics.csv").write_text("step\n")
    os.utime(old / "metrics.csv", (0, 0))
    sweeps.show(make_sweep(of_sweeps / "2026-02-02_08-00-00"), live=False)

    page, count = index.write([of_runs, of_sweeps])
    assert (page, count) == (of_runs / "index.html", 5)
    entries = [
        index.entry_of(path, of_runs) for folder in (of_runs, of_sweeps) for path in index.found(folder)
    ]
    by_name = {entry.name: entry for entry in entries}
    first = by_name["vae/2026-01-31_12-00-00"]
    assert (first.model, first.code, first.data, first.metric, first.value) == (
        "VAE",
        2,
        "MNIST",
        "test/mse",
        0.02,
    )
    assert (first.corruption, by_name["aae/2026-01-30_12-00-00"].corruption) == ("SaltPepper", "")
    assert (first.date, first.state) == ("2026-01-31 12:00", "finished")
    assert first.link == "vae/2026-01-31_12-00-00/evaluation/report.html"
    assert first.picture == "vae/2026-01-31_12-00-00/thumbnail.png"
    assert by_name["vae/2026-02-01_09-30-00"].state == "running"
    assert by_name["aae/2026-01-30_12-00-00"].state == "failed"
    assert by_name["aae/2026-01-29_12-00-00"].state == "unfinished"
    swept = by_name["../multirun/2026-02-02_08-00-00"]
    assert swept.metric == "test/mse of the best job"
    assert swept.value == pytest.approx(0.1 / 16)
    assert swept.state == "4 of 5 jobs finished"
    assert swept.link == "../multirun/2026-02-02_08-00-00/summary.html"
    assert (of_runs / swept.picture).is_file()
    text = page.read_text()
    assert "<td>MNIST</td><td>Salt Pepper</td><td>finished</td>" in text
    assert text.index("2026-02-02_08") < text.index("2026-02-01_09") < text.index("2026-01-29_12")


def test_a_stranger_s_folder_is_listed_as_text_or_as_unreadable(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    make_run(tmp_path / evil.replace("/", "|"), mse=0.1, model=f"'{evil}'".replace("'", ""))
    (make_run(tmp_path / "damaged") / "metrics.json").write_text("[")
    linked = make_run(tmp_path / "linked", mse=0.1)
    (tmp_path / "outside.png").write_bytes(b"")
    (linked / "thumbnail.png").unlink()
    (linked / "thumbnail.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "damaged")
    page, count = index.write([tmp_path])
    text = page.read_text()
    assert count == 3
    assert evil not in text
    assert "&lt;img src=x" in text
    assert quote(evil) in text
    states = {path.name: index.entry_of(path, tmp_path).state for path in index.found(tmp_path)}
    assert states["damaged"].startswith("unreadable: ")
    assert "leads out of" in states["linked"]
    assert 'src="linked' not in text


def test_a_folder_without_runs_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no runs in"):
        index.write([tmp_path])
    with pytest.raises(UserError, match="no folder"):
        index.write([tmp_path / "none"])
    with pytest.raises(UserError, match="no option --out"):
        index.main(["--out=x"])
    assert list(tmp_path.iterdir()) == []


# ---- a sweep -----------------------------------------------------------------------------------------------


def test_a_sweep_s_page_says_what_was_asked_and_answers(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "latent")
    sweeps.show(folder, live=False)
    page = (folder / "summary.html").read_text()
    assert "How many code dimensions does a digit need?" in page
    assert "5 jobs: 4 finished, 1 unfinished." in page
    assert "model.code_dim (2, 16, 32); seed (0, 1)" in page
    assert "Best is model.code_dim=16: val/mse 0.00675 ± 0.00071 over 2 runs.</strong>" in page
    assert "No other is within chance of it, over seeds." in page
    assert page.count("output of job 0") == 1
    assert 'aspect-ratio: 64 / 8"' in page
    assert "parallel coordinates of 4 jobs over model.code_dim, seed, val/mse" in page
    assert 'http-equiv="refresh"' not in page


def test_a_sweep_of_seeds_alone_says_what_they_come_to(tmp_path: Path) -> None:
    for seed, mse in enumerate((0.1, 0.2)):
        make_run(tmp_path / str(seed), f"seed={seed}", mse=mse)
    sweeps.show(tmp_path, live=False)
    page = (tmp_path / "summary.html").read_text()
    assert "val/mse 0.150 ± 0.071 over 2 runs, which differ in their seed alone." in page
    assert "Best is" not in page


def evaluated(job: Path, low: float, high: float) -> None:
    """As much of an evaluation as a sweep's page reads, with an interval of its error."""
    (job / "evaluation").mkdir()
    for name, error in {"metrics": 0.05, "intervals": [low, high]}.items():
        content = {"reconstruction": {"model": {"mse": error}}}
        (job / "evaluation" / f"{name}.json").write_text(json.dumps(content))


SEED_0 = [("model.code_dim=2", "seed=0"), ("model.code_dim=4", "seed=0")]


@pytest.mark.parametrize(
    ("jobs", "interval", "axis", "above", "said"),
    [
        (
            [*SEED_0, ("model.code_dim=2", "seed=1")], (0.04, 0.08), "val/mse",
            [pytest.approx(0.5**0.5 * 0.02), 0],
            "val/mse against model.code_dim. Bars are ± one standard deviation over seeds. Where there is "
            "none, there is one seed.",
        ),
        (
            SEED_0, (0.04, 0.08), "test/mse", [pytest.approx(0.03), 0],
            "test/mse against model.code_dim, in the place of val/mse. Bars are 95 % intervals over the test "
            "images, not what another seed would change. Where there is none, it was not evaluated.",
        ),
        (SEED_0, (0.06, 0.08), "val/mse", None, "One seed each, so chance"),
        (SEED_0, None, "val/mse", None, "One seed each, so chance"),
        (
            [("seed=0",), ("seed=1",)], None, "val/mse", None, "The distance between the points is chance.",
        ),
    ],
    ids=["seeds", "images", "of other images", "one seed", "seeds alone"],
)  # fmt: skip
def test_the_bars_of_a_sweep_are_of_one_kind_which_is_said(
    jobs: list[tuple[str, ...]],
    interval: tuple[float, float] | None,
    axis: str,
    above: list[float] | None,
    said: str,
    tmp_path: Path,
) -> None:
    for number, overrides in enumerate(jobs):
        make_run(tmp_path / str(number), *overrides, mse=(0.05, 0.03, 0.07)[number])
    if interval:
        evaluated(tmp_path / "0", *interval)
    chart = sweep.answer(sweeps.read_sweep(tmp_path), "val/mse", "")
    assert chart.layout["yaxis"]["title"]["text"] == axis
    assert chart.traces[0].get("error_y", {}).get("array") == above
    assert said in chart.caption


def test_intervals_that_are_none_are_said_of_their_job(tmp_path: Path) -> None:
    evaluated(make_run(tmp_path / "0", mse=0.05), 0.06, 0.04)
    make_run(tmp_path / "1", mse=0.05)
    damaged, whole = sweeps.read_sweep(tmp_path)
    assert damaged.error.endswith("intervals.json: mse must be two numbers, the smaller first")
    assert whole.status == "finished"


def test_a_page_loads_itself_again_while_jobs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_sweep(tmp_path / "latent")
    (folder / "5" / ".hydra").mkdir(parents=True)
    live = sweeps.Live(folder)
    live()
    page = (folder / "summary.html").read_text()
    assert 'http-equiv="refresh"' in page
    assert "4 finished, 1 running, 1 waiting." in page
    (folder / "summary.html").unlink()
    live()
    assert not (folder / "summary.html").exists()  # it was written a moment ago
    live.due = 0
    monkeypatch.setattr(sweeps, "read_sweep", lambda _: (_ for _ in ()).throw(UserError("damaged")))
    live()  # stops nothing


@pytest.mark.slow
def test_a_filter_a_column_and_an_order_in_a_browser(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "latent")
    sweeps.show(folder, live=False)
    left, said, opacity, order, shown, hidden, wide = seen(
        folder / "summary.html",
        """
        const filter = document.querySelector("input[type=search]"), table = get("jobs");
        const rows = () => [...table.tBodies[0].rows]
          .filter(row => !row.hidden).map(row => row.cells[0].textContent);
        filter.value = "model.code_dim=16 finished";
        filter.dispatchEvent(new Event("input"));
        await wait(300);
        const left = rows(), said = document.querySelector("output").textContent;
        const chart = document.querySelector("#coordinates .chart");
        await drawChart(chart);  // as when it comes into sight
        const opacity = chart.data.map(trace => trace.opacity);
        filter.value = "";
        filter.dispatchEvent(new Event("input"));
        const head = [...table.tHead.rows[0].cells].find(cell => cell.textContent === "val/mse");
        head.querySelector("button").click();
        const order = rows(), column = head.cellIndex;
        const box = document.querySelector(`input[type=checkbox][value="${column}"]`);
        const shown = !table.rows[1].cells[column].hidden;
        box.click();
        return [left, said, opacity, order, shown, table.rows[1].cells[column].hidden,
                document.documentElement.scrollWidth <= innerWidth];
        """,
        400,
    )
    assert left == ["2", "3"]
    assert said == "2 of 5"
    assert opacity == [0.06, 0.06, 1, 1]
    assert order == ["2", "3", "0", "1", "4"]  # what has no value comes last
    assert shown
    assert hidden
    assert wide


@pytest.mark.slow
def test_the_page_of_all_runs_shows_pictures_beside_it_in_a_browser(tmp_path: Path) -> None:
    make_run(tmp_path / "a b" / "x", mse=0.1)
    page, _ = index.write([tmp_path])
    assert seen(page, "return document.querySelector('#runs img').naturalWidth;") == 32
