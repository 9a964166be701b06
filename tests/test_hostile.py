"""A checkpoint, a run folder or a sweep folder that someone else has made runs no code of its own, leads
nowhere and tells nothing."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import folders
import pytest
import tiny
import torch
import yaml
from command import line_of
from conftest import Compose

from autoencoders import config, errors, jobs, runs, sweeps
from autoencoders.errors import UserError
from autoencoders.evaluation import best_model, generation, report
from autoencoders.evaluation.subject import Subject
from autoencoders.training import build_data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    return folders.make(tmp_path_factory.mktemp("runs") / "run", data_root)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run folder that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def say(folder: Path, *overrides: str) -> None:
    """Puts overrides into a run folder, beside those that it has."""
    path = folder / ".hydra" / "overrides.yaml"
    path.write_text(yaml.safe_dump([*yaml.safe_load(path.read_text()), *overrides]))


def sweep(folder: Path, task: list[str], hydra: list[str]) -> Path:
    """A sweep's folder before its first job."""
    folder.mkdir(exist_ok=True)
    (folder / "multirun.yaml").write_text(
        yaml.safe_dump({"hydra": {"overrides": {"task": task, "hydra": hydra}}})
    )
    return folder


def resume(folder: Path) -> object:
    return runs.expand_resume([f"resume={folder}"])


def evaluate(folder: Path) -> object:
    return runs.compose_run([f"run={folder}"])


def refused(start: Callable[[Path], object], folder: Path) -> str:
    """The line in which a folder is refused."""
    line = line_of(lambda: start(folder))
    assert line is not None, "it was taken"
    return line


OVERRIDES = [
    "model._target_=os.system",
    "+model.x._target_=os.system",
    "++model={_target_: os.system}",
    "network.hidden=[{_target_: os.system}]",
    "+network.hidden.a._target_=os.system",
    "corruption._target_=autoencoders.models.VAE",
    "model._target_=autoencoders.models.VAE.load_from_checkpoint",
    "model._target_=autoencoders.models.base.torch.load",
    "trainer._target_=lightning.pytorch.cli.LightningCLI",
    "+trainer.callbacks={_target_: os.system}",
    "+trainer.callbacks=[{_target_: os.system, command: id}]",
    "+model._partial_=true",
    "+model._args_=[1]",
    "hydra.callbacks.x._target_=os.system",
    "+hydra.callbacks.x._target_=os.system",
    "hydra.searchpath=[file:///tmp]",
    "hydra/job_logging=default",
    "hydra.launcher._target_=os.system",
    "hydra.run.dir=/tmp/elsewhere",
    "hydra.job.chdir=true",
    "hydra=x",
    "+hydra={mode: MULTIRUN}",
    "+model@hydra=vae",
    "+model@hydra.callbacks.x=vae",
    "+model@_global_=vae",
    "--config-dir=/tmp",
    "--config-path=/tmp",
    "-m",
    "--multirun",
    "--package-overrides=x",
    "model=../../../tmp/evil",
    "model=/tmp/evil",
    "experiment=../../tmp/evil",
    "experiment=[quick,../evil]",
    "logger.project=${oc.env:SECRET}",
    "logger.project=$\\{oc.env:SECRET\\}",
    "logger.tags=['a ${oc.env:SECRET}']",
    "logger.tags=[{a: '${oc.env:SECRET}'}]",
    "logger.project='${oc.decode:${oc.env:SECRET}}'",
    "data.root=${oc.env:HOME}",
    "data.root=${hydra:runtime.cwd}",
    "+anything=1",
    "+oc.env=1",
    "model",
    "",
    "=",
    "model.lr=[",
    "~data.root",
    "~model",
    "data.input_shape=[1,5,5]",
    "logger.project=https://me:sesame@host",
]  # fmt: skip


@pytest.mark.parametrize("start", [resume, evaluate])
@pytest.mark.parametrize("override", OVERRIDES)
def test_a_stored_override_says_no_more_than_choices_and_values(
    override: str, start: Callable[[Path], object], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    say(run, override)
    line = refused(start, run)
    assert "sesame" not in line


@pytest.mark.parametrize(
    "override",
    [
        *(
            o
            for o in OVERRIDES
            if o.startswith(("-", "hydra.", "hydra=", "+hydra", "model=.", "logger", "+any"))
        ),
        "hydra.sweeper._target_=os.system",
        "hydra.sweeper.params.hydra.callbacks.x._target_=os.system",
        "hydra.sweeper.params.model=../evil,vae",
        "hydra.sweeper.params.logger.project='${oc.env:SECRET}'",
        "hydra.launcher.setup=[id]",
        "hydra.launcher.python=/tmp/evil",
        "hydra/launcher=../evil",
        "hydra.sweep.subdir='${oc.env:SECRET}'",
        "hydra.callbacks.levels._target_=os.system",
    ],
)
def test_a_sweep_takes_no_more_of_its_file(override: str, tmp_path: Path) -> None:
    for task, of_hydra in (([], [override]), ([override], [])):
        folder = sweep(tmp_path / "sweep", task, of_hydra)
        assert "multirun.yaml" in refused(resume, folder)


def test_a_sweep_is_resumed_as_it_was_started(tmp_path: Path) -> None:
    task = ["model=vae,linear", "model.lr=choice(1e-3,2e-3)", "seed=range(3)", "trust=true"]
    of_hydra = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=/elsewhere", "hydra/launcher=processes"]
    of_hydra += [
        "hydra.sweep.subdir='d ${trainer.devices}, ${hydra:job.num}'",
        "hydra.launcher.side_by_side=2",
    ]
    of_hydra += ["hydra.sweeper.params.model.code_dim='2,4'", "hydra.callbacks.summary.metric=test/mse"]
    expanded = runs.expand_resume([f"resume={sweep(tmp_path, task, of_hydra)}", "seed=1"])
    assert expanded == [
        "-m",
        *task[:3],
        of_hydra[0],
        *of_hydra[2:],
        f"hydra.sweep.dir='{tmp_path}'",
        "seed=1",
    ]


def test_a_damaged_journal_of_optuna_is_named(tmp_path: Path) -> None:
    (tmp_path / "optuna.log").write_text("[1]\n")
    command = ["train.py", "sweeps=lr_batch", "logger=csv", f"hydra.sweep.dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=tiny.REPOSITORY, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'optuna.log'} is no journal of Optuna's")
    assert done.stderr.count("\n") == 1


def test_a_job_s_folder_is_one_of_its_sweep_s(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    for subdir in ("../other", "/tmp/other", "."):
        said = [f"hydra.sweep.dir={tmp_path}", f"hydra.sweep.subdir={subdir}", "hydra.job.num=0"]
        with initialize_config_dir(str(tiny.REPOSITORY / "conf"), version_base="1.3"):
            cfg = compose("train", said, return_hydra_config=True)
        with pytest.raises(UserError, match="must be a folder of the sweep's own"):
            jobs.Job.of(cfg)


def test_classes_of_one_s_own_need_the_flag_from_the_command_line(run: Path, composed: Compose) -> None:
    own = "model._target_=tests.mine.Model"
    with pytest.raises(UserError, match=r"tests\.mine\.Model is no class of this project.*trust=true"):
        config.check(composed(own))
    config.check(composed(own, "trust=true"))
    say(run, own, "trust=true")
    assert "trust=true" in refused(evaluate, run)
    assert "trust=true" in refused(resume, run)
    assert runs.compose_run([f"run={run}", "trust=true"])[1].model._target_ == "tests.mine.Model"
    assert runs.expand_resume([f"resume={run}", "trust=true"])[-1] == "trust=true"


def test_every_class_that_conf_names_is_there() -> None:
    from hydra.utils import get_class

    names = [name for group in config.classes().values() for name in group]
    assert len(names) > 15
    for name in names:
        assert isinstance(get_class(name), type)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [touch {}]", "!!python/name:os.system", "!env X"]
)
def test_no_tag_of_yaml_is_honoured(tag: str, run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (run / ".hydra" / "overrides.yaml").write_text(f"- {tag.format(marker)}\n- model=vae\n")
    refused(evaluate, run)
    (run / "multirun.yaml").write_text(f"hydra:\n  overrides: {tag.format(marker)}\n")
    refused(resume, run)
    (run / "config.yaml").write_text(f"model:\n  code_dim: {tag.format(marker)}\n")
    sweeps.read_job(run)
    assert not marker.exists()


class Touch:
    """What unpickling would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "nested"])
def test_a_checkpoint_runs_no_code(form: str, run: Path, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", run / "checkpoints" / "best.ckpt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Touch(marker)))
    else:
        content = {"state_dict": {}, "callbacks": {"a": Touch(marker)}} if form == "nested" else Touch(marker)
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(UserError, match=r"best\.ckpt is damaged, or no checkpoint"):
        best_model(*evaluate(run))  # type: ignore[misc]
    assert not marker.exists()


def test_a_classifier_beside_the_data_runs_no_code(
    composed: Compose, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... but is trained anew."""
    monkeypatch.setattr(generation, "STEPS", 1)
    data = build_data(composed(f"data.root={shutil.copytree(data_root, tmp_path / 'data')}"))
    data.setup("fit")
    path = tmp_path / "data" / "mnist" / f"digitnet-1-{len(data.train.images)}.pt"
    path.unlink(missing_ok=True)  # of another test, which may have trained it for longer
    expected = generation.classifier(data).state_dict()
    for content in (Touch(tmp_path / "marker"), {"head.bias": torch.ones(10)}):
        torch.save(content, path)
        anew = generation.classifier(data).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in anew.items())
    assert not (tmp_path / "marker").exists()


def test_a_checkpoint_names_no_class(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """... as Lightning's load_from_checkpoint would import it; the weights are those of the run's model."""
    marker = tmp_path / "marker"
    (tmp_path / "evil.py").write_text(f"from pathlib import Path; Path({str(marker)!r}).touch()")
    monkeypatch.syspath_prepend(tmp_path)
    path = run / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] = {"_instantiator": "evil.make", "_class_path": "evil.Model"}
    torch.save(content, path)
    model = best_model(*evaluate(run))  # type: ignore[misc]
    assert all(torch.equal(content["state_dict"][name], value) for name, value in model.state_dict().items())
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [".hydra", ".hydra/overrides.yaml", "checkpoints", "checkpoints/best.ckpt", "evaluation", "figures",
     "evaluation/report.html", "metrics.json", "metrics.csv", "wandb", "wandb-id.txt", "other"],
)  # fmt: skip
@pytest.mark.parametrize("start", [resume, evaluate])
def test_no_link_leads_out_of_a_run_folder(
    name: str, start: Callable[[Path], object], run: Path, tmp_path: Path
) -> None:
    outside, link = tmp_path / "outside", run / name
    if link.exists():
        link.rename(outside)
    link.symlink_to(outside)
    assert f"{link} leads out of" in refused(start, run)
    assert name in str(link)


def test_links_within_a_run_folder_and_to_it_are_followed(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints").rename(run / "kept")
    (run / "checkpoints").symlink_to("kept")
    (tmp_path / "link").symlink_to(run)
    logs = run / "wandb" / "offline-run-1" / "logs"
    logs.mkdir(parents=True)
    (logs / "debug-core.log").symlink_to(tmp_path / "log")  # W&B's own
    assert evaluate(tmp_path / "link")


def test_no_link_leads_out_of_a_sweep_folder(data_root: Path, tmp_path: Path) -> None:
    """... as to a secret that would be told as the reason of a job's failure."""
    sweep = folders.make(tmp_path / "sweep" / "0", data_root).parent
    sweeps.summarize(sweep)
    (tmp_path / "netrc").write_text("password sesame")
    (sweep / "0" / "error.txt").symlink_to(tmp_path / "netrc")
    with pytest.raises(UserError, match="leads out of"):
        sweeps.summarize(sweep)
    assert "sesame" not in (sweep / "summary.csv").read_text()


def test_what_would_never_end_is_no_file(run: Path) -> None:
    (run / "metrics.csv").unlink()
    os.mkfifo(run / "metrics.csv")
    assert "neither a file nor a folder" in refused(resume, run)


@pytest.mark.parametrize("content", ["", "../../x", "a b", "id\n", "é" * 100, "x" * 100])
def test_an_id_of_wandb_is_a_plain_word(content: str, run: Path) -> None:
    (run / "wandb-id.txt").write_text(content)
    assert "wandb-id.txt" in refused(evaluate, run)


def test_a_stored_place_of_data_is_only_taken_where_data_is(
    run: Path, data_root: Path, tmp_path: Path
) -> None:
    assert evaluate(run)[1].data.root == str(data_root)  # type: ignore[index]
    say(run, f"data.root={tmp_path / 'nowhere'}")
    assert evaluate(run)[1].data.root == str(data_root)  # type: ignore[index]


def test_the_commands_refuse_a_hostile_folder(run: Path, tmp_path: Path) -> None:
    """... as a user meets them, in one line."""
    marker = tmp_path / "marker"
    torch.save({"state_dict": Touch(marker)}, run / "checkpoints" / "best.ckpt")
    (tmp_path / "error.txt").touch()
    (run / "error.txt").symlink_to("/etc/hostname")
    for command, message in (
        (["train.py", f"resume={run}", "model._target_=os.system"], "leads out of"),
        (["-m", "autoencoders.sweeps", str(tmp_path)], "leads out of"),
        (["evaluate.py", f"run={run}"], "best.ckpt is damaged, or no checkpoint"),
    ):
        if command[0] == "evaluate.py":
            (run / "error.txt").unlink()
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, cwd=tiny.REPOSITORY, timeout=60
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not marker.exists()


# ---- secrets -----------------------------------------------------------------------------------------------


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    shown = errors.one_line(
        "0123456789abcdef https://me:a@b@host/a?token=t1&page=2 WANDB_API_KEY=k1 --password=p1 \x1b[3m\nend"
    )
    assert shown == "*** https://***@host/a?token=***&page=2 WANDB_API_KEY=*** --password=*** �[3m end"
    assert errors.redacted(shown) == shown


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
@pytest.mark.parametrize(
    "argument",
    [
        "data.root=0123456789abcdef",
        "+trainer.x=['https://me:hidden1@host']",
        "data.root='/a?token=hidden1'",
        "data.root=${oc.env:MINE}",
    ],
)
def test_secrets_reach_no_file(script: str, argument: str, run: Path, tmp_path: Path) -> None:
    place = [f"run={run}"] if script == "evaluate.py" else ["hydra.run.dir=new"]
    before = sorted(tmp_path.rglob("*"))
    environment = {**os.environ, "WANDB_API_KEY": "0123456789abcdef", "MINE": "wss://me:hidden1@host"}
    command = [sys.executable, str(tiny.REPOSITORY / script), *place, argument]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 1
    assert "holds a password or a key" in done.stderr or "asks for more than a key's value" in done.stderr
    assert "hidden1" not in done.stderr
    assert "0123456789abcdef" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


# ---- pages -------------------------------------------------------------------------------------------------

EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>"


class Page(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and its scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_shows_hostile_strings_as_text(data_root: Path, tmp_path: Path) -> None:
    run = folders.make(tmp_path / "run", data_root)
    known = {"command": [EVIL], "started": EVIL, "versions": {EVIL: EVIL}, "git": {"commit": EVIL}}
    (run / "environment.json").write_text(json.dumps(known))
    cfg = runs.compose_run([f"run={run}"])[1]
    subject = Subject(best_model(run, cfg), build_data(cfg))
    cfg.data.root = EVIL
    subject.data.classes = (EVIL,) * 10  # type: ignore[misc]
    (evil := run / EVIL.replace("/", "|")).mkdir()
    (evil / "evaluation" / "figures").mkdir(parents=True)
    (evil / "evaluation" / "figures" / f"{evil.name}.png").write_bytes(b"")
    shutil.copy(run / "environment.json", evil)
    report.write(evil, {EVIL: {EVIL: {EVIL: EVIL}}}, [evil.name], subject, {}, cfg)
    page = Page(evil / "evaluation" / "report.html")
    assert page.tags.count("script") == 2
    assert {tag for tag in page.tags if tag in ("img", "script", "iframe", "a")} == {"img", "script"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert {value[:5] for name, value in page.attributes if name == "src" and value} == {"data:"}
    assert page.text.count("onerror") > 8  # they are shown


def test_a_sweep_s_page_shows_hostile_strings_as_text(data_root: Path, tmp_path: Path) -> None:
    whole = folders.make(tmp_path / "whole", data_root)
    sweep = tmp_path / f"sweep {EVIL.replace('/', '|')}"
    names = [EVIL.replace("/", "|"), "javascript:alert(1)", "b"]
    for name in names:
        shutil.copytree(whole, sweep / name)
        (sweep / name / "evaluation" / "report.html").touch()
        say(sweep / name, f"logger.tags=['{EVIL} {name}']", f"model.{EVIL}={name}")
    (sweep / "b" / "error.txt").write_text(f"{EVIL} \x1b[2J")
    (sweep / "b" / "metrics.json").write_text(json.dumps({EVIL: 1.0, "val/mse": 0.1}))
    sweeps.summarize(sweep)
    page = Page(sweep / "summary.html")
    assert page.tags.count("script") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name == "href"]
    assert links == [f"{quote(name)}/evaluation/report.html" for name in sorted(names, key=len)]
    assert all(link.startswith(("%", "javascript%3A", "b/")) for link in links if link)
    assert page.text.count("onerror") > 4
    assert "\x1b" not in page.text
