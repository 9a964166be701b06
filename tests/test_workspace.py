"""The W&B workspace, saved at a stand-in for W&B's server or described without an account; make dashboard."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command import line_of

from autoencoders import workspace
from autoencoders.config import REPOSITORY

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")  # of wandb-workspaces itself


class Server(BaseHTTPRequestHandler):
    """Answers what W&B's client asks of GraphQL; keeps what is to be saved. A project "forbidden" is."""

    saved: list[dict[str, Any]]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        user = {"id": "1", "entity": "ada", "username": "ada", "flags": "{}", "teams": {"edges": []}}
        answer: dict[str, Any] = {"data": {"viewer": user}}
        if "upsertView" in asked["query"]:
            if asked["variables"]["projectName"] == "forbidden":
                answer = {"data": None, "errors": [{"message": "permission denied"}]}
            else:
                self.saved.append(asked["variables"])
                view = {"id": "2", "name": "nw-abc-v"}
                answer = {"data": {"upsertView": {"view": view, "inserted": True}}}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the server is asked to save."""
    Server.saved = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield Server.saved
    server.shutdown()
    thread.join()
    server.server_close()


def panels(section: dict[str, Any]) -> list[str]:
    return [panel["config"].get("chartTitle", panel["viewType"]) for panel in section["panels"]]


def test_it_is_saved_for_whom_is_logged_in(
    saved: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.main(["project=digits", "name=at a glance"])
    (view,) = saved
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("ada", "digits", "at a glance")
    assert "/ada/digits?nw=abc" in capsys.readouterr().out
    section = json.loads(view["spec"])["section"]
    assert section["settings"]["shouldAutoGeneratePanels"]
    sections = {of["name"]: of for of in section["panelBankConfig"]["sections"]}
    assert list(sections)[:4] == ["Reconstructions", "Curves", "Code", "Samples"]
    assert panels(sections["Reconstructions"]) == ["pictures/reconstructions", "Weave"]
    studies = sorted(path.stem for path in (REPOSITORY / "sweeps" / "wandb").glob("*.yaml"))
    assert panels(sections["Sweeps"]) == studies
    search = sections["Sweeps"]["panels"][studies.index("lr_batch")]["config"]["columns"]
    assert [(column["accessor"], column.get("log")) for column in search] == [
        ("config:optimizer.value.lr", True),
        ("config:data.value.batch_size", False),
        ("summary:val/mse", None),
    ]
    line = line_of(lambda: workspace.main(["project=forbidden"]))
    assert line is not None
    assert line.startswith("W&B has not made the workspace (")
    assert "permission denied" in line
    assert len(saved) == 1


def test_without_an_account_it_is_described(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    line = line_of(lambda: workspace.main(["entity=us", "project=digits"]))
    assert line is not None
    assert line.startswith("not logged in to W&B, so nothing was made: `wandb login`")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "workspace autoencoders of the W&B project us/digits:"
    assert said[1].split() == ["Reconstructions", "pictures/reconstructions,", "validation_images"]
    assert len(said) == 7


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("entitiy=us", "no key entitiy: did you mean 'entity'?"),
        ("project=", "project= must be a name"),
        ("project=us/digits", "project=us/digits must be a name"),
    ],
)
def test_a_mistake_is_one_line(word: str, said: str) -> None:
    line = line_of(lambda: workspace.main([word]))
    assert line is not None
    assert line.startswith(said)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_dashboard_opens_the_latest_run(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    wandb = tmp_path / ".venv" / "bin" / "wandb"
    wandb.parent.mkdir(parents=True)
    wandb.write_text('#!/bin/sh\necho "$@"\n')
    wandb.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()

    def dashboard() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--no-print-directory", "dashboard"], cwd=tmp_path, capture_output=True, text=True
        )

    none = dashboard()
    assert none.returncode != 0
    assert none.stderr.splitlines()[0] == (
        "no run in runs/ or multirun/ that W&B has logged offline: python train.py makes one"
    )
    for age, run in enumerate(("multirun/a sweep/0", "runs/vae/1", "runs/vae/2")):
        folder = tmp_path / run / "wandb" / f"offline-run-{age}"
        folder.mkdir(parents=True)
        os.utime(folder, (10**9 - age, 10**9 - age))
    assert dashboard().stdout.splitlines()[-1] == "leet multirun/a sweep/0/wandb"
