"""python -m autoencoders.compare: runs on the same test images."""

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import folders
import numpy as np
import pytest
import torch
from chromium import seen
from command import line_of
from markupsafe import escape
from PIL import Image

import autoencoders
from autoencoders import compare, pages
from autoencoders.evaluation import comparison, headline, intervals
from autoencoders.export import folder as exported

PLOTLY = str(pages.asset("plotly-basic.min.js"))
EVIL = "<script>alert(1)</script> $x_{".replace("/", "|")


@pytest.fixture(scope="module")
def made(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spaces of run folders: a denoiser, an autoencoder, and others that don't go with them."""
    around = tmp_path_factory.mktemp("my runs")
    for name, overrides in {
        "denoiser": ["model=denoising"],
        EVIL: ["model=autoencoder", "seed=1"],
        "clothes": ["data=fashion_mnist"],
        "colorizer": ["model=colorization", "network=linear"],
    }.items():
        torch.manual_seed(len(name))
        folders.make(around / name, data_root, *overrides)
    (around / "denoiser" / "evaluation" / "report.html").touch()
    return around


def test_a_denoiser_an_autoencoder_and_filters(
    made: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """... and an exported folder of the first, which is no different from it."""
    run, out = autoencoders.load(made / "denoiser"), tmp_path / "my results" / "out"
    (tmp_path / "exported").mkdir()
    exported.write(tmp_path / "exported", run.model, run.config, {}, ())
    runs = [str(made / "denoiser"), str(made / EVIL), str(tmp_path / "exported")]
    compare.main([*runs, f"out={out}", f"data.root={data_root}"])
    about = json.loads((out / "compare.json").read_text())
    first, other, same = about["runs"]
    assert about["runs"][first] == runs[0]
    rows = about["scores"]["reconstruction"]
    filters = {"PCA 2", "corrupted image", "median filter", "linear (Wiener)"}
    assert {first, other, same, *filters} < set(rows)

    batch = run.data.first(run.data.test, 37, torch.device("cpu"))
    of_first, of_other = (
        np.square(autoencoders.load(folder).reconstruct(batch.corrupted.numpy()) - batch.clean.numpy())
        .mean((1, 2, 3)) for folder in runs[:2]
    )  # fmt: skip
    low, high = rows[first]["mse"]["interval"]
    assert low < rows[first]["mse"]["value"] < high
    assert rows[first]["mse"]["value"] == pytest.approx(of_first.mean(), rel=1e-5)
    differences = about["differences"]["reconstruction"]
    assert first not in differences
    assert differences[other]["mse"]["value"] == pytest.approx((of_other - of_first).mean(), rel=1e-4)
    assert {entry["value"] for entry in differences[same].values()} == {0}
    assert not any(entry["beyond_chance"] for entry in differences[same].values())
    assert differences["median filter"]["mse"]["beyond_chance"]

    said = capsys.readouterr().out
    assert "was trained with corruption=none, and is tested with corruption=Gaussian(mean=0.5," in said
    assert f"reconstruction: {same} is within chance in mse, mae, psnr, ssim, gain_db" in said
    page = (out / "compare.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert not any(place in page.replace(PLOTLY, "") for place in ("http://", "https://"))
    assert page.count('href="../../') == 1  # only one of them has a report
    assert (out / unquote(re.findall(r'href="(\.\.[^"]+)"', page)[0])).is_file()
    assert f"{len(runs)} runs on the same test images" in page
    answer = re.findall(r"^.* has the smallest mean squared error, .*$", said, re.MULTILINE)[0]
    assert f"<strong>{escape(answer)}</strong>" in page
    assert escape(f"python -m autoencoders.compare '{runs[0]}' ") in page
    assert about["command"].startswith(f"python -m autoencoders.compare '{runs[0]}' ")
    assert about["answers"] == {"reconstruction": answer}
    assert rows[first]["mse_median"]["interval"] is not None
    assert "out=" not in page.replace(PLOTLY, "")
    with Image.open(out / "figures" / "images.png") as picture:
        assert picture.height > picture.width / 2  # a row for each of them
    assert {path.name for path in out.iterdir()} == {"compare.html", "compare.json", "figures"}


def test_the_user_chooses_the_images_and_the_groups(
    made: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(made / "denoiser"), str(made / "clothes"), "data=mnist", "corruption=none", "beside=false"]
    small = [f"data.root={data_root}", "data.validation_size=30", "data.batch_size=16"]
    compare.main([*words, *small, "groups=reconstruction,clustering", f"out={tmp_path}"])
    about = json.loads((tmp_path / "compare.json").read_text())
    assert list(about["scores"]) == ["reconstruction", "clustering"]
    assert list(about["scores"]["clustering"]) == ["denoiser", "clothes"]
    assert about["differences"]["clustering"]["clothes"]["accuracy"]["interval"] is not None
    said, page = capsys.readouterr().out, (tmp_path / "compare.html").read_text()
    assert "denoiser was trained with corruption=Gaussian(" in said
    note = "clothes was trained on FashionMNIST, and is tested on MNIST"
    assert about["tested_on"] == "MNIST"
    assert note in about["notes"]
    assert f"note: {note}\n" in said
    assert f"Note: {note}." in page
    assert not any("denoiser was trained on" in note for note in about["notes"])
    assert about["trainings"]["differ_in"]["data"] == {"denoiser": "MNIST", "clothes": "FashionMNIST"}


def rows_of(page: str, id: str) -> dict[str, list[str]]:
    """The table below a heading of a page: its rows' cells."""
    table = page.partition(f'<h2 id="{id}">')[2].partition("<h2")[0]
    return {
        unescape(row): list(map(unescape, re.findall("<td>(.*?)</td>", cells)))
        for row, cells in re.findall('<th scope="row">(.*?)</th>(.*?)</tr>', table)
    }


def test_how_the_trainings_differ(made: Path, data_root: Path, tmp_path: Path) -> None:
    """... told by runs, and by an exported folder, which knows no trainer."""
    longer = folders.make(
        tmp_path / "longer",
        data_root,
        "network=mlp",
        "network.hidden=[8]",
        "trainer.max_epochs=7",
        "data.eval_batch_size=7",
        "logger=none",
        "callbacks=lr_monitor",
        "figures.images=3",
    )
    (longer / "metrics.json").write_text('{"epochs": 7, "steps": 4900}')
    config = longer / ".hydra" / "config.yaml"
    text = config.read_text().replace("objective: val/mse", f"objective: '{EVIL}'")
    config.write_text(text.replace("init: null", "init: runs/before"))
    run = autoencoders.load(made / EVIL)
    (tmp_path / "exported").mkdir()
    exported.write(tmp_path / "exported", run.model, run.config, {}, ())
    words = [str(made / EVIL), str(longer), str(tmp_path / "exported"), "beside=false"]
    compare.main([*words, f"out={tmp_path / 'out'}", f"data.root={data_root}"])
    about, page = (tmp_path / "out" / name for name in ("compare.json", "compare.html"))
    of = json.loads(about.read_text())["trainings"]
    first, second, third = json.loads(about.read_text())["runs"]
    assert of == {
        "differ_in": {
            "init": {first: None, second: "runs/before"},
            "network": {first: "Linear", second: "MLP", third: "Linear"},
            "network.activation": {second: "silu"},
            "network.hidden[0]": {second: 8},
            "network.linear_path": {second: False},
            "network.norm": {second: False},
            "objective": {first: "val/mse", second: EVIL, third: "val/mse"},
            "seed": {first: 1, second: 0, third: 1},
            "trainer.max_epochs": {first: 1, second: 7},
        },
        "only_the_seed": [],
        "trained": {first: {"epochs": 1}, second: {"epochs": 7, "steps": 4900}, third: {}},
    }
    html = page.read_text()
    assert "<script>alert" not in html
    rows = rows_of(html, "trainings")
    assert list(rows) == ["epochs trained", "steps trained", *of["differ_in"]]
    assert rows["steps trained"] == ["", "4900", ""]
    assert rows["network.norm"] == ["", "false", ""]
    assert rows["objective"] == ["val/mse", EVIL, "val/mse"]
    assert f"Scores against {escape(first)}</h2>" in html


def test_runs_that_differ_only_in_their_seed(
    made: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """... are told from those that differ in a setting too, or are not finished."""
    runs = [str(made / EVIL)]
    for name, overrides in {"a": ["seed=2"], "b": ["seed=3", "optimizer.lr=0.5"], "c": ["seed=4"]}.items():
        runs.append(str(folders.make(tmp_path / name, data_root, "model=autoencoder", *overrides)))
    (tmp_path / "c" / "metrics.json").unlink()
    sentence = " differ only in their seed, so the difference between them is what another seed changes, "
    for compared, whom in ((runs[:2], "These runs"), (runs[:3], "{0} and {1}"), (runs[1:], None)):
        out = tmp_path / f"out {len(compared)} {whom}"
        compare.main([*compared, "beside=false", f"out={out}", f"data.root={data_root}"])
        about, said = json.loads((out / "compare.json").read_text()), capsys.readouterr().out
        told, page = about["trainings"]["only_the_seed"], (out / "compare.html").read_text()
        unfinished = [
            f"{name} has not finished its training" for name, run in about["runs"].items() if run == runs[3]
        ]
        assert about["notes"] == unfinished
        assert (sentence in said) == (sentence in page) == bool(told) == (whom is not None)
        if whom is not None:
            assert told[0].startswith(whom.format(*about["runs"]) + sentence)
            assert f"\n{told[0]}\n" in said
            assert ("Another seed of the training may change that" in said) == ("These" not in told[0])
            assert f'<p class="sentence">{escape(told[0])}</p>' in page


def test_runs_with_the_same_settings(made: Path, data_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(len("denoiser"))  # the same weights
    again = folders.make(tmp_path / "again", data_root, "model=denoising", "logger=none")
    words = [str(made / "denoiser"), str(again), "names=once,median filter", f"data.root={data_root}"]
    compare.main([*words, f"out={tmp_path / 'out'}"])
    about = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert about["runs"] == {"once": words[0], "median filter": words[1]}
    once, again = (about["scores"]["reconstruction"][name] for name in about["runs"])
    assert once == again  # a run is no reference that is called so
    assert about["trainings"]["differ_in"] == {}
    assert about["trainings"]["only_the_seed"] == []
    assert "Their settings are the same" in (tmp_path / "out" / "compare.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "name at least two run folders: python -m autoencoders.compare runs/denoising/"),
        ("DENOISER", "there is only"),
        ("AROUND", "is not a run folder but holds some: name one, such as "),
        ("DENOISER nowhere", "no run folder nowhere"),
        ("DENOISER no=where/else", "no key no: there are: beside, groups, names, out, trust"),
        ("DENOISER OTHER outt=a", "no key outt: did you mean 'out'?"),
        ("DENOISER OTHER model.code_dim=3", "only data and corruption can be changed"),
        ("DENOISER OTHER out=", "out= has no value"),
        ("DENOISER OTHER names=a", "names=a must be 2 different names, one for each run"),
        ("DENOISER OTHER names=a,a", "names=a,a must be 2 different names"),
        ("DENOISER OTHER names=a,,b", "names=a,,b must be 2 different names"),
        ("DENOISER OTHER out=FILE", "must be a folder"),
        ("DENOISER OTHER out=FILE/in/it", "must be a folder"),
        (
            "DENOISER OTHER groups=latent_space",
            "groups=latent_space: only scores that are means over the test",
        ),
        (
            "DENOISER OTHER groups=generation",
            "be compared: there are: clustering, colorization, features, like",
        ),
        ("DENOISER OTHER groups=feature", "can be compared: did you mean 'features'?"),
        ("DENOISER OTHER beside=yes", "beside=yes must be true or false"),
        ("DENOISER OTHER corruption=gausian", "no corruption=gausian: did you mean 'gaussian'?"),
        ("DENOISER OTHER corruption.std=-1", "corruption.std=-1 must be ≥ 0"),
        (
            "DENOISER OTHER groups=likelihood",
            "denoiser has no such scores to compare: there are: clustering, features, reconstruction",
        ),
        ("DENOISER OTHER DENOISER", "denoiser is named twice: name each run folder once"),
        ("DENOISER DENOISER/", "denoiser is named twice: "),
        ("DENOISER LINK", "denoiser is named twice, the second time as link: name each run folder once"),
        (
            "DENOISER COLORIZER",
            "reads images of (1, 32, 32) (C, H, W), but those of MNIST, to be tested on",
        ),
        ("DENOISER CLOTHES", "was trained on FashionMNIST and"),
        ("DENOISER EMPTY", "is not a run folder"),
        ("DENOISER SCORES", "is not a run folder: it has no .hydra/config.yaml"),
    ],
)
def test_what_can_not_be_compared_is_said_in_one_line(
    words: str, message: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... and nothing is left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(made / "denoiser")
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "metrics.json").write_text('{"reconstruction": {"model": {"mse": 0.1}}}')
    known = {name.upper(): str(made / name) for name in ("denoiser", "colorizer", "clothes")}
    known |= {
        "AROUND": str(made),
        "OTHER": str(made / EVIL),
        "DENOISER/": f"{made / 'denoiser'}/",
        "LINK": "link",
    }
    known |= {
        "EMPTY": "empty",
        "SCORES": "scores",
        "out=FILE": "out=file",
        "out=FILE/in/it": "out=file/in/it",
    }
    line = line_of(lambda: compare.main([known.get(word, word) for word in words.split()]))
    assert line is not None
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "link", "scores"]


def answer(higher: bool = False, **values: float) -> str:
    """Of rows whose images differ by the same, and by as much as their mean; a run is one letter."""
    around = np.linspace(-0.5, 0.5, 40)
    metric = "ssim" if higher else "mse"
    scores = {row: {metric: intervals.Mean(value * (1 + around))} for row, value in values.items()}
    runs = [row for row in values if len(row) == 1]
    found = headline.answer("reconstruction", scores, runs, 40)
    assert found is not None
    assert found.metric == metric
    return found.sentence


def test_the_best_is_told_with_what_is_within_chance() -> None:
    assert answer(a=0.03, b=0.024, c=0.5) == (
        "b has the smallest mean squared error, 0.024: 20 % less than a (0.03), beyond chance on the same "
        "40 test images."
    )
    assert answer(a=0.03, b=0.03, c=0.5) == (
        "a has the smallest mean squared error, 0.03, but b (0.03) is within chance of it on the same 40 "
        "test images; c (0.5) is worse beyond chance."
    )
    assert answer(a=0.03, b=0.03, c=0.03, d=0.03, e=0.03) == (
        "a has the smallest mean squared error, 0.03, but b (0.03), c (0.03) and 2 others are within chance "
        "of it on the same 40 test images."
    )
    best, without = answer(higher=True, a=0.4, b=0.1, filter=0.5, copy=0.3).split(". ")
    assert best.startswith("a has the largest structural similarity, 0.4: better than b (0.1), beyond chance")
    assert without == "A reference is better: filter (0.5)."


def test_what_another_seed_changes_is_told_of_the_score_that_was_won_by() -> None:
    won, drawn = (headline.Answer("mse", "", beyond_chance) for beyond_chance in (True, False))
    scores: dict[str, Any] = {
        "reconstruction": {"a": {"mse": 0.02}, "b": {"mse": 0.0208}, "c": {"mse": 0.5}},
        "clustering": {"a": {"accuracy": 0.5}, "b": {"accuracy": 0.7}, "c": {"accuracy": 0.1}},
    }
    told = comparison.what_a_seed_changes
    assert told({"reconstruction": won, "clustering": drawn}, scores, [["a", "b"]]) == [
        "Another seed of the training may change that: here, a seed alone changes mse by up to 0.0008."
    ]
    (both,) = told(
        {"reconstruction": won, "clustering": won._replace(metric="accuracy")}, scores, [["a", "b"]]
    )
    assert both.endswith(" a seed alone changes mse by up to 0.0008 and accuracy by up to 0.2.")
    assert told({"reconstruction": won}, scores, []) == ["Another seed of the training may change that."]
    assert told({"reconstruction": drawn}, scores, [["a", "b"]]) == []


def test_k_means_is_not_said_to_be_a_model_s_own_clusters() -> None:
    right = {"a": np.arange(40) < 24, "b": np.arange(40) < 4}
    scores = {run: {"accuracy": intervals.Mean(of.astype(np.float32))} for run, of in right.items()}
    found = headline.answer("clustering", scores, ["a", "b"], 40)
    assert found is not None
    assert found.sentence.startswith("a has the largest accuracy of k-means on the code, 60 %: ")


def test_nothing_is_called_the_best_where_it_is_not_known_what_is_better() -> None:
    scores = {run: {"mine": intervals.Mean([1.0, 2.0]), "mse": 0.1} for run in "ab"}
    assert headline.answer("reconstruction", scores, "ab", 2) is None


@pytest.mark.slow
def test_the_page_in_a_browser_of_any_width(made: Path, data_root: Path, tmp_path: Path) -> None:
    runs = [str(made / "denoiser"), str(made / EVIL)]
    compare.main(
        [*runs, f"out={tmp_path / 'out'}", f"data.root={data_root}", "groups=reconstruction,clustering"]
    )
    for width in (400, 1600):
        drawn, colours, left, order, wide = seen(
            tmp_path / "out" / "compare.html",
            """
            dispatchEvent(new Event("beforeprint"));  // which draws what is further down as well
            await wait(500);
            const all = [...document.querySelectorAll(".chart")], table = get("scores-1");
            const every = of => [...of.tBodies[0].rows], rows = of => every(of).filter(row => !row.hidden);
            const colours = [...table.querySelectorAll(".swatch")].map(one => one.style.background);
            const filter = document.querySelector("[data-table=scores-1] input[type=search]");
            filter.value = "filter";
            filter.dispatchEvent(new Event("input"));
            const left = [rows(table).length, rows(get("scores-2")).length === every(get("scores-2")).length];
            filter.value = "";
            filter.dispatchEvent(new Event("input"));
            const head = [...table.tHead.rows[0].cells].find(cell => cell.textContent === "mse");
            head.querySelector("button").click();
            const order = rows(table).map(row => Number(row.cells[1].dataset.value));
            const drawn = all.length > 4 && all.every(chart => chart.querySelector("svg .point"));
            return [drawn, colours, left, order, document.documentElement.scrollWidth <= innerWidth];
            """,
            width,
        )
        assert drawn
        assert len(set(colours)) == len(runs)
        assert left == [2, True]  # the median and the Gaussian filter; the other table has all of its rows
        assert order == sorted(order)
        assert wide


def test_all_that_can_be_compared_is_a_group_of_an_evaluation() -> None:
    from autoencoders.evaluation import EXPLAINED

    assert set(compare.GROUPS) < set(EXPLAINED)


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    from autoencoders.evaluation.comparison import named

    a, b = tmp_path / "a" / "1", tmp_path / "b" / "1"
    assert named([a, b]) == ["a/1", "b/1"]
    assert named([a, a, a]) == ["1", "1 (2)", "1 (3)"]
    assert named([a, tmp_path / "a" / "2", a]) == ["1", "2", "1 (2)"]
    for job, seed in (("0", 3), ("1", 4)):
        (tmp_path / "sweep" / job / ".hydra").mkdir(parents=True)
        chosen = f"- seed={seed}\n- model=vae\n"
        (tmp_path / "sweep" / job / ".hydra" / "overrides.yaml").write_text(chosen)
    (tmp_path / "sweep" / "multirun.yaml").touch()
    jobs = [tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"]
    assert named(jobs) == ["0 (seed=3)", "1 (seed=4)"]


def test_help_needs_no_torch() -> None:
    script = "import sys; from autoencoders.compare import main; main(['-h']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Compares runs on the same test images")
    assert done.stdout.endswith("False\n")
