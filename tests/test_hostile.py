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
from typing import Any
from urllib.parse import quote

import folders
import pytest
import tiny
import torch
import yaml
from command import line_of, run, small
from conftest import Compose
from omegaconf import OmegaConf

import autoencoders
from autoencoders import config, errors, figures, jobs, runs, sweeps, training, untrusted
from autoencoders.errors import UserError
from autoencoders.evaluation import best_model, generation, report
from autoencoders.evaluation.subject import Subject
from autoencoders.training import build_data, build_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    return folders.make(tmp_path_factory.mktemp("runs") / "run", data_root)


@pytest.fixture
def stranger(made: Path, tmp_path: Path) -> Path:
    """A run folder that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that there is once the module `evil` is imported, or anything in it called."""
    path = tmp_path / "marker"
    (tmp_path / "modules" / "evil").mkdir(parents=True)
    (tmp_path / "modules" / "evil" / "__init__.py").write_text(
        f"from pathlib import Path\nPath({str(path)!r}).touch()\nModel = Path({str(path)!r}).touch\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return path


def resume(folder: Path, *more: str) -> object:
    command = runs.Command.parse("resume", [f"resume={folder}", *more], "train.py")
    assert command is not None
    if not sweeps.is_sweep(folder):
        return runs.compose_resumed(command)
    return sweeps.search_again(command, [f"resume={folder}", *more]) or jobs.of_sweep(command)


def rerun(folder: Path, *more: str) -> object:
    command = runs.Command.parse("rerun", [f"rerun={folder}", *more], "train.py")
    assert command is not None
    return runs.compose_rerun(command)


def evaluate(folder: Path, *more: str) -> tuple[Path, Any]:
    return runs.compose_evaluated([f"run={folder}", *more])


STARTS: list[Callable[[Path], object]] = [resume, rerun, evaluate, autoencoders.load]


def refused(start: Callable[[Path], object], folder: Path) -> str:
    """The line in which a folder is refused."""
    line = line_of(lambda: start(folder))
    assert line is not None, "it was taken"
    return line


def put(folder: Path, key: str, value: Any) -> None:
    """Sets a key, such as "model.x.0", of the config that a run is rebuilt from."""
    path = folder / runs.CONFIG
    content = node = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(node.get(name), dict):
            node[name] = {}
        node = node[name]
    node[last] = value
    path.write_text(yaml.safe_dump(content))


def say(folder: Path, *overrides: str) -> None:
    """Puts overrides into a run folder, beside those that it has."""
    path = folder / runs.OVERRIDES
    path.write_text(yaml.safe_dump([*yaml.safe_load(path.read_text()), *overrides]))


# ---- the config that a run is rebuilt from -----------------------------------------------------------------

EVIL_CLASS = {"_target_": "evil.Model"}


def nested(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


CLASSES: list[tuple[str, Any]] = [
    ("_target_", "evil.Model"),
    *(
        (f"{group}._target_", "evil.Model")
        for group in ("model", "data", "corruption", "network", "optimizer", "scheduler", "trainer",
                      "callbacks.x", "logger.x", "callbacks", "logger", "checkpoint", "figures", "evaluation",
                      "network.encoder", "network.decoder", "corruption.steps.a", "anything", "trust")
    ),
    *(
        (f"trainer.{key}", value)
        for key in ("callbacks", "plugins", "strategy", "profiler", "logger", "accelerator", "x")
        for value in (EVIL_CLASS, [EVIL_CLASS], [[{"a": EVIL_CLASS}]])
    ),
    *((key, EVIL_CLASS) for key in ("seed", "objective", "ema", "init", "evaluate", "model.network",
                                    "model.optimizer", "model.code_dim", "data.corruption", "data.root")),
    *((f"{group}.x", nested(EVIL_CLASS, depth)) for group in ("model", "data", "callbacks", "anything")
      for depth in (1, 2, 3, 10)),
    ("model._target_", "autoencoders.models.VAE.load_from_checkpoint"),
    ("model._target_", "autoencoders.models.base.torch.load"),
    ("model._target_", "autoencoders.corruption.Gaussian"),
    ("corruption._target_", "autoencoders.models.VAE"),
    ("trainer._target_", "lightning.pytorch.cli.LightningCLI"),
    ("callbacks.x._target_", "lightning.pytorch.callbacks.ModelCheckpoint"),
    ("logger.x._target_", "lightning.pytorch.loggers.CSVLogger"),
    ("logger.wandb", {"_target_": "autoencoders.loggers.Wandb",
                      "tags": [{"_target_": "autoencoders.loggers.Wandb"}]}),
    *(("model._target_", value) for value in ([], {}, ["evil.Model"], {"a": "evil.Model"}, 5, None, "", True,
                                              "${objective}", "evil.Model\n")),
    ("model._partial_", 1), ("model._partial_", "true"), ("model._partial_", "${evaluate}"),
    ("model._args_", [1]), ("model._convert_", "all"), ("model._recursive_", False), ("model._mode_", "x"),
    ("callbacks.x", {"_args_": []}), ("model.x", [{"_convert_": "none"}]), ("network._x_", 1),
]  # fmt: skip
RESOLVED: list[tuple[str, Any]] = [
    *(
        (key, value)
        for key in ("model.code_dim", "objective", "data.root", "corruption.x", "callbacks.x.y")
        for value in (
            "${oc.env:SECRET}", "\\${oc.env:SECRET}", "a ${oc.env:SECRET}", "${ oc.env:SECRET }",
            ["${oc.env:SECRET}"], [{"a": "a ${oc.env:SECRET}"}], {"a": ["${oc.env:SECRET}"]},
            "${oc.decode:${oc.env:SECRET}}", "${oc.create:{a:1}}", "${oc.select:seed}",
            "${oc.deprecated:seed}", "${oc.dict.values:trainer}", "${hydra:runtime.cwd}", "${now:%Y}",
            "${started:}", "${repository:x}",
            "${model.${objective}}", "${oc.env:${objective}}", "${seed", "${", "${}",
        )
    ),
    ("logger.wandb", {"_target_": "autoencoders.loggers.Wandb", "project": "${oc.env:SECRET}"}),
    ("logger.wandb", {"_target_": "autoencoders.loggers.Wandb", "tags": ["a ${oc.env:SECRET}"]}),
    ("logger", "${oc.env:SECRET}"),
]  # fmt: skip
PLACES: list[tuple[str, Any]] = [
    ("trainer.default_root_dir", "/tmp/evil"), ("trainer.default_root_dir", "${objective}"),
    ("trainer.default_root_dir", ["/tmp/evil"]), ("trainer.model_registry", "evil"),
    ("checkpoint.path", "/tmp/evil"), ("callbacks.x.dirpath", "/tmp/evil"),
    ("callbacks.x.filename", "../evil"), ("figures.dir", ".."), ("anything.host", "evil.org"),
    *(("logger.x", {"_target_": target, **arguments}) for target, arguments in (
        ("autoencoders.loggers.MLflow", {"tracking_uri": "https://evil.org"}),
        ("autoencoders.loggers.Wandb", {"settings": {"base_url": "https://evil.org"}}),
        ("autoencoders.loggers.Wandb", {"settings": {"x_extra_http_headers": {"a": "b"}}}),
        ("autoencoders.loggers.Wandb", {"settings": "${anything}"}),
        ("autoencoders.loggers.Wandb", {"entity": "evil"}), ("autoencoders.loggers.Wandb", {"id": "evil"}),
        ("autoencoders.loggers.Wandb", {"save_dir": "/tmp/evil"}),
        ("autoencoders.loggers.Wandb", {"tags": {"a": {"b": "c"}}}),
        ("autoencoders.loggers.TensorBoard", {"log_dir": "/tmp/evil"}),
        ("autoencoders.loggers.TensorBoard", {"filename_suffix": "/../../evil"}),
    )),
]  # fmt: skip


@pytest.mark.parametrize("hostile", [CLASSES, RESOLVED, PLACES], ids=["classes", "resolved", "places"])
def test_a_run_s_config_says_no_more_than_choices_and_values(
    hostile: list[tuple[str, Any]], made: Path, stranger: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    for index, (key, value) in enumerate(hostile):
        shutil.copy(made / runs.CONFIG, stranger / runs.CONFIG)
        put(stranger, key, value)
        line = refused(STARTS[index % len(STARTS)], stranger)
        assert str(stranger / runs.CONFIG) in line, (key, value)
        assert "sesame" not in line
    assert not marker.exists()


def test_weights_that_a_run_started_from_are_not_followed(stranger: Path) -> None:
    """... out of its folder: what is trained does not need them, and training it again asks for trust."""
    put(stranger, "init", "/tmp/evil")
    resumed: Any = resume(stranger)
    assert resumed.init is evaluate(stranger)[1].init is None
    assert "started from init=/tmp/evil, out of its folder" in refused(rerun, stranger)
    shutil.rmtree(stranger / "checkpoints")
    assert "started from init=/tmp/evil, out of its folder" in refused(resume, stranger)


def test_hydra_composes_no_more_into_a_run_s_config(stranger: Path, marker: Path) -> None:
    """... not even with trust=true: a defaults list would be read, and files of the stranger's folder."""
    experiment = stranger / "experiment" / "x.yaml"
    experiment.parent.mkdir()
    experiment.write_text("# @package _global_\nmodel:\n  _target_: evil.Model\n")
    for hydra in ({"searchpath": [f"file://{stranger}"]}, {"searchpath": ["pkg://evil"]}):
        for top in ("hydra", "defaults"):
            put(stranger, top, hydra if top == "hydra" else ["_self_", {"experiment": "x"}])
            for start in STARTS:
                assert "is not the config of a run: it has a key" in refused(start, stranger)
            assert "it has a key" in refused(lambda folder: evaluate(folder, "trust=true"), stranger)
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        "", "- a", "a", "5", "null", "a: [", "\x00", "\ufffe", "? [a]\n: b", "5: a", "a: &a [*a]",
        "a: !!python/object/apply:evil.Model []", "a: !!python/name:evil.Model", "a: !!python/module:evil",
        "a: !!python/object/new:evil.Model []", "a: !env X", "a: !!set {b}", "a: !!timestamp 2001-01-01",
        "[" * 5000, "{a: " * 5000, "a: " + "[" * 900 + "]" * 900, "a: &a b\nc: *a", "<<: *a",
        "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i},*a{i}]\n" for i in range(40)),
        "model: null", "model: {}", "a: " + "x" * untrusted.LARGEST,
    ],
)  # fmt: skip
def test_what_is_no_config_is_refused(text: str, stranger: Path, marker: Path) -> None:
    """... and what YAML could make of it is not made: tags, aliases of aliases, what is too deep or large."""
    (stranger / runs.CONFIG).write_text(text)
    for start in STARTS:
        assert str(stranger / runs.CONFIG) in refused(start, stranger)
    assert not marker.exists()


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:pathlib.PosixPath [/tmp, evil]",
        "!!binary L3RtcC9ldmls",
        "!!timestamp 2001-01-01",
    ],
)
@pytest.mark.parametrize("key", ["default_root_dir: null", "root: "])
def test_a_value_is_plain(key: str, value: str, stranger: Path) -> None:
    """OmegaConf takes paths and bytes from YAML, which say as much as texts."""
    path = stranger / runs.CONFIG
    lines = path.read_text().splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.strip().startswith(key))
    lines[at] = lines[at].partition(":")[0] + ": " + value
    path.write_text("\n".join(lines))
    for start in STARTS:
        assert str(path) in refused(start, stranger)


def test_what_keys_refer_to_is_bounded(stranger: Path) -> None:
    doubled: list[Any] = ["${anything.k{}}${anything.k{}}", ["${anything.k{}}", "${anything.k{}}"]]
    for value in doubled:
        texts = json.dumps(value)
        keys = {f"k{i}": json.loads(texts.replace("{}", str(i + 1))) for i in range(40)}
        put(stranger, "anything", {**keys, "k40": "x"})
        for start in STARTS:
            assert "is too large" in refused(start, stranger)
    itself: list[Any] = ["${anything}", {"a": "${anything}"}, {"a": "${.b}", "b": "${.a}"}]
    for value in itself:
        put(stranger, "anything", value)
        for start in STARTS:
            assert "refers to itself" in refused(start, stranger)


def test_plain_values_and_choices_are_taken(stranger: Path) -> None:
    """... of everything that conf/ has, of several loggers and callbacks, and ${...} of other keys."""
    for key, value in (
        ("network", {"_target_": "autoencoders.networks.Conv", "channels": [4, "${model.code_dim}"]}),
        ("corruption", OmegaConf.to_container(config.compose_conf(["corruption=compose"]).corruption)),
        ("logger", OmegaConf.to_container(config.compose_conf(["logger=[wandb,tensorboard,mlflow]"]).logger)),
        ("logger.mlflow.tags", {"mine": "yes"}),
        ("callbacks", OmegaConf.to_container(
            config.compose_conf(["callbacks=[early_stopping,lr_monitor,timer,device_stats]"]).callbacks)),
        ("trainer.callbacks", ["${callbacks.timer}"]),
        ("anything", {"a": [1, 1.5, None, True, "${seed}", "b ${..b}"], "b": "ü"}),
    ):  # fmt: skip
        put(stranger, key, value)
    resume(stranger)
    rerun(stranger)
    assert evaluate(stranger)[1].anything.a[5] == "b ü"


def test_trust_is_the_command_line_s(stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """... own classes are used with trust=true there, not by what the folder says."""
    (tmp_path / "of_mine.py").write_text(
        "from autoencoders.models import Autoencoder\nclass Model(Autoencoder): ..."
    )
    monkeypatch.syspath_prepend(tmp_path)
    put(stranger, "model._target_", "of_mine.Model")
    put(stranger, "trust", True)
    say(stranger, "trust=true", "model._target_=of_mine.Model")
    for start, command in (
        (resume, f"python train.py resume={stranger} trust=true"),
        (rerun, f"python train.py rerun={stranger} trust=true"),
        (evaluate, f"run={stranger} trust=true"),
        (autoencoders.load, f"autoencoders.load('{stranger}', trust=True)"),
    ):
        line = refused(start, stranger)
        assert "model._target_=of_mine.Model is not a class of this project" in line
        assert line.endswith(command)
    assert "of_mine" not in sys.modules
    refused(lambda folder: evaluate(folder, "trust=false"), stranger)
    for trusting in (resume, rerun, evaluate):
        trusting(stranger, "trust=true")
    assert type(autoencoders.load(stranger, trust=True).model).__name__ == "Model"
    put(stranger, "model._target_", "autoencoders.models.Autoencoder")
    assert evaluate(stranger)[1].trust is False
    assert autoencoders.load(stranger).config.trust is False


def test_every_class_that_conf_names_is_there() -> None:
    from hydra.utils import get_object

    names = [name for group in untrusted.classes().values() for name in group]
    assert len(names) > 35
    for name in names:
        assert name == "???" or callable(get_object(name))


def test_a_stored_place_of_data_is_only_taken_where_data_is(
    stranger: Path, data_root: Path, tmp_path: Path
) -> None:
    assert evaluate(stranger)[1].data.root == str(data_root)
    for nowhere in (str(tmp_path / "nowhere"), "", "\0", "x" * 5000, "${objective}", "/proc", "~"):
        put(stranger, "data.root", nowhere)
        assert evaluate(stranger)[1].data.root == str(tiny.REPOSITORY / "data")
    assert evaluate(stranger, f"data.root={data_root}")[1].data.root == str(data_root)


def test_a_profiler_and_an_objective_are_words(stranger: Path, marker: Path) -> None:
    put(stranger, "trainer.profiler", "evil.Model")
    put(stranger, "objective", "evil.Model")
    command = runs.Command.parse("resume", [f"resume={stranger}"], "train.py")
    assert command is not None
    cfg = runs.compose_resumed(command)
    assert "profiler" in str(line_of(lambda: training.build_trainer(cfg, stranger, [])))
    assert not marker.exists()


# ---- overrides in a folder ---------------------------------------------------------------------------------

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
    "+hydra.searchpath=[pkg://evil]",
    "++hydra.searchpath=[pkg://evil]",
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
    "logger.wandb.project=${oc.env:SECRET}",
    "logger.project=${oc.env:SECRET}",
    "logger.wandb.project=$\\{oc.env:SECRET\\}",
    "logger.wandb.tags=['a ${oc.env:SECRET}']",
    "logger.wandb.tags=[{a: '${oc.env:SECRET}'}]",
    "logger.wandb.project='${oc.decode:${oc.env:SECRET}}'",
    "data.root=${oc.env:HOME}",
    "data.root=${hydra:runtime.cwd}",
    "+anything=1",
    "+oc.env=1",
    "+trust=true",
    "++trust=true",
    "~trust",
    "model",
    "",
    "=",
    "model.lr=[",
    "logger.wandb.project=https://me:sesame@host",
]  # fmt: skip


def test_overrides_in_a_run_s_folder_are_only_shown(
    stranger: Path, marker: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """... what is composed is the config; and what would steer a terminal does not."""
    monkeypatch.setenv("SECRET", "sesame")
    before = [evaluate(stranger)[1], resume(stranger), autoencoders.load(stranger).config]
    shown = yaml.safe_load((stranger / runs.OVERRIDES).read_text())
    others = ["model.lr=\x1b[2J", "\0", "🙂", "a" * 5000]
    (stranger / runs.OVERRIDES).write_text(yaml.safe_dump([*shown, *OVERRIDES, *others]))
    assert [evaluate(stranger)[1], resume(stranger), autoencoders.load(stranger).config] == before
    for override in (o for o in OVERRIDES if "evil" in o or "SECRET" in o):
        (stranger / runs.OVERRIDES).write_text(yaml.safe_dump([*shown, override]))
        rerun(stranger)
    known = json.loads((stranger / "environment.json").read_text())
    known["versions"] = {"torch": "\x1b[2J", "lightning": "1\n2"}
    (stranger / "environment.json").write_text(json.dumps(known))
    put(stranger, "model.likelihood", "\x1b[2J")
    capsys.readouterr()
    rerun(stranger)
    out = capsys.readouterr().out
    assert "torch was" in out
    assert "\x1b" not in out
    assert "sesame" not in out
    assert out.count("\n") == 1
    assert not marker.exists()


def sweep(folder: Path, task: list[str], of_hydra: list[str], sweeper: str = "TPESweeper") -> Path:
    """A sweep's folder before its first job."""
    folder.mkdir(exist_ok=True)
    target = {"_target_": f"hydra_plugins.autoencoders_sweeper.{sweeper}"}
    hydra = {"overrides": {"task": task, "hydra": of_hydra}, "sweeper": target}
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    return folder


@pytest.mark.parametrize(
    "override",
    [
        *OVERRIDES,
        "hydra.sweeper._target_=os.system",
        "hydra.sweeper.params.hydra.callbacks.x._target_=os.system",
        "hydra.sweeper.params.model=../evil,vae",
        "hydra.sweeper.params.logger.wandb.project='${oc.env:SECRET}'",
        "hydra.sweeper.params.trust=true,false",
        "hydra.launcher.setup=[id]",
        "hydra.launcher.python=/tmp/evil",
        "hydra/launcher=../evil",
        "hydra.sweep.subdir='${oc.env:SECRET}'",
        "hydra.callbacks.levels._target_=os.system",
        "hydra.callbacks.summary._target_=os.system",
    ],
)
def test_a_search_takes_no_more_of_its_file(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs are chosen as it goes, so it is composed of the overrides in its file."""
    monkeypatch.setenv("SECRET", "sesame")
    for task, of_hydra in (([], [override]), ([override], [])):
        line = refused(resume, sweep(tmp_path / "sweep", task, of_hydra))
        assert "multirun.yaml" in line
        assert "sesame" not in line


def test_a_search_is_resumed_as_it_was_started(tmp_path: Path) -> None:
    task = ["model=vae,linear", "model.lr=choice(1e-3,2e-3)", "seed=range(3)", "trust=true"]
    of_hydra = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=/elsewhere", "hydra/launcher=processes"]
    of_hydra += ["hydra.sweep.subdir='d ${trainer.devices}, ${hydra:job.num}'"]
    of_hydra += ["hydra.launcher.side_by_side=2"]
    of_hydra += ["hydra.sweeper.params.model.code_dim='2,4'", "hydra.callbacks.summary.metric=test/mse"]
    expected = [
        "-m", task[0], "optimizer.lr=choice(1e-3,2e-3)", task[2], of_hydra[0], *of_hydra[2:4],
        "hydra.launcher.max_parallel=2", *of_hydra[5:], f"hydra.sweep.dir='{tmp_path}'", "seed=1",
    ]  # fmt: skip
    assert resume(sweep(tmp_path, task, of_hydra), "seed=1") == expected
    folder = sweep(tmp_path, ["+callbacks.x._target_=mine.Callback"], [])
    assert "+callbacks.x._target_=mine.Callback" in resume(folder, "trust=true")  # type: ignore[operator]


def test_the_jobs_of_a_grid_are_what_their_folders_hold(made: Path, tmp_path: Path, marker: Path) -> None:
    """... its file and their overrides are only shown; a hostile config is refused before any job starts."""
    grid = sweep(tmp_path / "sweep", OVERRIDES, list(OVERRIDES), sweeper="other.BasicSweeper")
    for name in ("0", "1"):
        shutil.copytree(made, grid / name)
    say(grid / "0", *OVERRIDES)
    command = runs.Command.parse("resume", [f"resume={grid}"], "train.py")
    assert command is not None
    batch, _ = jobs.of_sweep(command)
    assert [job.name for job in batch] == ["0", "1"]
    assert not any(job.trust for job in batch)
    assert batch[0].command()[2:] == [f"resume={grid / '0'}"]
    put(grid / "1", "callbacks.x", EVIL_CLASS)
    before = sorted(grid.rglob("*"))
    assert str(grid / "1" / runs.CONFIG) in refused(lambda _: sweeps.resume(command), grid)
    assert sorted(grid.rglob("*")) == before  # no summary either
    assert not marker.exists()


def test_a_search_does_not_trust_the_jobs_that_are_there(data_root: Path, tmp_path: Path) -> None:
    """... as a stranger's folder may hold one where the search would start its own."""
    from hydra import compose, initialize_config_dir

    def job(*more: str) -> jobs.Job:
        said = [f"hydra.sweep.dir={tmp_path}", "hydra.job.num=0", "model=vae", *more]
        with initialize_config_dir(str(tiny.REPOSITORY / "conf"), version_base="1.3"):
            cfg = compose("train", said, return_hydra_config=True)
        return jobs.Job.make(cfg)

    assert "trust=true" in job().command()  # its config is the user's own, who has just composed it
    put(tmp_path / "0", "callbacks.x", EVIL_CLASS)
    assert "trust=true" not in job().command()
    assert "evil.Model is not a class of this project" in refused(resume, tmp_path / "0")
    assert "trust=true" in job("trust=true").command()


def test_a_damaged_journal_of_optuna_is_named(tmp_path: Path) -> None:
    (tmp_path / "optuna.log").write_text("[1]\n")
    command = ["train.py", "sweeps=lr_batch", "logger=csv", f"hydra.sweep.dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=tiny.REPOSITORY, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'optuna.log'} is not a journal of Optuna's")
    assert done.stderr.count("\n") == 1


def test_a_job_s_folder_is_one_of_its_sweep_s(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    for subdir in ("../other", "/tmp/other", "."):
        said = [f"hydra.sweep.dir={tmp_path}", f"hydra.sweep.subdir={subdir}", "hydra.job.num=0"]
        with initialize_config_dir(str(tiny.REPOSITORY / "conf"), version_base="1.3"):
            cfg = compose("train", said, return_hydra_config=True)
        with pytest.raises(UserError, match="must be a folder of the sweep's own"):
            jobs.Job.make(cfg)


def test_the_levels_of_a_sweep_are_a_few_numbers(made: Path, tmp_path: Path) -> None:
    """... of a key that its jobs have; and no list of lists of lists is unfolded."""
    shutil.copytree(made, tmp_path / "0")
    bomb = "a0: &a0 [1,1]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i},*a{i}]\n" for i in range(60))
    text = "hydra: {callbacks: {summary: {levels: {key: KEY, values: VALUES}}}}"
    for key, values in (("nothing", "[1]"), ("data.root", "[1]"), ("'{'", "[1]"), ("seed", "[[1], a, .nan]")):
        (tmp_path / "multirun.yaml").write_text(text.replace("KEY", key).replace("VALUES", values))
        sweeps.finish(tmp_path, trust=False)
    (tmp_path / "multirun.yaml").write_text(bomb + text.replace("KEY", "seed").replace("VALUES", "[*a60]"))
    assert "multirun.yaml has aliases, or is nested" in refused(
        lambda folder: sweeps.finish(folder, False), tmp_path
    )
    assert not (tmp_path / "levels.png").exists()


def test_the_columns_of_a_sweep_are_names_of_scores(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "0")
    text = "hydra: {callbacks: {summary: {columns: COLUMNS}}}"
    for columns in ("[1]", "{a: b}", "{'a\\e[31m': [b, c]}", "null"):
        (tmp_path / "multirun.yaml").write_text(text.replace("COLUMNS", columns))
        sweeps.finish(tmp_path, trust=False)
    (tmp_path / "multirun.yaml").write_text(text.replace("COLUMNS", "{a: [{b: c}]}"))
    assert "must hold a list" in refused(lambda folder: sweeps.finish(folder, False), tmp_path)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [touch {}]", "!!python/name:os.system", "!env X"]
)
def test_no_tag_of_yaml_is_honoured(tag: str, stranger: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (stranger / runs.OVERRIDES).write_text(f"- {tag.format(marker)}\n- model=vae\n")
    (stranger / "config.yaml").write_text(f"model:\n  code_dim: {tag.format(marker)}\n")
    line_of(lambda: rerun(stranger))
    sweeps.read_job(stranger)
    (stranger / "multirun.yaml").write_text(f"hydra:\n  overrides: {tag.format(marker)}\n")
    refused(resume, stranger)
    assert not marker.exists()


# ---- checkpoints -------------------------------------------------------------------------------------------


class Touch:
    """What unpickling would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "nested"])
def test_a_checkpoint_runs_no_code(form: str, stranger: Path, tmp_path: Path, composed: Compose) -> None:
    """... neither that of the best model nor that which is resumed from, nor one for init=."""
    marker, path = tmp_path / "marker", stranger / "checkpoints" / "best.ckpt"
    cfg = evaluate(stranger)[1]
    if form == "pickle":
        path.write_bytes(pickle.dumps(Touch(marker)))
    else:
        content = {"state_dict": {}, "callbacks": {"a": Touch(marker)}} if form == "nested" else Touch(marker)
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    shutil.copy(path, path.with_name("last.ckpt"))
    model = build_model(cfg, build_data(cfg))
    for call in (
        lambda: best_model(stranger, cfg),
        lambda: autoencoders.load(stranger),
        lambda: autoencoders.load(stranger, trust=True),
        lambda: training.initialize(model, stranger),
        lambda: training.initialize(model, path),
        lambda: training.train(cfg, stranger),
    ):
        line = line_of(call)
        assert line is not None
        assert ".ckpt is damaged, or not a checkpoint" in line
        assert "weights_only" not in line  # torch's advice is to let it run
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


def test_a_callback_of_one_s_own_may_keep_anything(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... which is read back with trust=true only; the best model is without it."""
    (tmp_path / "keeps.py").write_text(
        "from lightning import Callback\n"
        "class Thing: ...\n"
        "class Keeps(Callback):\n"
        "    def state_dict(self): return {'thing': Thing()}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "run"
    training.train(composed("network=linear", "+callbacks.mine._target_=keeps.Keeps"), folder)
    assert torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["callbacks"] == {}
    line = str(
        line_of(lambda: training.initialize(torch.nn.Linear(1, 1), folder / "checkpoints" / "last.ckpt"))
    )
    assert "it holds keeps.Thing, which is neither a tensor nor a plain value" in line
    cfg = resume(folder, "trust=true", "trainer.max_epochs=2")
    training.train(cfg, folder)  # type: ignore[arg-type]
    assert autoencoders.load(folder, trust=True)


def test_a_checkpoint_names_no_class(stranger: Path, marker: Path) -> None:
    """... as Lightning's load_from_checkpoint would import it; the weights are those of the run's model."""
    path = stranger / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] = {"_instantiator": "evil.make", "_class_path": "evil.Model"}
    torch.save(content, path)
    for model in (best_model(*evaluate(stranger)), autoencoders.load(stranger).model):
        state = model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in content["state_dict"].items())
    assert not marker.exists()


# ---- links, and what is no file ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [".hydra", ".hydra/config.yaml", ".hydra/overrides.yaml", "checkpoints", "checkpoints/best.ckpt",
     "checkpoints/last.ckpt", "evaluation", "figures", "evaluation/report.html", "metrics.json",
     "metrics.csv", "wandb", "wandb-id.txt", "mlflow-id.txt", "other"],
)  # fmt: skip
def test_no_link_leads_out_of_a_run_folder(name: str, stranger: Path, tmp_path: Path) -> None:
    outside, link = tmp_path / "outside", stranger / name
    model = autoencoders.load(stranger).model
    if link.exists():
        link.rename(outside)
    link.symlink_to(outside)
    for start in [*STARTS, lambda folder: training.initialize(model, folder)]:
        assert f"{link} leads out of" in refused(start, stranger)
    assert name in str(link)


def test_links_within_a_run_folder_and_to_it_are_followed(stranger: Path, tmp_path: Path) -> None:
    (stranger / "checkpoints").rename(stranger / "kept")
    (stranger / "checkpoints").symlink_to("kept")
    (tmp_path / "link").symlink_to(stranger)
    logs = stranger / "wandb" / "offline-run-1" / "logs"
    logs.mkdir(parents=True)
    (logs / "debug-core.log").symlink_to(tmp_path / "log")  # W&B's own
    assert evaluate(tmp_path / "link")
    assert autoencoders.load(tmp_path / "link")


def test_no_link_leads_out_of_a_sweep_folder(data_root: Path, tmp_path: Path) -> None:
    """... as to a secret that would be told as the reason of a job's failure."""
    grid = folders.make(tmp_path / "sweep" / "0", data_root).parent
    sweeps.summarize(grid)
    sweep(grid, [], [], sweeper="other.BasicSweeper")
    (tmp_path / "netrc").write_text("password sesame")
    (grid / "0" / "error.txt").symlink_to(tmp_path / "netrc")
    with pytest.raises(UserError, match="leads out of"):
        sweeps.summarize(grid)
    assert "leads out of" in refused(resume, grid)
    assert "sesame" not in (grid / "summary.csv").read_text()


@pytest.mark.parametrize("name", ["metrics.csv", ".hydra/config.yaml", "checkpoints/last.ckpt", "other"])
def test_what_would_never_end_is_no_file(name: str, stranger: Path) -> None:
    (stranger / name).unlink(missing_ok=True)
    os.mkfifo(stranger / name)
    for start in STARTS:
        assert "neither a file nor a folder" in refused(start, stranger)


@pytest.mark.parametrize("content", ["", "../../x", "a b", "id\n", "é" * 100, "x" * 100])
@pytest.mark.parametrize("name", ["wandb-id.txt", "mlflow-id.txt"])
def test_an_id_is_a_plain_word(content: str, name: str, stranger: Path) -> None:
    (stranger / name).write_text(content)
    for start in STARTS:
        assert name in refused(start, stranger)


def test_the_commands_refuse_a_hostile_folder(stranger: Path, tmp_path: Path) -> None:
    """... as a user meets them, in one line."""
    marker = tmp_path / "marker"
    torch.save({"state_dict": Touch(marker)}, stranger / "checkpoints" / "best.ckpt")
    (tmp_path / "error.txt").touch()
    (stranger / "error.txt").symlink_to("/etc/hostname")
    for command, message in (
        (["train.py", f"resume={stranger}", "model._target_=os.system"], "leads out of"),
        (["-m", "autoencoders.sweeps", str(tmp_path)], "leads out of"),
        (["evaluate.py", f"run={stranger}"], "best.ckpt is damaged, or not a checkpoint"),
    ):
        if command[0] == "evaluate.py":
            (stranger / "error.txt").unlink()
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
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fedcba9876543210")
    monkeypatch.setenv("KEYBOARD", "a keyboard")
    shown = errors.one_line(
        "0123456789abcdef fedcba9876543210 a keyboard https://me:a@b@host/a?token=t1&page=2 "
        "WANDB_API_KEY=k1 --password=p1 \x1b[3m\nend"
    )
    assert shown == (
        "*** *** a keyboard https://***@host/a?token=***&page=2 WANDB_API_KEY=*** --password=*** �[3m end"
    )
    assert errors.redacted(shown) == shown


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
@pytest.mark.parametrize(
    "argument",
    [
        "data.root=0123456789abcdef",
        "+trainer.x=['https://me:hidden1@host']",
        "data.root='/a?token=hidden1'",
        "+callbacks.x={_target_: a.B, token: hidden1}",
    ],
)
def test_a_secret_on_the_command_line_is_refused(
    script: str, argument: str, stranger: Path, tmp_path: Path
) -> None:
    place = [f"run={stranger}"] if script == "evaluate.py" else ["hydra.run.dir=new"]
    before = sorted(tmp_path.rglob("*"))
    environment = {**os.environ, "WANDB_API_KEY": "0123456789abcdef"}
    command = [sys.executable, str(tiny.REPOSITORY / script), *place, argument]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 1
    assert "holds a password or a key" in done.stderr
    assert "hidden1" not in done.stderr
    assert "0123456789abcdef" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_secret_in_a_config_folder_is_refused(tmp_path: Path) -> None:
    """... before Hydra writes it, of a run and of a sweep; an interpolation is the way."""
    mine = tmp_path / "conf" / "callbacks" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine:\n  _target_: mine.Callback\n  token: sesame\n")
    before = sorted(tmp_path.rglob("*"))
    for more in (["hydra.run.dir=new/run"], ["-m", "hydra.sweep.dir=new/sweep", "seed=1,2"]):
        command = [sys.executable, str(tiny.REPOSITORY / "train.py"), "-cd", "conf", "callbacks=mine", *more]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.returncode == 1
        assert "error: callbacks.mine.token holds a password or a key" in done.stderr
        assert "${oc.env:NAME}" in done.stderr
        assert done.stderr.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("evaluated", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_secrets_of_the_environment_reach_no_file(
    evaluated: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... but the callback that they are for; what is no secret has its value of today."""
    (tmp_path / "mine.py").write_text(
        "from lightning import Callback\n"
        "class Mine(Callback):\n"
        "    def __init__(self, token, **others):\n"
        "        assert token == 'open sesame', token\n"
    )
    for name, value in (
        ("MY_TOKEN", "open sesame"), ("MINE", "wss://me:hidden1@host"), ("PIN_TOKEN", "73519"),
        ("DB_PASSWORD", "pw_7q"), ("PLAIN", "of today"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    said = {
        "_target_": "mine.Mine",
        "token": "${oc.env:MY_TOKEN}",
        "again": "a ${.token}",
        "quoted": "${oc.env:'MY_TOKEN'}",
        "name": "MY_TOKEN",
        "named": "${oc.env:${.name}}",
        "url": "${oc.env:MINE}",
        "pin": "${oc.decode:${oc.env:PIN_TOKEN}}",
        "short": "${oc.env:DB_PASSWORD}",
        "list": ["${oc.env:DB_PASSWORD}"],
        "mixed": "${.short} ${oc.env:PLAIN}",
        "plain": "${oc.env:PLAIN}",
        "year": "${now:%Y}",
    }
    mine = tmp_path / "conf" / "callbacks" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(yaml.safe_dump({"mine": said}))
    folder = tmp_path / "run"
    options = ["-cd", "conf", "callbacks=mine", "network=linear", "logger=[wandb,tensorboard]"]
    options.append(f"evaluate={evaluated}")
    done = run("train.py", data_root, *small(data_root, folder, *options), cwd=tmp_path)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    for hidden in ("open sesame", "hidden1", "73519", "pw_7q"):
        assert hidden not in done.stdout + done.stderr
        assert not [path for path in files if hidden.encode() in path.read_bytes()], hidden
    kept = yaml.safe_load((folder / runs.CONFIG).read_text())["callbacks"]["mine"]
    assert kept["year"].isdecimal()
    assert kept == {**said, "plain": "of today", "year": kept["year"]}
    shown = yaml.safe_load((folder / "config.yaml").read_text())["callbacks"]["mine"]
    hidden_keys = ("token", "again", "quoted", "named", "url", "pin", "short")
    assert shown == {**kept, **dict.fromkeys(hidden_keys, "***"), "list": ["***"], "mixed": "*** of today"}


def test_what_is_no_secret_is_settled(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... so the run is resumed without trust, also where the variable has gone."""
    monkeypatch.setenv("PLAIN", "12")
    options = ["seed='${oc.decode:${oc.env:PLAIN}}'", "+anything=${now:%Y}", "data.root=${oc.env:ROOT,?}"]
    folder = folders.make(
        tmp_path / "run", data_root, *options[:2], options[2].replace("?", f"'{data_root}'")
    )
    monkeypatch.delenv("PLAIN")
    cfg = evaluate(folder)[1]
    assert (cfg.seed, cfg.data.seed, cfg.data.root) == (12, 12, str(data_root))
    assert cfg.anything.isdecimal()
    assert resume(folder) == cfg


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
    stranger = folders.make(tmp_path / "run", data_root)
    known = {"command": [EVIL], "started": EVIL, "versions": {EVIL: EVIL}, "git": {"commit": EVIL}}
    (stranger / "environment.json").write_text(json.dumps(known))
    cfg = evaluate(stranger)[1]
    subject = Subject(best_model(stranger, cfg), build_data(cfg))
    cfg.data.root = EVIL
    subject.data.classes = (EVIL,) * 10  # type: ignore[misc]
    (evil := stranger / EVIL.replace("/", "|")).mkdir()
    (evil / "evaluation").mkdir()
    shutil.copy(stranger / "environment.json", evil)
    (evil / "metrics.csv").write_text(f"step,val/{EVIL.replace(',', '')},val/mse\n1,2,0.5\n")
    (evil / "evaluation" / "grid.csv").write_text(f"corruption,model mse\n{EVIL},0.1\n")
    shown = {name: figures.Rows({EVIL: torch.rand(2, 1, 4, 4)}) for name in ("reconstructions", "traversals")}
    report.write(evil, {EVIL: {EVIL: {EVIL: EVIL}}}, shown, subject, {}, cfg)
    page = Page(evil / "evaluation" / "report.html")
    # plotly, charts.js, decoder.js with explorer.js, and the data of the explorer and of each chart.
    assert page.tags.count("script") == 3 + 1 + page.attributes.count(("class", "chart"))
    assert {value for name, value in page.attributes if name == "type"} == {"application/json", "module"}
    assert {tag for tag in page.tags if tag in ("img", "script", "iframe", "a")} == {"img", "script", "a"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert {value[:5] for name, value in page.attributes if name == "src" and value} == {"data:"}
    assert all(value and value[0] == "#" for name, value in page.attributes if name == "href")
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
    # plotly, charts.js, table.js, and data: of the names and of each chart.
    assert page.tags.count("script") == 3 + 1 + page.attributes.count(("class", "chart"))
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name == "href" and value and value[0] != "#"]
    assert links == [f"{quote(name)}/evaluation/report.html" for name in sorted(names, key=len)]
    assert all(link.startswith(("%", "javascript%3A", "b/")) for link in links if link)
    assert page.text.count("onerror") > 4
    assert "\x1b" not in page.text
