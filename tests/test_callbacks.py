"""The callbacks of conf/callbacks and our own, in trainings on the tiny data."""

import json
import os
import re
import termios
from pathlib import Path
from typing import Any

import pytest
import torch
from command import NO_WANDB, OFTEN, column, run, small, train
from conftest import Compose
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from omegaconf import DictConfig
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from autoencoders import jobs, training
from autoencoders import progress as progress_module
from autoencoders.callbacks import Pictures
from autoencoders.errors import UserError
from autoencoders.film import Film
from autoencoders.models import Autoencoder
from autoencoders.progress import Bar, EpochLines, duration, progress
from autoencoders.terminal import report

pytestmark = [  # of a plain Trainer, which training.py keeps quiet
    pytest.mark.filterwarnings(f"ignore:.*{message}")
    for message in (
        "does not have many workers",
        "LeafSpec",
        "have no logger configured",
        "smaller than the log",
    )
]
SMALL = ["network=mlp", "network.hidden=[8]", "figures.images=2"]


def test_early_stopping_stops(composed: Compose, tmp_path: Path) -> None:
    options = ["callbacks=early_stopping", "callbacks.early_stopping.patience=2", "trainer.max_epochs=20"]
    training.train(composed(*SMALL, *options, "callbacks.early_stopping.min_delta=100"), tmp_path)
    assert len(column(tmp_path, "val/mse")) == 3  # the first, and two that are no better by 100
    assert json.loads((tmp_path / "metrics.json").read_text())["epochs"] == 3


def test_an_epoch_that_ends_early_is_counted_in_part(composed: Compose, tmp_path: Path) -> None:
    training.train(composed(*SMALL, "trainer.max_epochs=-1", "trainer.max_steps=7"), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["epochs"] == 1.4  # of 5 steps


def test_a_run_is_resumed_to_no_fewer_steps_than_it_has(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {n: composed(*SMALL, "trainer.max_epochs=-1", f"trainer.max_steps={n}") for n in (6, 7, 9)}
    training.train(asked[7], tmp_path)
    with pytest.raises(UserError, match=f"trainer.max_steps=6 is less than the 7 steps of {tmp_path}"):
        training.train(asked[6], tmp_path)
    capsys.readouterr()
    for steps, epochs in ((7, 1.4), (9, 1.8)):  # of 5 steps
        training.train(asked[steps], tmp_path)
        nothing = "nothing was left to train: a larger trainer.max_steps continues it\n"
        assert (nothing in capsys.readouterr().out) == (steps == 7)
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        assert (metrics["epochs"], metrics["steps"]) == (epochs, steps)


def test_early_stopping_follows_the_objective(composed: Compose) -> None:
    assert composed("callbacks=early_stopping").callbacks.early_stopping.monitor == "val/mse"
    cfg = composed("callbacks=early_stopping", "objective=val/loss")
    assert cfg.callbacks.early_stopping.monitor == "val/loss"


def test_a_timer_stops(composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["callbacks=timer", "callbacks.timer.duration='00:00:00:01'", "trainer.max_epochs=100000"]
    training.train(composed(*SMALL, *options), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["epochs"] < 1000
    assert "stopped: its time is over\n" in capsys.readouterr().out


def test_fewer_steps_than_asked_for_are_explained(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training.train(composed(*SMALL, "trainer.max_steps=7"), tmp_path)  # an epoch has 5
    said = "ended after trainer.max_epochs=1, before trainer.max_steps=7: trainer.max_epochs=-1 is no limit"
    assert said in capsys.readouterr().out
    training.train(composed(*SMALL, "trainer.max_steps=5"), tmp_path / "all")
    assert "ended" not in capsys.readouterr().out


def test_several_at_once_leave_their_curves(composed: Compose, tmp_path: Path) -> None:
    """... in metrics.csv, with logger=none."""
    chosen = "callbacks=[lr_monitor,device_stats,early_stopping,timer]"
    training.train(composed(*SMALL, chosen, "logger=none"), tmp_path)
    rates = column(tmp_path, "lr-AdamW")
    assert rates == pytest.approx(column(tmp_path, "train/lr"))
    assert len(rates) == 5
    assert len(column(tmp_path, "DeviceStatsMonitor.on_train_batch_start/cpu_vm_percent")) == 5
    assert column(tmp_path, "step") == sorted(set(column(tmp_path, "step")))


def test_a_progress_bar_of_the_users_is_the_only_one(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training.train(composed(*SMALL, "callbacks=rich_progress_bar"), tmp_path)
    assert "epoch 1/1" not in capsys.readouterr().out
    assert progress([RichProgressBar()]) == []
    assert [type(callback) for callback in progress([Pictures()])] == [EpochLines]


def fit(cfg: DictConfig, folder: Path, *callbacks: Callback) -> None:
    """Without what a run has around it: what is printed is the progress."""
    data, trainer = training.build_data(cfg), training.build_trainer(cfg, folder, callbacks)
    trainer.fit(training.build_model(cfg, data), data)


@pytest.mark.parametrize(("rows", "kind"), [(24, Bar), (0, EpochLines)])
def test_on_a_terminal_there_is_a_bar(rows: int, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """... unless it has no lines, where none would be drawn."""
    outside, inside = os.openpty()
    termios.tcsetwinsize(inside, (rows, 80))
    with os.fdopen(outside, "rb"), os.fdopen(inside, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        assert [type(callback) for callback in progress([])] == [kind]
        monkeypatch.undo()


def test_the_bar_is_one_for_the_whole_training_with_the_time_left_and_what_is_logged(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("trainer.max_epochs=2", "trainer.enable_progress_bar=true", "logger=csv")
    training.train(composed(*SMALL, *chosen), tmp_path)
    said = capsys.readouterr()
    drawn = [[text.rstrip() for text in line.split("\r") if text.strip()] for line in said.err.split("\n")]
    states, *passing = [line for line in drawn if line]
    assert {state.split()[1] for state in states} == {"1/2", "2/2"}
    assert re.fullmatch(
        r"epoch 2/2  100% █{10} \d\d:\d\d, 00:00 left, val/mse [\d.]+, train/loss [\d.]+", states[-1]
    )
    assert any(state.endswith("validating") for state in states)
    assert {text.split()[0] for line in passing for text in line} == {"validating", "testing"}
    assert "epoch" not in said.out.replace("epochs", "")  # not by lines, too


def test_the_bar_counts_steps_where_these_are_the_measure(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = composed(*SMALL, "trainer.max_steps=6", "trainer.max_epochs=9", "trainer.enable_progress_bar=true")
    fit(cfg, tmp_path)
    last = capsys.readouterr().err.rstrip().rpartition("\r")[2]
    assert last.startswith("step 6/6  100% ")


def test_of_many_validations_a_log_file_has_some(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first twenty, then fewer, and the last."""
    cfg = composed(*SMALL, "trainer.max_steps=60", "trainer.max_epochs=-1", "trainer.limit_train_batches=1")
    fit(cfg, tmp_path)
    steps = [int(step) for step in re.findall(r"^step (\d+)/60 .* s$", capsys.readouterr().out, re.MULTILINE)]
    assert steps[:21] == list(range(1, 22))
    assert steps[-1] == 60
    assert len(steps) < 45


def test_a_training_says_what_it_is_about_to_do_and_what_comes_next(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "WARMING_UP", 2)
    monkeypatch.setattr(progress_module, "MEASURED_S", 0.0)
    monkeypatch.setattr("autoencoders.runs.STARTED_IN", tmp_path)
    folder = tmp_path / "a run"
    chosen = ("model=denoising", "corruption=masking", "model.code_dim=2", "trainer.max_epochs=1")
    training.train(composed(*SMALL, *chosen), folder)
    out = capsys.readouterr().out
    data, corruption, model, steps, where, _, left, epoch, *_ = out.splitlines()
    assert re.fullmatch(r"  data       \w+: \d+ images to train on and \d+ to validate, 1 x 28 x 28", data)
    assert corruption == "  corruption Masking(fraction=0.5, fill=0.0)"
    assert re.fullmatch(
        r"  model      DenoisingAutoencoder: [\d,]+ parameters, a code of 2 numbers for 784", model
    )
    assert steps.startswith("  training   1 epoch, 5 steps, on cpu, ")
    assert where == "  folder     a run"
    assert left == "about 0 s left"  # is said once
    assert epoch.startswith("epoch 1/1")
    mse, gain = (json.loads((folder / "metrics.json").read_text())[f"test/{m}"] for m in ("mse", "gain_db"))
    assert f"  test       mse {mse:.5g}   mae " in out
    assert f" {abs(gain):.3g} dB {'better' if gain > 0 else 'worse'} than its input\n" in out
    assert re.search(r"  next       python ('[^']*evaluate.py'|\S*evaluate.py) 'run=a run'\n", out)
    assert out.count("a run") == 3  # where it goes, the figures, what is next


def test_a_job_of_a_sweep_says_what_came_out_and_not_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = {"test/mse": 0.25, "test/gain_db": -1.5, "epochs": 1, "steps": 5, "seconds": 1.25}
    report(tmp_path, metrics, evaluated=False, can_be_evaluated=True)
    assert f"next       python evaluate.py run={tmp_path}" in capsys.readouterr().out
    monkeypatch.setenv(jobs.COMMAND, '["train.py"]')
    report(tmp_path, metrics, evaluated=False, can_be_evaluated=True)
    assert capsys.readouterr().out.splitlines() == [
        "",
        "  test       mse 0.25",
        "             1.5 dB worse than its input",
        "  run        epochs 1   steps 5   seconds 1.25",
    ]


@pytest.mark.parametrize(("seconds", "said"), [(40, "40 s"), (720, "12 min"), (12600, "3.5 h")])
def test_durations_are_said_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("trainer.max_epochs=2", ["epoch 1/2", "epoch 2/2"]),
        ("trainer.max_epochs=2 trainer.check_val_every_n_epoch=2", ["epoch 2/2"]),
        ("trainer.max_epochs=2 trainer.val_check_interval=3", ["step 3/10", "step 8/10"]),
        ("trainer.max_steps=6 trainer.max_epochs=9", ["step 5/6"]),
        (
            "trainer.max_steps=6 trainer.max_epochs=-1 trainer.check_val_every_n_epoch=null "
            "trainer.val_check_interval=3",
            ["step 3/6", "step 6/6"],
        ),
    ],
)
def test_a_line_says_how_far_the_training_is(
    options: str, expected: list[str], composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = composed(*SMALL, *options.split())
    fit(cfg, tmp_path)
    lines = [line.partition("  ")[0] for line in capsys.readouterr().out.splitlines() if "val/mse" in line]
    assert lines == expected


def test_an_endless_training_says_its_epoch(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Enough(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == 1

    cfg = composed(*SMALL, "trainer.max_epochs=-1", "scheduler=constant")
    fit(cfg, tmp_path, Enough())
    lines = [line.partition("  ")[0] for line in capsys.readouterr().out.splitlines() if "val/mse" in line]
    assert lines == ["epoch 1", "epoch 2"]


class Plain(LightningModule):
    """A model that is not this project's."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.layer(batch).mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-3)


def plain_trainer(tmp_path: Path, **options: Any) -> Trainer:
    return Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, max_epochs=1, **options,
    )  # fmt: skip


def test_they_work_with_any_model_and_a_plain_trainer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = [Pictures(tmp_path / "figures", every_n_epochs=1), EpochLines()]
    data = LightningDataModule.from_datasets(torch.ones(4, 1), torch.ones(4, 1))
    plain_trainer(tmp_path, callbacks=ours).fit(Plain(), data)
    out = capsys.readouterr().out  # a line for the epoch, and none for the batches of the sanity check
    assert out.count("epoch 1/1") == out.count("epoch") == 1
    loader: DataLoader[Any] = DataLoader(torch.ones(4, 1))  # type: ignore[arg-type]
    plain_trainer(tmp_path, callbacks=ours).fit(Plain(), loader, loader)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("fast", [False, True])
def test_pictures_are_drawn_when_they_are_due(fast: bool, composed: Compose, tmp_path: Path) -> None:
    cfg = composed(*SMALL)
    pictures = [Pictures(tmp_path / name, every_n_epochs=n, images=2) for name, n in (("due", 1), ("not", 2))]
    trainer = plain_trainer(tmp_path, callbacks=pictures, fast_dev_run=fast, use_distributed_sampler=False)
    data = training.build_data(cfg)
    model = training.build_model(cfg, data)
    assert isinstance(model, Autoencoder)
    trainer.fit(model, data)
    names = {path.name for path in (tmp_path / "due").iterdir()}
    assert names == {"reconstructions.png", "code_histograms.png"}
    assert not (tmp_path / "not").exists()


class Steps(Pictures):
    """Notes when it draws, and whether only the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[int, bool]] = []

    def draw(self, trainer: Trainer, model: LightningModule, rows_alone: bool = False) -> None:
        self.drawn.append((trainer.global_step, rows_alone))


@pytest.mark.parametrize(
    ("options", "every", "steps", "whole"),
    [
        ({"max_epochs": 15}, 1, [*range(1, 13), 14], [1, 2, 3, 5, 8, 12]),
        # Counted in steps: where it validates.
        (
            {"max_epochs": -1, "max_steps": 40, "val_check_interval": 4},
            40,
            [*range(4, 41, 4)],
            [4, 8, 12, 20, 32],
        ),
    ],
)
def test_most_pictures_are_of_the_beginning(
    options: dict[str, Any], every: int, steps: list[int], whole: list[int], tmp_path: Path
) -> None:
    pictures = Steps()
    train: Any = DataLoader(torch.ones(every, 1))  # type: ignore[arg-type]
    shown: Any = DataLoader(torch.ones(1, 1))  # type: ignore[arg-type]
    plain = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[pictures], **options,
    )  # fmt: skip
    plain.fit(Plain(), train, shown)
    assert [step for step, _ in pictures.drawn] == steps
    assert [step for step, rows_alone in pictures.drawn if not rows_alone] == whole
    plain.validate(Plain(), shown, verbose=False)
    assert len(pictures.drawn) == len(steps)  # as what is validated at the end is drawn by the training


def test_drawing_changes_nothing_in_the_model(composed: Compose, tmp_path: Path) -> None:
    """... not even the averages of a batch normalisation."""
    cfg = composed(*SMALL)
    data = training.build_data(cfg)
    model = training.build_model(cfg, data)
    model.encoder = nn.Sequential(nn.BatchNorm2d(1), model.encoder)
    data.prepare_data()
    data.setup("fit")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = plain_trainer(tmp_path)
    trainer.datamodule = data  # type: ignore[attr-defined]
    Pictures(tmp_path / "figures").draw(trainer, model)
    assert (tmp_path / "figures" / "reconstructions.png").is_file()
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ---- the film ----------------------------------------------------------------------------------------------

FILM = ["callbacks=film", "network=mlp", "network.hidden=[8]", "trainer.max_epochs=3"]


def test_a_film_has_most_frames_of_the_beginning(composed: Compose, tmp_path: Path) -> None:
    cfg = composed(*FILM, "callbacks.film.growth=0.5", "callbacks.film.images=3", "model=denoising")
    training.train(cfg, tmp_path)
    with Image.open(tmp_path / "figures" / "training.gif") as film:
        assert film.n_frames == 8  # type: ignore[attr-defined]
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Film"]
    assert kept["steps"] == [0, 1, 2, 3, 5, 8, 12]  # of 15, whose model is in the film's last frame
    assert {tuple(frame.shape) for frame in kept["frames"]} == {(3, 1, 28, 28)}
    assert not torch.equal(kept["frames"][0], kept["frames"][-1])


def test_a_model_of_another_kind_has_no_film(tmp_path: Path) -> None:
    film = Film(tmp_path / "figures")
    loader: Any = DataLoader(list(torch.rand(8, 1)), batch_size=4)  # type: ignore[arg-type]
    plain_trainer(tmp_path, callbacks=film).fit(Plain(), loader, loader)
    assert not film.frames
    assert not (tmp_path / "figures").exists()


def test_a_film_s_arguments_have_ranges() -> None:
    with pytest.raises(ValueError, match=r"^growth=0 must be ≥ 0.01"):
        Film(growth=0)
    with pytest.raises(ValueError, match=r"^images=0 must be ≥ 1"):
        Film(images=0)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_killed_run_has_the_same_film(devices: int, data_root: Path, tmp_path: Path) -> None:
    options = [*FILM, *NO_WANDB, *OFTEN, f"trainer.devices={devices}"]
    train(data_root, tmp_path / "whole", *options)
    if devices == 1:
        killed = small(data_root, tmp_path / "killed", *options)
        run("train.py", data_root, *killed, fault="kill step 9", ok=False)
        run("train.py", data_root, f"resume={tmp_path / 'killed'}")
        films = [(tmp_path / name / "figures" / "training.gif").read_bytes() for name in ("whole", "killed")]
        assert films[0] == films[1]


@pytest.mark.slow
def test_a_film_is_sent_to_wandb(data_root: Path, tmp_path: Path) -> None:
    train(data_root, tmp_path / "run", *FILM)
    assert list((tmp_path / "run" / "wandb").glob("**/media/videos/**/*.gif"))
