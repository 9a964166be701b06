"""What the README and the pages of docs/ say is so."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import command
import pytest
import tiny
import yaml

from autoencoders import ledger, usage
from autoencoders.config import CONF, REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "benchmarks" / "README.md"]
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
FOLDERS = r"(?:src|tests|conf|benchmarks|docs|sweeps)"
FILE = re.compile(  # a module may be named without its folder, a file of another kind is named with it
    rf"`((?:\w+/)*\w+\.py|{FOLDERS}/[\w/.]+\.(?:md|png|json|yaml)|\.ci/run)`"
)
A_RUN = "runs/denoising/2026-01-31_12-00-00"  # the one that the pages name


def choices(group: str) -> list[str]:
    folder = REPOSITORY / group if group == "sweeps" else CONF / group
    return sorted(path.stem for path in folder.glob("[!_]*.yaml"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_readme_is_one_page() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.is_file(), link
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
            assert anchor in ["", *(re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles)]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    of_the_reader = set(re.findall(r"`(my\w+\.py)`", page.read_text()))
    for name in set(FILE.findall(page.read_text())) - of_the_reader:
        places = [REPOSITORY / name, page.parent / name, *REPOSITORY.glob(f"src/*/{name}")]
        assert any(place.exists() for place in places), name


def test_every_promise_has_its_test() -> None:
    page = (REPOSITORY / "docs" / "promises.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    written = "\n".join(path.read_text() for path in (REPOSITORY / "tests").glob("test_*.py"))
    assert len(named) > 40
    assert {name for name in named if f"def {name}(" not in written} == set()


def test_every_choice_is_in_the_table_and_every_choice_of_the_table_is_there() -> None:
    page = (REPOSITORY / "docs" / "training.md").read_text()
    table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page.partition("## Keys")[0], re.MULTILINE))
    assert set(table) == set(usage.GROUPS)
    models = (REPOSITORY / "docs" / "models.md").read_text().partition("Codes are")[0]
    table["model"] = " ".join(re.findall(r"^\| (`\w+`) \|", models, re.MULTILINE))
    for group, cell in table.items():
        assert sorted(re.findall(r"`(\w+)`", cell)) == choices(group)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_choice_that_a_page_makes_is_there(page: Path) -> None:
    text = re.sub(r"```python.*?```", "", page.read_text(), flags=re.DOTALL)
    for group, value in re.findall(rf"(?<![\w.])({'|'.join(usage.GROUPS)})=(\[[\w,]+\]|\w+)", text):
        own = ["mine", *re.findall(rf"`myconf/{group}/(\w+)\.yaml`", text)]  # the reader's
        for name in value.strip("[]").split(","):
            assert name in [*choices(group), *own, "denoisin"], f"{group}={name}"


@pytest.mark.parametrize("group", usage.GROUPS)
def test_every_choice_says_what_it_is(group: str) -> None:
    lines = usage.text(width=120).splitlines()
    for name in choices(group):
        (line,) = [line for line in lines[lines.index(f"{group}=") :] if re.match(rf"  {name}\s", line)][:1]
        about = line[3 + len(name) :].strip()
        assert 5 < len(about) <= 90, line


@pytest.mark.parametrize("width", [80, 100])
def test_the_help_fits_the_terminal(width: int) -> None:
    """... below its first line, which is a command to be pasted."""
    lines = usage.text(width).splitlines()
    assert max(map(len, lines[1:])) <= width
    assert usage.text(width).split() == usage.text(200).split()
    assert len(usage.KEYS) == 10


def test_a_terminal_that_is_not_utf_8_shows_what_it_can() -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), "--help"],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""},
        capture_output=True,
        check=True,
    )
    assert done.stdout.isascii()
    assert b"N(0.5, 0.5?)" in done.stdout


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a run"
    command.train(data_root, folder, "model=denoising", "network=mlp", *command.NO_WANDB)
    return folder


def test_there_is_python_to_run() -> None:
    """None of it is passed over in silence: below, a page without any would be."""
    assert blocks(README, "python")
    tested = [block for block in blocks(REPOSITORY / "docs" / "python.md", "python") if "# tested" in block]
    assert len(tested) >= 3
    assert all(block.startswith("# tested") for block in tested)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{name}-{number}", marks=[] if page == README else pytest.mark.slow)
        for page, name in zip(PAGES, NAMES, strict=True)
        for number, block in enumerate(blocks(page, "python"))
        if page == README or block.startswith("# tested")
    ],
)
def test_the_python_of_the_pages_runs(
    block: str, run: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another directory, on the tiny data; of docs/ the blocks that begin with "# tested"."""
    monkeypatch.setenv("AUTOENCODERS_RUN", str(run))
    small = f"MNIST({str(data_root)!r}, batch_size=16, validation_size={tiny.VALIDATION}, "
    script = tmp_path / "block.py"
    script.write_text(block.replace(A_RUN, str(run)).replace("MNIST(corr", f"{small}corr"))
    command.run(str(script), data_root, cwd=tmp_path)


@pytest.mark.slow
def test_the_code_and_config_of_one_s_own_run(data_root: Path, tmp_path: Path) -> None:
    """The modules and YAML files of docs/own_code.md, by the commands that stand there."""
    page = REPOSITORY / "docs" / "own_code.md"
    text = page.read_text()
    for name, block in re.findall(r"`(\w+\.py)`[^`]*?:\n\n```python\n(.*?)^```", text, re.S | re.M):
        (tmp_path / name).write_text(block)
    for name, block in re.findall(r"`(myconf/[\w/]+\.yaml)`[^\n]*:\n\n```yaml\n(.*?)^```", text, re.S | re.M):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(block)
    lines = [block.strip() for block in blocks(page, "sh")]
    assert len(lines) > 7
    for number, line in enumerate(lines):
        script, *arguments = line.removeprefix("python ").split()
        small = [o for o in tiny.SMALL if "validation_size" not in o or "validation_size" not in line]
        given = [*arguments, *small, f"data.root={data_root}", f"hydra.run.dir=runs/{number}"]
        command.run(script, data_root, *given, *([] if "logger" in line else command.NO_WANDB), cwd=tmp_path)
        assert json.loads((tmp_path / "runs" / str(number) / "metrics.json").read_text())["steps"] > 0


def test_the_ledger_has_six_rows_for_the_readme() -> None:
    marked = [name for name, entry in ledger.entries().items() if entry.get("readme")]
    assert len(marked) == 6


def test_yaml_of_the_pages_is_valid() -> None:
    for page in PAGES:
        for block in blocks(page, "yaml"):
            assert yaml.safe_load(block)


def test_commands_of_the_readme_name_what_is_there() -> None:
    """Programs and targets of make."""
    text = README.read_text()
    targets = re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) <= set(targets)
    assert {REPOSITORY / name for name in re.findall(r"python (\w+\.py)", text)} <= set(
        REPOSITORY.glob("*.py")
    )
    assert shutil.which("make")
