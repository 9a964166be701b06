"""A run that ends at any moment goes on as though it had not: the same weights, bit for bit, and metrics."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command import NO_WANDB, OFTEN, column, run, small, start, train, wait_for
from conftest import Compose
from family import MODELS, smaller
from lightning import Trainer

from autoencoders import runs, training
from autoencoders.checkpoints import LastCheckpoint
from autoencoders.models import Autoencoder
from autoencoders.processes import Interrupted


def same(one: Any, two: Any) -> bool:
    """Whether nested containers hold the same tensors and numbers, to the bit."""
    if isinstance(one, Mapping):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else bool(one == two)


def kept(folder: Path) -> dict[str, Any]:
    """What a run leaves: of both checkpoints weights, averages and the optimizer's state, and its curves."""
    found: dict[str, Any] = {"metrics.csv": (folder / "metrics.csv").read_text()}
    for name in ("best", "last"):
        checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for of_this_process in ("seconds", "loops"):
            del checkpoint[of_this_process]
        found[name] = checkpoint
    assert not list(folder.glob("**/.*.tmp"))
    return found


def assert_same(folder: Path, other: Path, what: object = "") -> None:
    one, two = kept(folder), kept(other)
    assert one["metrics.csv"] == two["metrics.csv"], what
    assert same(one, two), what


LONG = [pytest.mark.slow]
NOISE2NOISE = "data.supervision=noise2noise corruption=gaussian corruption.mean=0 corruption.clip=false"
ACROSS = "trainer.max_steps=12 trainer.check_val_every_n_epoch=null trainer.val_check_interval=3"


@pytest.mark.parametrize(
    ("options", "every"),
    [
        pytest.param("trainer.max_epochs=2 trainer.val_check_interval=2 ema=0.9", 4, id="some"),
        pytest.param("trainer.max_epochs=3", 1, id="epochs", marks=LONG),
        pytest.param("trainer.max_epochs=3 ema=0.9", 1, id="average", marks=LONG),
        pytest.param("trainer.max_epochs=2 trainer.val_check_interval=2", 1, id="inside", marks=LONG),
        pytest.param(f"trainer.max_epochs=9 {ACROSS}", 1, id="across", marks=LONG),
        pytest.param("trainer.max_epochs=4 trainer.check_val_every_n_epoch=2", 1, id="rarely", marks=LONG),
        pytest.param("trainer.max_epochs=2 trainer.log_every_n_steps=2", 1, id="rows", marks=LONG),
        pytest.param("trainer.max_epochs=3 trainer.limit_train_batches=3", 1, id="limited", marks=LONG),
        pytest.param("trainer.max_epochs=2 trainer.gradient_clip_val=1", 1, id="clipped", marks=LONG),
        pytest.param("trainer.max_epochs=4 trainer.accumulate_grad_batches=2", 1, id="summed", marks=LONG),
        pytest.param("trainer.max_epochs=2 optimizer=muon optimizer.min_side=8", 1, id="muon", marks=LONG),
        pytest.param("trainer.max_epochs=2 data.supervision=noise2void", 1, id="noise2void", marks=LONG),
        pytest.param(f"trainer.max_epochs=2 {NOISE2NOISE}", 1, id="noise2noise", marks=LONG),
    ],
)
def test_every_checkpoint_leads_to_the_same_end(
    options: str, every: int, composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... of those before each step, each with the folder as a kill just after it would leave it."""
    cfg = composed("network=mlp", "model=vae", *OFTEN, *options.split())
    snapshots: list[Path] = []
    save = LastCheckpoint.save

    def save_and_copy(self: LastCheckpoint, trainer: Trainer) -> None:
        save(self, trainer)
        snapshots.append(tmp_path / f"{len(snapshots)}")
        shutil.copytree(tmp_path / "whole", snapshots[-1])

    with monkeypatch.context() as patched:
        patched.setattr(LastCheckpoint, "save", save_and_copy)
        training.train(cfg, tmp_path / "whole")
    assert len(snapshots) > 8
    for snapshot in snapshots[1::every]:
        training.train(cfg, snapshot)
        assert_same(snapshot, tmp_path / "whole", snapshot.name)


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(data_root, folder, "network=mlp", "model=denoising", "trainer.max_epochs=2")
    return folder


@pytest.mark.parametrize(
    "fault",
    [
        "kill step 8",
        *(
            pytest.param(fault, marks=pytest.mark.slow)
            for fault in (
                "kill step 1", "kill step 6", "kill validation 2", "kill validation 4", "kill epoch's_edge 1",
                "kill epoch's_edge 2", "kill save 1", "kill save 5", "kill write 1", "kill write 7",
                "kill test 1",
            )
        ),
    ],
)  # fmt: skip
def test_a_killed_run_goes_on(fault: str, whole: Path, data_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = small(data_root, folder, "network=mlp", "model=denoising", "trainer.max_epochs=2", *OFTEN)
    run("train.py", data_root, *options, fault=fault, ok=False)
    run("train.py", data_root, f"resume={folder}")
    assert_same(folder, whole)
    kept = (folder / "wandb-id.txt").read_text()
    assert all(f"-{kept}" in path.name for path in (folder / "wandb").glob("offline-run-*"))


def saved_since(checkpoint: Path, moment: int) -> bool:
    return checkpoint.stat().st_mtime_ns != moment


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_is_killed_at_random_goes_on(
    model: str, devices: int, data_root: Path, tmp_path: Path
) -> None:
    """... three times, while it starts or trains and saves before each step."""
    chance = random.Random(f"{model} {devices}")
    options = [*smaller(model), f"trainer.devices={devices}", "trainer.max_epochs=60", "ema=0.95", *NO_WANDB]
    train(data_root, tmp_path / "whole", *options)
    folder = tmp_path / "killed"
    last = folder / "checkpoints" / "last.ckpt"
    arguments = small(data_root, folder, *options, *OFTEN)
    for _ in range(3):
        process = start("train.py", data_root, *arguments)
        if not last.is_file():
            wait_for(last.is_file)
        elif chance.random() < 0.8:
            wait_for(partial(saved_since, last, last.stat().st_mtime_ns), seconds=120)
        time.sleep(chance.uniform(0, 1.5))
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.communicate()
        arguments = [f"resume={folder}"]
    run("train.py", data_root, *arguments)
    assert_same(folder, tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_the_step_and_shuts_down_cleanly(
    number: signal.Signals, composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = composed("network=mlp", "trainer.max_epochs=2")
    training.train(cfg, tmp_path / "whole")
    step = Autoencoder.training_step

    def signalled(self: Autoencoder, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 6:
            os.kill(os.getpid(), number)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(Autoencoder, "training_step", signalled)
        with pytest.raises(Interrupted) as interrupted:
            training.train(cfg, tmp_path / "stopped")
    assert interrupted.value.code == (130 if number == signal.SIGINT else 75)
    last = torch.load(tmp_path / "stopped" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 7  # the step that it came in is done and saved
    training.train(cfg, tmp_path / "stopped")
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_a_second_signal_ends_at_once() -> None:
    """... a process that does not come to its end in order."""
    script = """
import os, signal, time
from autoencoders.processes import Interruption
Interruption().listen()
os.kill(os.getpid(), signal.SIGINT)
print("asked once", flush=True)
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (130, "asked once\n")


@pytest.mark.slow
def test_a_run_is_run_again(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... by its folder, to the same weights, in a new folder."""
    monkeypatch.setenv("AUTOENCODERS_RERUN", str(tmp_path / "of another run"))
    run("train.py", data_root, f"rerun={whole}", "logger=none", cwd=tmp_path)
    (again,) = (tmp_path / "runs" / "denoising").iterdir()
    assert_same(again, whole)
    run("train.py", data_root, f"rerun={again}", "hydra.run.dir=named", "trainer.max_epochs=1", cwd=tmp_path)
    assert len(column(tmp_path / "named", "val/mse")) == 1


def test_a_rerun_says_what_has_changed(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rerun(folder: Path) -> str:
        command = runs.Command.parse("rerun", [f"rerun={folder}"], "train.py")
        assert command is not None
        runs.compose_rerun(command)
        return capsys.readouterr().out

    assert rerun(whole) == ""
    shutil.copytree(whole, tmp_path / "old")
    for file, now, then in (
        (".hydra/config.yaml", "weight_decay: 0.0", "weight_decay: 0.1"),
        ("environment.json", '"torch": "', '"torch": "1.'),
    ):
        text = (tmp_path / "old" / file).read_text()
        assert now in text
        (tmp_path / "old" / file).write_text(text.replace(now, then))
    said = rerun(tmp_path / "old")
    assert "optimizer.weight_decay is 0.1, today 0.0" in said
    assert f"torch was 1.{torch.__version__.partition('+')[0]}" in said
    assert said.count("\n") == 1


def test_a_run_is_evaluated_once(tmp_path: Path) -> None:
    """... unless a better model has been found since."""
    best, scores = tmp_path / "checkpoints" / "best.ckpt", tmp_path / "evaluation" / "metrics.json"
    for path in (best, scores):
        path.parent.mkdir()
    best.touch()
    assert not runs.is_evaluated(tmp_path)
    scores.touch()
    assert runs.is_evaluated(tmp_path)
    os.utime(best, (time.time() + 9, time.time() + 9))
    assert not runs.is_evaluated(tmp_path)


@pytest.mark.slow
def test_a_run_is_what_it_was(whole: Path, data_root: Path, tmp_path: Path, repository: Path) -> None:
    """... after a default in conf/ has changed since: it resumes, evaluates and loads as before."""
    conf = repository / "conf" / "network" / "mlp.yaml"
    conf.write_text(conf.read_text().replace("[512, 256, 128]", "[32, 8]"))
    folder = shutil.copytree(whole, tmp_path / "run")
    there = {"PYTHONPATH": f"{repository / 'tests'}{os.pathsep}{repository / 'src'}"}
    for script, *arguments in (
        ("evaluate.py", f"run={folder}", "groups=reconstruction"),
        ("train.py", f"resume={folder}"),
    ):
        process = start(script, data_root, *arguments, "logger=none", environment=there)
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, out + err
    assert_same(folder, whole)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.code_dim=4", "model.code_dim=4 would make it another run"),
        pytest.param(
            "+callbacks.mine._target_=nowhere.Mine",
            "callbacks.mine._target_=nowhere.Mine is not found",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_override_that_makes_another_run_is_refused(
    override: str, said: str, whole: Path, data_root: Path, tmp_path: Path
) -> None:
    """... and changes nothing: what was refused does not stay in the run's folder."""
    folder = shutil.copytree(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = run("train.py", data_root, f"resume={folder}", override, ok=False)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert before == {path: path.read_bytes() for path in before}


def test_callbacks_of_one_s_own_are_resumed_to_the_same_end(composed: Compose, tmp_path: Path) -> None:
    """... since their state is saved; one that early stopping has ended stays ended."""
    options = ("network=mlp", "callbacks=[early_stopping,lr_monitor]", "callbacks.early_stopping.patience=1")
    worse = ("optimizer=sgd", "optimizer.lr=1e-30", "scheduler=constant")  # nothing improves
    cfg = composed(*options, *worse, "trainer.max_epochs=9", *OFTEN)
    training.train(cfg, tmp_path / "whole")
    assert len(column(tmp_path / "whole", "val/mse")) == 2
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    training.train(cfg, tmp_path / "again")
    assert_same(tmp_path / "again", tmp_path / "whole")
