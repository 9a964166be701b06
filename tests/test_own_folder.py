"""A folder of the user's own, outside of the repository: modules, a data set, a callback and a config folder,
used from there."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from command import NO_WANDB, OFTEN, column, run, start, wait_for
from test_resume import assert_same

FILES = {
    "mynet.py": """
from torch import nn

class Encoder(nn.Module):
    def __init__(self, input_shape, code_dim, width=8):
        super().__init__()
        inputs = input_shape[0] * input_shape[1] * input_shape[2]
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, code_dim)
        )

    def forward(self, x):
        return self.layers(x)

class Decoder(nn.Module):
    def __init__(self, code_dim, target_shape):
        super().__init__()
        outputs = target_shape[0] * target_shape[1] * target_shape[2]
        self.layers = nn.Sequential(nn.Linear(code_dim, outputs), nn.Unflatten(1, target_shape), nn.Sigmoid())

    def forward(self, h):
        return self.layers(h)
""",
    "mycallback.py": """
from lightning import Callback

class CountSteps(Callback):
    steps = 0

    def on_train_batch_end(self, *_):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]

    def on_train_end(self, trainer, model):
        if trainer.is_global_zero:
            print(f"counted {self.steps} steps", flush=True)
""",
    "mydata.py": """
import numpy as np
from autoencoders.data import ImageDataModule

class Squares(ImageDataModule):
    image_shape = (1, 12, 12)
    classes = ("small", "large")

    def read(self, train):
        rng = np.random.default_rng(int(train))
        labels = np.arange(110 if train else 37) % 2
        images = np.zeros((len(labels), 1, 12, 12), np.uint8)
        for image, label in zip(images, labels):
            top, left = rng.integers(0, 6, 2)
            image[0, top : top + 3 + 3 * label, left : left + 3 + 3 * label] = 255
        return images, labels
""",
    "myconf/experiment/mine.yaml": """
# @package _global_
defaults:
  - override /network: own
  - override /corruption: masking
network:
  encoder:
    _target_: mynet.Encoder
    width: 6
  decoder:
    _target_: mynet.Decoder
callbacks:
  count:
    _target_: mycallback.CountSteps
data:
  _target_: mydata.Squares
""",
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "my own folder"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def mine(data_root: Path, *arguments: str) -> list[str]:
    small = [*tiny.SMALL, f"data.root={data_root}", "figures.images=4", "trainer.max_epochs=2"]
    return ["-cd", "myconf", *small, "experiment=mine", *NO_WANDB, *arguments]


@pytest.mark.slow
def test_own_modules_are_used_from_their_folder(own: Path, data_root: Path) -> None:
    """... on the command line without a flag; the run is a stranger's to others, until it is trusted, and is
    what it was when its config folder is gone."""
    done = run("train.py", data_root, *mine(data_root, "hydra.run.dir=a run"), cwd=own)
    assert "counted 10 steps" in done.stdout
    shutil.rmtree(own / "myconf")
    for script, command in (("train.py", "resume=a run"), ("evaluate.py", "run=a run")):
        refused = run(script, data_root, command, ok=False, cwd=own)
        assert refused.stderr.count("\n") == 1
        assert "CountSteps is not a class of this project; if you trust it: python" in refused.stderr
        assert f"'{command}' trust=true" in refused.stderr
    resumed = run("train.py", data_root, "resume=a run", "trust=true", "trainer.max_epochs=3", cwd=own)
    assert "counted 15 steps" in resumed.stdout
    assert len(column(own / "a run", "val/mse")) == 3
    run("evaluate.py", data_root, "run=a run", "trust=true", "corruption.fraction=0.25", cwd=own)
    assert "Encoder" in (own / "a run" / "evaluation" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_own_modules_are_resumed_within_an_epoch_to_the_same_bits(
    devices: int, own: Path, data_root: Path
) -> None:
    """... though the network draws from torch's own generator, and the config folder has changed since; the
    run is then evaluated."""
    options = mine(data_root, f"trainer.devices={devices}")
    run("train.py", data_root, *options, "hydra.run.dir=whole", cwd=own)
    killed = [*options, *OFTEN, "hydra.run.dir=killed"]
    run("train.py", data_root, *killed, cwd=own, fault="kill step 8", ok=False)
    assert not (own / "killed" / "metrics.json").exists()
    conf = own / "myconf" / "experiment" / "mine.yaml"
    conf.write_text(conf.read_text().replace("width: 6", "width: 3"))
    run("train.py", data_root, "resume=killed", "trust=true", cwd=own)
    assert_same(own / "killed", own / "whole")
    run("evaluate.py", data_root, "run=killed", "trust=true", cwd=own)
    assert (own / "killed" / "evaluation" / "report.html").is_file()


@pytest.mark.slow
def test_own_modules_on_two_devices_are_resumed_after_a_kill_to_the_same_bits(
    own: Path, data_root: Path
) -> None:
    options = mine(data_root, "trainer.devices=2", "trainer.max_epochs=40", *OFTEN)
    run("train.py", data_root, *options, "hydra.run.dir=whole", cwd=own)
    process = start("train.py", data_root, *options, "hydra.run.dir=killed", cwd=own)
    wait_for((own / "killed" / "checkpoints" / "best.ckpt").is_file)
    process.kill()
    process.communicate()
    run("train.py", data_root, "resume=killed", "trust=true", cwd=own)
    assert_same(own / "killed", own / "whole")


@pytest.mark.slow
def test_own_modules_are_swept_over(own: Path, data_root: Path) -> None:
    """... and a sweep of them is resumed, by its folder alone."""
    options = mine(data_root, "network.encoder.width=4,6", "hydra.sweep.dir=a sweep")
    run("train.py", data_root, "-m", *options, cwd=own)
    widths = [(own / "a sweep" / job / "config.yaml").read_text().count("width: 4") for job in "01"]
    assert widths[0] > widths[1] == 0
    (own / "a sweep" / "1" / "metrics.json").unlink()
    shutil.rmtree(own / "myconf")
    refused = run("train.py", data_root, "resume=a sweep", ok=False, cwd=own)
    assert "trust=true" in refused.stderr
    run("train.py", data_root, "resume=a sweep", "trust=true", cwd=own)
    assert (own / "a sweep" / "1" / "metrics.json").is_file()


@pytest.mark.slow
def test_a_run_of_own_modules_is_loaded(own: Path, data_root: Path) -> None:
    """... in Python, once it is trusted."""
    run("train.py", data_root, *mine(data_root, "hydra.run.dir=a run"), cwd=own)
    script = """
import autoencoders, numpy
try:
    autoencoders.load("a run")
except Exception as error:
    print(error)
run = autoencoders.load("a run", trust=True)
codes = run.encode(numpy.zeros((5, 12, 12), "uint8"))
print(type(run.model.encoder).__name__, codes.shape, len(run.data.test))
"""
    environment = {**os.environ, "PYTHONPATH": f"{tiny.REPOSITORY / 'src'}{os.pathsep}{own}"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=own, env=environment, capture_output=True, text=True, check=True)
    refusal, loaded = done.stdout.splitlines()
    assert refusal.endswith("if you trust it: autoencoders.load('a run', trust=True)")
    assert loaded == "Encoder (5, 16) 37"


@pytest.mark.slow
def test_a_stopped_run_of_own_modules_says_what_to_paste(own: Path, data_root: Path) -> None:
    options = mine(data_root, *OFTEN, "trainer.max_epochs=5000", "hydra.run.dir=a run")
    process = start("train.py", data_root, *options, cwd=own)
    wait_for((own / "a run" / "checkpoints" / "last.ckpt").is_file)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    (line,) = [line for line in out.splitlines() if "resume with: " in line]
    pasted = shlex.split(line.partition("resume with: ")[2])
    assert (pasted[0], Path(pasted[1])) == ("python", tiny.REPOSITORY / "train.py")
    run("train.py", data_root, *pasted[2:], "trainer.max_epochs=1", cwd=own)
