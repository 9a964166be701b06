"""The lecture, as it is stored and run anew, and the site that `make docs` writes."""

import base64
import importlib.util
import io
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autoencoders import models
from autoencoders.config import REPOSITORY

DOCS = REPOSITORY / "docs"
LECTURE = DOCS / "lecture.ipynb"
FIGURES = {
    "trained", "code-rows", "manifold", "walk", "scatter", "cluster-rows", "pca", "vae", "stochastic",
    "samples", "denoising", "colorization",
}  # fmt: skip
MOST_BYTES = 1_500_000
with_docs = pytest.mark.skipif(
    importlib.util.find_spec("sphinx") is None, reason="needs the extra docs, as `make test-slow` installs it"
)


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(cell: dict[str, Any]) -> str:
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


def numbers(text: str, pattern: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


def check_outputs(notebook: dict[str, Any]) -> None:
    """That every cell ran without a warning, and that what it shows is what the text around it says."""
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}

    pictures = {
        cell["id"]: Image.open(io.BytesIO(base64.b64decode("".join(output["data"]["image/png"]))))
        for cell in cells
        for output in cell["outputs"]
        if "image/png" in output.get("data", {})
    }
    assert set(pictures) == FIGURES
    for name, picture in pictures.items():
        assert picture.width > 500, name
        assert np.asarray(picture.convert("L")).std() > 10, name  # of 255: it isn't blank

    said = {cell["id"]: text_of(cell) for cell in cells}
    error = r"mean squared error:? ([\d.]+)"
    (before,), (*_, after) = numbers(said["untrained"], error), numbers(said["trained"], error)
    assert after < 0.03 < 0.2 < before
    assert numbers(said["likelihood"].splitlines()[-1], r"([\d.]+)") == pytest.approx(
        [392 * math.log(math.pi)] * 5, abs=0.02
    )
    smallest, middle, largest = numbers(said["code-rows"], error)
    assert 0.05 > smallest > middle == after > largest
    assert all(0.3 < accuracy < 1 for accuracy in numbers(said["clusters"], r": ([\d.]+)"))
    ours, pca = numbers(said["linear"], r"(?:autoencoder|PCA): +([\d.]+)")
    assert 0.99 * pca < ours < 1.02 * pca
    assert numbers(said["linear"], r"([\d.]+)°")[0] < 10
    for nonlinear, of_pca in re.findall(r"autoencoder ([\d.]+), PCA ([\d.]+)", said["pca"])[:2]:
        assert float(nonlinear) < float(of_pca)
    (mean, deviation) = numbers(said["vae"].splitlines()[-1], r"(-?[\d.]+)")
    assert abs(mean) < 0.3
    assert 0.7 < deviation < 1.3
    noisy, denoised = numbers(said["noisy"], r"([\d.]+) of the")
    assert denoised < 0.1 * noisy
    gray, coloured = numbers(said["gray"], r"([\d.]+) of the")
    assert coloured < gray


def test_the_lecture_is_stored_with_its_outputs() -> None:
    text = LECTURE.read_text()
    check_outputs(json.loads(text))
    assert len(text.encode()) < MOST_BYTES
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", text)  # nobody's machine


def test_every_part_of_the_lecture_ends_with_exercises() -> None:
    cells = json.loads(LECTURE.read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    parts = re.split(r"^## (?=\d\. )", text, flags=re.MULTILINE)[1:]
    assert [part[0] for part in parts] == list("12345678")
    for part in parts:
        exercises = re.findall(r"^\d\. .*?(?=^\d\. |\Z|^#)", part.partition("### Exercises")[2], re.M | re.S)
        assert len(exercises) >= 2, part[:40]
        assert all("*Expect*" in exercise for exercise in exercises), part[:40]


@pytest.mark.slow
@with_docs
def test_the_lecture_runs(tmp_path: Path) -> None:
    """On the real data, which takes a few minutes."""
    copy = Path(shutil.copy(LECTURE, tmp_path))
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", str(copy)]  # as `make lecture` does
    subprocess.run(command, cwd=tmp_path, check=True)
    check_outputs(json.loads(copy.read_text()))


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does."""
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", str(source), str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@with_docs
def test_the_site_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    done = build(DOCS, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {path.stem: path.read_text() for path in tmp_path.glob("*.html")}
    assert {path.stem for path in [*DOCS.glob("*.md"), LECTURE]} <= set(pages)
    for name, page in pages.items():
        loaded = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"([^\"]+)\"", page)
        assert [address for address in loaded if re.match(r"(?:\w+:)?//", address)] == [], name
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:\w+:)?//", style.read_text()), style
    assert pages["lecture"].count("<img") >= len(FIGURES)
    assert 'href="training.html"' in pages["index"]
    for model in models.__all__:
        assert f'id="autoencoders.models.{model}"' in pages["interface"]


@pytest.mark.slow
@with_docs
@pytest.mark.parametrize("link", ["[a page](missing.md)", "[a heading](#missing)", "[one](other.md#missing)"])
def test_a_broken_link_is_refused(link: str, tmp_path: Path) -> None:
    for name in ("conf.py", "site.css"):
        shutil.copy(DOCS / name, tmp_path)
    contents = "# Pages\n\n{}\n\n```{{toctree}}\nother\n```\n"
    (tmp_path / "other.md").write_text("# Other\n\nText.\n")
    (tmp_path / "index.md").write_text(contents.format("[a page](other.md#other)"))
    assert build(tmp_path, tmp_path / "whole").returncode == 0
    (tmp_path / "index.md").write_text(contents.format(link))
    done = build(tmp_path, tmp_path / "broken")
    assert done.returncode != 0
    assert "missing" in done.stderr
