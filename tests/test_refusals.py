"""What is refused ends in one line, changes nothing, and says what to do in words that can be pasted."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import folders
import pytest
import tiny
from command import NO_WANDB, line_of, run, small
from conftest import Compose

import autoencoders
from autoencoders import config, runs, sweeps, training
from autoencoders.config import compose_conf
from autoencoders.errors import UserError
from autoencoders.training import build_data, build_model

TRAIN = tiny.REPOSITORY / "train.py"


def said(arguments: list[str], cwd: Path) -> str:
    """The one line that train.py ends with."""
    command = [sys.executable, str(TRAIN), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    return done.stderr


# ---- nothing is left ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_late_refusal_leaves_no_folder(data_root: Path, tmp_path: Path) -> None:
    """... and no empty one around it, but those that were there before."""
    (tmp_path / "mine").mkdir()
    before = sorted(tmp_path.rglob("*"))
    arguments = small(data_root, tmp_path / "mine" / "runs" / "vae" / "run", "trainer.strategy=deepspeed")
    done = run("train.py", data_root, *arguments, *NO_WANDB, ok=False)
    assert "deepspeed" in done.stderr.lower()
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.strategy=deepspeed", "deepspeed"),
        ("trainer.strategy=ddpp", "ddpp"),
        ("trainer.devices=[0,0]", "`devices` selected with"),
        ("trainer.max_epochs=x", "trainer.max_epochs=x must be a whole number"),
        ("trainer.log_every_n_steps=1.5", "trainer.log_every_n_steps=1.5 must be a whole number"),
        ("trainer.limit_train_batches=x", "trainer.limit_train_batches=x must be a whole number or a number"),
        ("init=nowhere", "init=nowhere is neither"),
    ],
)
def test_what_lightning_refuses_leaves_no_folder(
    override: str, message: str, composed: Compose, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "vae" / "run"

    def train() -> None:
        with runs.removed_if_empty(folder):
            held = runs.lock(folder, resumed=False)
            try:
                training.train(composed("network=linear", override), folder)
            finally:
                held.release()

    line = line_of(train)
    assert line is not None
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["", "mine", "mine/vae", "mine/vae/run", "mine/vae/run/.hydra"])
def test_only_what_was_made_is_removed(there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    folder = Path("mine/vae/run")

    def train(*files: str) -> None:
        with runs.removed_if_empty(folder):
            held = runs.lock(folder, resumed=False)
            for name in ("checkpoints", "figures"):
                (folder / name).mkdir()
            for name in files:
                (folder / name).touch()
            (folder / ".hydra" / "config.yaml").touch()
            held.release()
            raise UserError("something")

    assert line_of(train) == "something"
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_dir()] == before
    assert line_of(lambda: train("metrics.csv")) == "something"
    assert (folder / "metrics.csv").is_file()
    assert (folder / ".hydra" / "config.yaml").is_file()


def test_a_sweep_s_refusal_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    arguments = ["-m", "model=vae,a_e", "hydra.sweep.dir=mine/multirun/sweep"]
    assert "no model=a_e" in said(arguments, tmp_path)
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


@pytest.mark.parametrize(
    "word", ["hydra.run.dir=", "hydra.run.dir=''", "hydra.run.dir=' '", "hydra.sweep.dir="]
)
def test_a_folder_has_a_name(word: str, tmp_path: Path, data_root: Path) -> None:
    """... else the run would be put into the current directory."""
    for arguments in ([word], ["-m", "seed=1,2", word]):
        line = line_of(lambda arguments=arguments: runs.expand(arguments))  # type: ignore[misc]
        assert line == f"{word.partition('=')[0]}= names no folder"
    if "run" in word:
        folder = folders.make(tmp_path / "run", data_root)
        command = runs.Command.parse("rerun", [f"rerun={folder}", word], "train.py")
        assert command is not None
        assert line_of(lambda: runs.compose_rerun(command)) == "hydra.run.dir= names no folder"


# ---- files of a config folder ------------------------------------------------------------------------------

BROKEN: dict[str, tuple[bytes, str]] = {
    "indented": (b"model:\n  code_dim: 3\n   beta: 2\n", "indented.yaml, line 3 is not valid YAML: mapping"),
    "open": (b"model: [1,\n", "open.yaml, line 2 is not valid YAML: expected the node content"),
    "tab": (b"\tmodel:\n", r"tab.yaml, line 1 is not valid YAML: found character '\t'"),
    "twice": (b"seed: 1\nseed: 2\n", "twice.yaml, line 2 is not valid YAML: found duplicate key seed"),
    "tag": (b"seed: !!python/name:os.system\n", "tag.yaml, line 1 is not valid YAML: could not determine"),
    "binary": (b"\xff\xfe\x00\x01\x80", "binary.yaml is not a text file"),
    "control": (b"seed: \x00\n", "control.yaml is not valid YAML: unacceptable character"),
    "brace": (b"model:\n  code_dim: ${seed\n", "brace.yaml: no viable alternative at input '${seed'"),
    "number": (b"defaults: 5\n", "defaults must be a list"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_config_file_is_named(name: str, tmp_path: Path) -> None:
    """... as a choice of a group, and as the primary config."""
    content, message = BROKEN[name]
    for path in (tmp_path / "experiment" / f"{name}.yaml", tmp_path / f"{name}.yaml"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    for line in (
        line_of(lambda: compose_conf([f"experiment={name}"], [tmp_path])),
        line_of(lambda: runs.expand(["-cd", str(tmp_path), "--config-name", name])),
    ):
        assert line is not None
        assert message in line
        assert f"{name}'" in line if name == "number" else str(tmp_path) in line


@pytest.mark.parametrize("content", ["", "# nothing", "a: 1", "some text", "model: {code_dim: 2}"])
def test_a_primary_config_is_that_of_a_run(content: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    for flags in (
        ["--config-dir", str(tmp_path), "--config-name=mine"],
        ["-cd", str(tmp_path), "-cn", "mine"],
    ):
        line = line_of(lambda flags=flags: runs.expand(flags))  # type: ignore[misc]
        assert line is not None
        assert "the config has no trainer" in line
        assert line.endswith("defaults: [train, _self_]")
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\nmodel: {code_dim: 2}\n")
    assert runs.expand(["-cd", str(tmp_path), "-cn", "mine", "seed=1"])[0] == "seed=1"


def test_an_empty_choice_of_a_group_chooses_nothing(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "empty.yaml").touch()
    assert compose_conf(["experiment=empty"], [tmp_path]).seed == 0


def test_the_command_names_a_broken_config_file_and_leaves_nothing(tmp_path: Path) -> None:
    """... nor does a config that Hydra would run, with folders of its own, before this project could."""
    conf = tmp_path / "my conf"
    (conf / "experiment").mkdir(parents=True)
    (conf / "experiment" / "bad.yaml").write_text("model: [\n")
    (conf / "bad.yaml").write_text("seed: 1\n")
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in (
        (["experiment=bad"], "bad.yaml, line 2 is not valid YAML"),
        (["--config-name", "bad"], "the config has no trainer"),
        (["--config-name", "bad", "-m", "seed=1,2"], "the config has no trainer"),
    ):
        assert message in said(["-cd", "my conf", *arguments], tmp_path)
        assert sorted(tmp_path.rglob("*")) == before


# ---- readers that go ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["--cfg job", "-sc install=bash", "--info all", "--help"])
def test_a_reader_that_goes_is_no_error(arguments: str, tmp_path: Path) -> None:
    """... as in `train.py --cfg job | head -1`."""
    command = [sys.executable, str(TRAIN), *arguments.split()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []


# ---- hints -------------------------------------------------------------------------------------------------


def pasted(line: str, word: str) -> list[str]:
    """The arguments of the command in a hint, as a shell would read them."""
    start = line.index("python ")
    words = shlex.split(line[start:].partition(", or choose")[0])
    assert words[:2] == ["python", "train.py"]
    assert sum(argument.startswith(f"{word}=") for argument in words) == 1
    return words[2:]


@pytest.mark.parametrize("name", ["run", "it's a run", 'a "run" = {1}, $x (2)'])
def test_hints_can_be_pasted(name: str, data_root: Path, tmp_path: Path) -> None:
    """... whatever the folder is called."""
    folder = folders.make(tmp_path / name, data_root)
    line = line_of(lambda: runs.lock(folder, resumed=False))
    command = runs.Command.parse("resume", pasted(str(line), "resume"), "train.py")
    assert command is not None
    assert command.folder == folder
    assert not runs.compose_resumed(command).trust
    assert str(line).count(str(tmp_path)) <= 2

    path = folder / runs.CONFIG
    path.write_text(path.read_text().replace("autoencoders.corruption.Identity", "nowhere.Mine"))
    line = line_of(lambda: runs.compose_resumed(command))
    trusting = runs.Command.parse("resume", pasted(str(line), "resume"), "train.py")
    assert trusting is not None
    assert (trusting.folder, trusting.trust) == (folder, True)
    assert runs.compose_resumed(trusting).corruption._target_ == "nowhere.Mine"
    assert str(line).count(str(tmp_path)) <= 2


@pytest.mark.parametrize("name", ["run", "it's a run"])
def test_the_hint_to_another_run_can_be_pasted(name: str, data_root: Path, tmp_path: Path) -> None:
    folder = folders.make(tmp_path / name, data_root)
    arguments = [f"resume={folder}", "model.code_dim=4"]
    command = runs.Command.parse("resume", arguments, "train.py")
    assert command is not None
    line = str(line_of(lambda: runs.compose_resumed(command)))
    assert "model.code_dim=4 would make it another run" in line
    again = runs.Command.parse("rerun", pasted(line, "rerun"), "train.py")
    assert again is not None
    assert runs.compose_rerun(again)[1].model.code_dim == 4


def test_a_sweep_s_hint_can_be_pasted(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "it's a sweep"
    folders.make(folder / "0", data_root)
    (folder / "multirun.yaml").write_text("hydra: {overrides: {task: [], hydra: []}}")
    (folder / "0" / "error.txt").write_text("it failed")
    with pytest.raises(SystemExit):
        sweeps.finish(folder, trust=False)
    line = capsys.readouterr().err.splitlines()[-1]
    command = runs.Command.parse("resume", pasted(line, "resume"), "train.py")
    assert command is not None
    assert command.folder == folder
    with pytest.raises(UserError, match="sweep is not a run folder but holds some: name one, such as "):
        runs.read_run(folder, trust=False)


@pytest.mark.parametrize(
    "override",
    ["model.code_dim=3", "network=mlp", "optimizer.lr=1", "scheduler=constant", "ema=0.9"],
)
def test_what_a_trained_model_has_no_use_for_is_refused(
    override: str, data_root: Path, tmp_path: Path
) -> None:
    folder = folders.make(tmp_path / "run", data_root)
    line = line_of(lambda: runs.compose_evaluated([f"run={folder}", override]))
    assert line == f"the model of {folder} is trained: override data and corruption, or train another"


def test_a_relative_path_is_of_the_folder_that_a_run_was_trained_in(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... where there is nothing from here; a file that names no folder, or a wrong one, changes nothing."""
    folder = folders.make(tmp_path / "run", data_root)
    (tmp_path / "mine" / "pictures").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = folder / runs.CONFIG
    path.write_text(re.sub(r"^  root: .*$", "  root: pictures", path.read_text(), flags=re.MULTILINE))
    path.write_text(path.read_text().replace("autoencoders.data.MNIST", "autoencoders.data.ImageFolder"))

    def root(environment: object) -> object:
        (folder / "environment.json").write_text(json.dumps(environment))
        return runs.read_run(folder, trust=False).data.root

    assert root({"folder": str(tmp_path / "mine")}) == str(tmp_path / "mine" / "pictures")
    for other in ({}, {"folder": 3}, {"folder": str(tmp_path)}, {"folder": "a\0b"}):
        assert root(other) == "pictures"
    (tmp_path / "here" / "pictures").mkdir()
    assert root({"folder": str(tmp_path / "mine")}) == "pictures"


# ---- classes of one's own ----------------------------------------------------------------------------------


def test_what_is_wrong_with_a_class_is_said(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong_of_mine.py").write_text("1 / 0")
    (tmp_path / "of_mine_here.py").write_text(
        "from autoencoders.models import Autoencoder\n"
        "class Needs(Autoencoder):\n"
        "    def __init__(self, width, **others):\n"
        "        super().__init__(**others)\n"
        "class Breaks(Autoencoder):\n"
        "    def __init__(self, **others):\n"
        "        raise KeyError('width')\n"
        "class Mistakes(Autoencoder):\n"
        "    def __init__(self, **others):\n"
        "        len(5)\n"
        "class Model(Autoencoder):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def line(*overrides: str) -> str:
        cfg = composed("network=linear", *overrides)

        def build() -> None:
            build_model(cfg, build_data(cfg))
            training.build_trainer(cfg, tmp_path, [])

        found = line_of(build)
        assert found is not None
        assert "full_key" not in found
        return found

    for overrides, message in (
        (["nowhere.Model"], "model._target_=nowhere.Model is not found: No module named 'nowhere'"),
        (["of_mine_here.Modle"], "of_mine_here has no Modle: did you mean 'Model'?"),
        (["wrong_of_mine.Model"], "importing wrong_of_mine failed: ZeroDivisionError: division by zero"),
        (["of_mine_here.Model", "+model.width=3"], "no key model.width: of_mine_here.Model does not take it"),
        (["of_mine_here.Needs"], "model: of_mine_here.Needs missing 1 required positional argument: 'width'"),
        (["of_mine_here.Breaks"], "model (of_mine_here.Breaks): KeyError: 'width' (/"),
        (["of_mine_here.Mistakes"], "TypeError: object of type 'int' has no len() (/"),
    ):
        found = line(f"model._target_={overrides[0]}", *overrides[1:])
        assert message in found
        assert ("HYDRA_FULL_ERROR" in found) == ("(/" in message)
    line_of_struct = line_of(lambda: compose_conf(["corruption.std=1"]))
    assert line_of_struct == "no key corruption.std: corruption=gaussian and corruption=speckle have it"
    assert line("trainer.gradient_clip_algorithm=x").startswith("trainer: ")
    assert line("callbacks=timer", "callbacks.timer.duration=x").startswith("callbacks.timer")


def test_a_letter_that_hydra_does_not_know_is_told_with_its_key() -> None:
    for override in ("logger.wandb.project=straße", "seed=ß", "+a.b=[ß]"):
        line = line_of(lambda override=override: runs.expand([override]))  # type: ignore[misc]
        assert line is not None
        assert line.startswith(f"{override} can't be read: token recognition error at: 'ß'")
    assert compose_conf(runs.expand(["logger.wandb.project='straße'"])).logger.wandb.project == "straße"


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    shutil.copytree(tiny.REPOSITORY / "conf", tmp_path / "conf")
    for call in (
        lambda: autoencoders.load(tmp_path / "nowhere"),
        lambda: autoencoders.load(tmp_path / "conf"),
        lambda: autoencoders.load(tmp_path / "conf" / "train.yaml"),
    ):
        assert str(tmp_path) in str(line_of(call))
    assert config.CONF.is_dir()
