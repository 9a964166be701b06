"""The report as a page: what it says first, its charts, and the explorer that decodes in the browser."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromium import seen
from conftest import Compose
from PIL import Image
from torch import Tensor, nn

from autoencoders import models, networks, pages, training
from autoencoders.evaluation import browser, explorer, headline, intervals, report, representation
from autoencoders.evaluation.subject import Scores, Subject
from autoencoders.figures import Counts, Picture, Rows
from autoencoders.pages import charts
from autoencoders.palette import COLOURS, GRAY, of_classes

MODELS = [
    cls
    for cls in vars(models).values()
    if isinstance(cls, type) and issubclass(cls, models.BaseAutoencoder) and cls is not models.BaseAutoencoder
]
NETWORKS: list[networks.Network] = [
    networks.Linear(), networks.MLP(linear_path=True, norm=True), networks.Conv(depth=1), networks.ResNet(),
    networks.ViT(), *(networks.MLP([8], activation=name) for name in ("gelu", "tanh", "relu", "sigmoid")),
]  # fmt: skip
LIKELIHOODS = ["gaussian_unbounded", "laplace", "bernoulli", "continuous_bernoulli", "discretized_logistic"]


def subject(composed: Compose, *overrides: str) -> Subject:
    torch.manual_seed(0)
    cfg = composed("network=mlp", *overrides)
    data = training.build_data(cfg)
    return Subject(training.build_model(cfg, data), data)


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


# ---- what it says ------------------------------------------------------------------------------------------


def scored(**rows: dict[str, list[float]]) -> Scores:
    scores: Scores = {
        row: {m: intervals.Mean(v) for m, v in metrics.items()} for row, metrics in rows.items()
    }
    intervals.estimate(scores, 40)
    return scores


def test_numbers_stand_beside_the_best_without_the_model() -> None:
    around = np.linspace(-0.01, 0.01, 40)
    scores = {
        "reconstruction": scored(
            model={"mse": list(0.1 + around)},
            PCA={"mse": list(0.3 + around)},
            median={"mse": list(0.2 + around)},
            copy={"mse": [0.0] * 40},  # of so many numbers that it is one
        ),
        "features": scored(model={"linear_probe": [1.0, 0.0] * 20}, pixels={"linear_probe": [1.0] * 40}),
        "clustering": scored(model={"accuracy": [1.0, 0.0] * 20}, pixels={"accuracy": [0.0, 1.0] * 20}),
    }
    error, probe, clusters = headline.numbers(scores, 40)
    assert (error.value, error.worth) == ("0.1000", "2 times less than median (0.2000)")
    scores["reconstruction"]["median"]["mse"] = intervals.Mean(0.105 + 0 * around)
    assert headline.numbers(scores, 40)[0].worth == "4.8 % less than median (0.105)"
    assert error.interval.startswith("± 0.00")
    assert (probe.value, probe.worth) == ("50 %", "50 points less than pixels (100 %)")
    assert clusters.worth == "not significantly different from pixels (50 %)"
    scores["clustering"]["own clusters"] = {"accuracy": 0.75}
    assert headline.numbers(scores, 40)[0].label == "accuracy of its own clusters"
    del scores["clustering"]["own clusters"]
    said = list(headline.limits(scores, "the data set has no classes"))
    assert re.search(
        r"does not beat pixels in accuracy of a linear probe on the code: 50 ± 1\d % against 100 %", said[0]
    )
    assert said[-2].startswith("Its worst test image has an error of 0.11, 1.1 times the mean")
    assert said[-1] == "The data set has no classes."
    assert not any("its input" in sentence for sentence in said)
    scores["reconstruction"]["corrupted image"] = {"mse": 0.05}
    worse = "Its output is worse than its input: a mean squared error of 0.1"
    assert next(headline.limits(scores, "")).startswith(worse)


def test_learning_curves_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text(
        "step,train/loss,train/lr,val/loss,val/mse\n"
        "10,5.0,0.1,,\n20,4.0,0.1,,\n20,,,4.5,0.3\n40,nan,0.1,,\n40,,,4.6,0.4\n"
    )
    error, loss = report.learning(file, "val/mse")
    assert [(t["x"], t["y"]) for t in error.traces] == [([20, 40], [0.3, 0.4])]
    assert "lowest at step 20" in error.caption
    assert [(t["name"], t["y"]) for t in loss.traces] == [("training", [5, 4]), ("validation", [4.5, 4.6])]
    assert list(report.learning(tmp_path / "none.csv", "val/mse")) == []


def test_charts_take_no_text_for_tags_and_no_nan_for_a_number() -> None:
    chart = charts.lines({"<b>&": ([1.0, 2.0], [float("nan"), 3.0])}, "<a href='x'>", "y", "caption")
    assert chart.traces[0]["name"] == "&lt;b&gt;&amp;"
    assert chart.layout["xaxis"]["title"]["text"] == "&lt;a href='x'&gt;"
    assert (chart.traces[0]["x"], chart.traces[0]["y"]) == ([2.0], [3.0])
    assert "</script" not in pages.embedded({"text": "</script>"})


def test_names_beside_intervals_are_broken_and_have_their_colour() -> None:
    values = {"a/2026-01-31_12-00-00 <i>": (2.0, (1.5, 3.0)), "b": (1.0, None), "none": (float("nan"), None)}
    chart = charts.intervals(values, "x", "caption", {"b": "#123456"}, from_zero=False)
    (trace,) = chart.traces
    assert trace["y"] == ["a/2026-01-31_12-00-00<br>&lt;i&gt;", "b"]
    assert trace["marker"]["color"] == [GRAY, "#123456"]
    assert (trace["error_x"]["array"], trace["error_x"]["arrayminus"]) == ([1.0, 0.0], [0.5, 0.0])
    assert trace["text"] == [" (1.5 to 3)", ""]


def test_long_lines_are_thinned_and_keep_their_end() -> None:
    chart = charts.lines({"a": (range(2001), [float(i) for i in range(2001)])}, "x", "y", "caption")
    assert len(chart.traces[0]["x"]) <= charts.MOST_POINTS + 2
    assert chart.traces[0]["x"][-1] == 2000


def test_a_class_has_one_colour() -> None:
    assert of_classes(10) == list(COLOURS)
    assert len(set(of_classes(43))) == 43


def test_strips_have_nothing_between_the_images() -> None:
    images = torch.stack([torch.full((1, 4, 4), 0.2), torch.full((1, 4, 4), 0.6)])
    made = report.strip(images, 2)
    assert made.shape == (4, 9, 2)
    assert set(made[:, :4, 0].ravel()) == {51}
    assert made[0, :, 1].tolist() == [255] * 4 + [0] + [255] * 4
    assert report.strip(torch.rand(3, 3, 4, 4), 2).shape == (9, 9, 4)


def test_a_report_needs_nothing_else_and_escapes(composed: Compose, tmp_path: Path) -> None:
    cfg = composed("network=mlp", "model=vae", "model.code_dim=2")
    cfg.corruption._target_ = "<script>alert(1)</script>"
    it = subject(composed, "model=vae", "model.code_dim=2")
    rows: Scores = {"model": {"mse": 0.25, "<b>": 1}}
    counts = Counts(np.array([[1234, 0]]), ["<u>"], ["a", "b"], "class", "cluster", "clusters")
    shown: dict[str, Picture] = {"reconstructions": Rows({"<i>": torch.rand(2, 1, 8, 8)}), "clusters": counts}
    report.write(tmp_path, {"clustering": rows}, shown, it, {"clustering": representation.clustering}, cfg)
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;b&gt;" in page
    assert "&lt;i&gt;: 2 images" in page
    assert "&lt;u&gt;" in page
    assert ">1,234</td>" in page
    assert "adjusted Rand index" in page
    assert "VAE on MNIST" in page
    assert "default-src 'none'" in page
    of_plotly = str(pages.asset("plotly-basic.min.js"))
    assert not any(scheme in page.replace(of_plotly, "") for scheme in ("http://", "https://"))


# ---- the explorer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 5])
def test_the_explorer_has_test_images_at_their_codes(composed: Compose, size: int) -> None:
    it = subject(composed, f"model.code_dim={size}")
    made = explorer.explorer(it)
    data = made["data"]
    json.dumps(data, allow_nan=False)
    assert (data["width"], data["height"], data["channels"]) == (28, 28, 1)
    count = len(it.data.test)
    assert len(data["places"]) == len(data["labels"]) == made["count"] == count
    codes = np.frombuffer(base64.b64decode(data["codes"]), "<f4").reshape(count, size)
    np.testing.assert_array_equal(codes, it.test_codes)
    sheet = np.asarray(picture(made["sheet"]))
    row, column = divmod(30, explorer.COLUMNS)
    image = sheet[row * 28 : row * 28 + 28, column * 28 : column * 28 + 28]
    np.testing.assert_array_equal(image, it.data.test.images[30, 0].numpy())
    exact = np.frombuffer(base64.b64decode(data["checked"]), "<f4").reshape(-1, 28, 28)
    with torch.inference_mode():
        np.testing.assert_allclose(
            exact, it.model.decode(torch.from_numpy(codes[:3].copy()))[:, 0], atol=1e-6
        )
    assert made["sprite"] is None


def test_a_decoder_that_is_too_large_is_shown_by_pictures_of_places(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "MOST_WEIGHTS", 10)
    it = subject(composed, "model.code_dim=2")
    made = explorer.explorer(it)
    assert made["data"]["live"] is None
    assert made["why"] == "it has more than 10 weights"
    sprite, flat = picture(made["sprite"]), explorer.plane(it)
    places = flat.places()
    for column, row in ((0, 0), (20, 20), (40, 3)):
        place = places[row * explorer.SIDE + column]
        with torch.inference_mode():
            image = it.model.decode(place[None])[0, 0].mul(255).round().byte().numpy()
        box = (column * 28, row * 28, column * 28 + 28, row * 28 + 28)
        np.testing.assert_array_equal(np.asarray(sprite.crop(box)), image)
        middle = flat.project(place.numpy()[None])[0]
        assert middle.tolist() == pytest.approx([(column + 0.5) / 41, (row + 0.5) / 41], abs=1e-4)


class Odd(nn.Module):
    """A decoder with an operator that pages don't have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 16)

    def forward(self, code: Tensor) -> Tensor:
        return self.layer(code).cumsum(1).view(-1, 1, 4, 4)


@pytest.mark.parametrize(
    ("decoder", "why"),
    [
        (Odd(), "it uses cumsum, which pages can't compute"),
        (nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4))), "half precision would change a pixel"),
    ],
)
def test_what_can_not_be_decoded_in_a_page_is_said(
    decoder: nn.Module, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for weight in decoder.parameters():
        nn.init.constant_(weight, 1e5)  # beyond half precision
    monkeypatch.setattr(browser, "FEW", 0)
    network = networks.Own(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), decoder, output="logits")
    model = models.Autoencoder(network, (1, 4, 4), code_dim=2)
    with pytest.raises(browser.Undecodable, match=why):
        browser.program(model.eval(), torch.tensor([[1e-6, -1e-6]]), torch.zeros(1, 1, 4, 4))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        *(cls() for cls in MODELS),
        *(models.Autoencoder(network) for network in NETWORKS),
        *(models.Autoencoder(likelihood=name) for name in LIKELIHOODS),
    ],
    ids=[*(cls.__name__ for cls in MODELS), *(str(n)[:40] for n in NETWORKS), *LIKELIHOODS],
)
def test_the_page_s_decoder_is_the_model_s(model: models.BaseAutoencoder, tmp_path: Path) -> None:
    """Of every shipped model, network and likelihood, by Node."""
    if not (node := shutil.which("node")):
        pytest.skip("needs Node: apt install nodejs")
    codes = torch.randn(2, model.code_dim, generator=torch.Generator().manual_seed(0))
    beside = torch.rand(1, *model.input_shape, generator=torch.Generator().manual_seed(0))
    program, difference = browser.program(model.eval(), codes, beside)
    assert difference < 2e-3
    script = tmp_path / "decode.js"
    script.write_text(
        f"{pages.asset('decoder.js')}\nconst decode = decoderOf({json.dumps(program)});"
        f"console.log(JSON.stringify({json.dumps(codes.tolist())}.map(code => [...decode(code)])));"
    )
    done = subprocess.run([node, str(script)], capture_output=True, text=True, timeout=120, check=True)
    with torch.inference_mode():
        wanted = model.decode_beside(codes, beside).flatten(1).numpy()
    np.testing.assert_allclose(np.array(json.loads(done.stdout)), wanted, atol=2e-3)


@pytest.fixture
def written(composed: Compose, tmp_path: Path) -> tuple[Path, Subject]:
    """A report and what it is of."""
    cfg = composed("network=mlp", "model.code_dim=3")
    it = subject(composed, "model.code_dim=3")
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/mse\n1,3,\n1,,0.2\n2,2,\n2,,0.1\n")
    report.write(tmp_path, {"clustering": {"model": {"accuracy": 1.0}}}, {}, it, {}, cfg)
    return tmp_path / "evaluation" / "report.html", it


PIXELS = """
  const pixels = canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]
    .filter((_, i) => i % 4 === 0);
"""


def decoded(it: Subject, code: Any) -> Any:
    with torch.inference_mode():
        return it.model.decode(torch.tensor(code)[None].float())[0, 0].mul(255).round().numpy().ravel()


def test_a_report_says_what_was_trained_and_on_what_it_was_tested(composed: Compose, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "data: {_target_: autoencoders.data.MNIST}\n"
        "corruption: {_target_: autoencoders.corruption.SaltPepper, fraction: 0.25}\n"
    )
    it, words = subject(composed, "corruption=masking"), ["corruption=masking"]
    report.write(tmp_path, {}, {}, it, {}, composed("network=mlp", *words), overrides=words)
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert "It was trained to undo SaltPepper(fraction=0.25), on " in page
    assert " others under Masking(fraction=" in page
    assert re.search(r"evaluate.py run=\S+ corruption=masking</pre>", page)
    report.write(tmp_path, {}, {}, it, {}, composed("data=fashion_mnist"))
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert re.search(r"on MNIST, and tested on \d+ of Fashion ?MNIST without corruption\.", page)


def test_a_grid_of_before_the_training_went_on_is_left_out(written: tuple[Path, Subject]) -> None:
    page, _ = written
    run, grid = page.parent.parent, page.parent / "grid.csv"
    grid.write_text("corruption,level,value,model mse,corrupted image mse\nblur,sigma,1,0.1,0.2\n")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").touch()
    os.utime(grid, (0, 0))
    assert "is of before the run was trained further" in report.robustness(run)
    os.utime(grid)
    assert "trained further" not in report.robustness(run)


def test_a_grid_comes_into_the_report(written: tuple[Path, Subject]) -> None:
    page, _ = written
    before = page.read_text()
    assert "Not measured yet" in before
    grid = "corruption,level,value,model mse,corrupted image mse\nblur,sigma,1,0.1,0.2\nblur,sigma,2,1,2\n"
    (page.parent / "grid.csv").write_text(grid)
    for _ in range(2):
        report.update_robustness(page.parent.parent)
    after = page.read_text()
    assert "Not measured yet" not in after
    assert after.count('"blur (sigma 1 to 2), corrupted image"') == 1
    assert after.partition(report.ROBUSTNESS)[0] == before.partition(report.ROBUSTNESS)[0]
    assert after.partition(report.END)[2] == before.partition(report.END)[2]


@pytest.mark.slow
def test_a_slider_moves_the_code_along_a_direction_in_a_browser(written: tuple[Path, Subject]) -> None:
    page, it = written
    code, pixels, check = seen(
        page,
        PIXELS
        + """
        get("mean").click();
        await wait(200);
        const slider = document.querySelectorAll("#sliders input")[1];
        slider.value = 2;
        slider.dispatchEvent(new Event("input"));
        await wait(200);
        const code = JSON.parse(get("decoded").dataset.code);
        return [code, pixels(get("decoded")), get("check").dataset.difference];
        """,
    )
    mean, directions, deviations = it.test_directions
    np.testing.assert_allclose(code, mean + 2 * deviations[1] * directions[1], rtol=1e-4, atol=1e-5)
    assert np.abs(np.array(pixels) - decoded(it, code)).max() <= 1
    assert 0 < float(check) < 1e-3


@pytest.mark.slow
def test_a_point_and_a_way_between_two_in_a_browser(written: tuple[Path, Subject]) -> None:
    page, it = written
    places = explorer.explorer(it)["data"]["places"]
    code, shown, first, last, steps = seen(
        page,
        PIXELS
        + f"""
        const box = get("map").getBoundingClientRect();
        const at = (kind, [x, y]) => get("map").dispatchEvent(new PointerEvent(kind, {{
          pointerId: 1, clientX: box.left + x * box.width, clientY: box.top + y * box.height }}));
        get("map").setPointerCapture = () => {{}};
        at("pointermove", {places[4]});
        await wait(200);
        const code = JSON.parse(get("decoded").dataset.code);
        const shown = get("found").querySelectorAll("canvas").length;
        at("pointerdown", {places[4]}); at("pointermove", {places[9]}); at("pointerup", {places[9]});
        await wait(200);
        const strip = [...get("path").querySelectorAll("canvas")];
        return [code, shown, pixels(strip[0]), pixels(strip.at(-1)), strip.length];
        """,
    )
    np.testing.assert_allclose(code, it.test_codes[4], rtol=1e-5)
    assert shown == 2 + 5  # itself, decoded, and its neighbours
    assert steps == 9
    assert np.abs(np.array(last) - decoded(it, it.test_codes[9])).max() <= 1
    assert np.abs(np.array(first) - decoded(it, it.test_codes[4])).max() <= 1


def test_a_page_that_would_be_too_large_has_pictures_instead(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = subject(composed, "model.code_dim=3")
    monkeypatch.setattr(report, "LARGEST_PAGE", 10)
    report.write(tmp_path, {}, {}, it, {}, composed("network=mlp"))
    page = (tmp_path / "evaluation" / "report.html").read_text()
    assert "run in this page (the page would be too large)" in page
    assert '"live": null' in page


@pytest.mark.slow
def test_charts_are_drawn_in_a_browser_of_any_width(written: tuple[Path, Subject]) -> None:
    page, _ = written
    assert page.stat().st_size < 10_000_000
    for width in (400, 1000, 1600):
        drawn, wide = seen(
            page,
            """
            const all = [...document.querySelectorAll(".chart")];
            return [all.length > 1 && all.every(chart => chart.querySelector("svg .trace, svg .point")),
                    document.documentElement.scrollWidth <= innerWidth];
            """,
            width,
        )
        assert drawn
        assert wide
