"""The site that `make docs` writes."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autoencoders import models
from autoencoders.config import REPOSITORY

DOCS = REPOSITORY / "docs"
with_docs = pytest.mark.skipif(
    importlib.util.find_spec("sphinx") is None, reason="needs the extra docs, as `make test-slow` installs it"
)


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
    assert {path.stem for path in DOCS.glob("*.md")} <= set(pages)
    for name, page in pages.items():
        loaded = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"([^\"]+)\"", page)
        assert [address for address in loaded if re.match(r"(?:\w+:)?//", address)] == [], name
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:\w+:)?//", style.read_text()), style
    assert 'href="training.html"' in pages["index"]
    for model in models.__all__:
        assert f'id="autoencoders.models.{model}"' in pages["interface"]


@pytest.mark.slow
@with_docs
@pytest.mark.parametrize("link", ["[a page](missing.md)", "[a heading](#missing)", "[one](other.md#missing)"])
def test_a_broken_link_is_refused(link: str, tmp_path: Path) -> None:
    shutil.copy(DOCS / "conf.py", tmp_path)
    contents = "# Pages\n\n{}\n\n```{{toctree}}\nother\n```\n"
    (tmp_path / "other.md").write_text("# Other\n\nText.\n")
    (tmp_path / "index.md").write_text(contents.format("[a page](other.md#other)"))
    assert build(tmp_path, tmp_path / "whole").returncode == 0
    (tmp_path / "index.md").write_text(contents.format(link))
    done = build(tmp_path, tmp_path / "broken")
    assert done.returncode != 0
    assert "missing" in done.stderr
