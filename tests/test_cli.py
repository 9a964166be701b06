"""train.py and evaluate.py as a user runs them, in processes of their own, on the tiny data."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from command import column, run, train
from PIL import Image

from autoencoders import config, runs


@pytest.fixture(scope="module")
def trained(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser's run folder, two epochs, with W&B offline, evaluated."""
    folder = tmp_path_factory.mktemp("runs") / "denoising"
    options = ["model=denoising", "corruption.std=0.4", "model.code_dim=2"]
    options += ["trainer.max_epochs=2", "figures.every_n_epochs=1", "evaluate=true"]
    done = train(data_root, folder, *options)
    (folder.parent / "printed.txt").write_text(done.stdout)
    return folder


def test_a_training_with_an_evaluation_ends_with_the_headline_and_says_nothing_twice(trained: Path) -> None:
    printed = (trained.parent / "printed.txt").read_text()
    for once in ("wandb leet", "wandb sync", "val/mse 0", "  report ", "  next ", "corruption "):
        assert printed.count(once) == (2 if once == "val/mse 0" else 1), once  # a line an epoch
    lines = [line for line in printed.splitlines() if line.startswith("  ")]
    assert len(lines) == len(set(lines))
    scores = json.loads((trained / "evaluation" / "metrics.json").read_text())["reconstruction"]
    (headline,) = re.findall(
        r"^  test       ([\d.]+) ± [\d.]+ mean squared error of a pixel, (.*)$", printed, re.M
    )
    assert float(headline[0]) == pytest.approx(scores["model"]["mse"], rel=0.05)
    assert re.search(r"times (less than|that of)\b|% (less|more) than\b|not significantly\b", headline[1])
    assert re.search(r"^  next       python \S*evaluate.py run=\S+ grid=true$", printed, re.M)


def test_a_run_folder_holds_everything(trained: Path) -> None:
    figures = {path.name for path in (trained / "figures").iterdir()}
    assert figures == {"reconstructions.png", "latent_scatter.png", "manifold.png", "code_histograms.png"}
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {"val/mse", "val/loss", "test/mse", "test/psnr", "test/ssim", "test/gain_db"} <= set(metrics)
    assert metrics["seconds"] > 0
    assert (metrics["epochs"], metrics["steps"]) == (2, 10)
    assert min(column(trained, "val/mse")) == pytest.approx(metrics["val/mse"], rel=1e-5)
    assert len(column(trained, "train/loss")) == 10
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert "_target_: autoencoders.corruption.Gaussian" in (trained / "config.yaml").read_text()
    assert "${" not in (trained / "config.yaml").read_text()
    assert not list(trained.rglob("*.tmp"))


def test_wandb_pictures_are_read_back_from_the_offline_run(trained: Path) -> None:
    offline, evaluation = sorted((trained / "wandb").glob("offline-run-*"))
    assert offline.name.rpartition("-")[2] == evaluation.name.rpartition("-")[2]  # the same run, resumed
    for name in ("best_and_worst", "clusters", "code_histograms"):
        assert list((evaluation / "files" / "media").rglob(f"{name}_*.png"))
    (log,) = offline.glob("*.wandb")
    leet = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(log)]
    done = subprocess.run(leet, capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert "val/mse" in done.stdout

    logged = offline / "files" / "media" / "images" / "pictures"
    for name in ("reconstructions", "latent_scatter", "manifold"):
        last = max(logged.glob(f"{name}_*"), key=lambda path: int(path.stem.split("_")[-2]))
        assert last.read_bytes() == (trained / "figures" / f"{name}.png").read_bytes()

    artifact = [record["artifact"] for record in records if record["type"] == "artifact"][-1]
    files = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
    assert all(trained in path.parents for path in files.values())
    table = json.loads(files["validation_images.table.json"].read_text())
    assert table["columns"] == ["image", "original", "corrupted", "denoised", "mse"]
    assert len(table["data"]) == 4
    pictures = [
        np.asarray(Image.open(files[cell["path"]]).convert("L"), float) for cell in table["data"][0][1:-1]
    ]
    assert [picture.shape for picture in pictures] == [(28, 28)] * 3
    original, corrupted, _ = pictures
    known = tiny.blobs(tiny.TRAIN, 1, 28, 0)[:, 0]
    assert abs(known - original).max(axis=(1, 2)).min() <= 1  # one of the images, up to rounding
    assert abs(original - corrupted).mean() > 50


def test_evaluate_scores_the_model_beside_references(trained: Path) -> None:
    first = json.loads((trained / "evaluation" / "metrics.json").read_text())["reconstruction"]
    assert {"model", "PCA 2", "corrupted image", "median filter", "linear (Wiener)"} <= set(first)
    tested = json.loads((trained / "metrics.json").read_text())
    for name in ("mse", "mae", "psnr", "ssim"):
        assert first["model"][name] == pytest.approx(tested[f"test/{name}"], rel=1e-4)
    assert (trained / "evaluation" / "figures" / "manifold.png").stat().st_size > 1000
    page = (trained / "evaluation" / "report.html").read_text()
    assert "decoder" in page
    assert len(re.findall(r"<td>[\d.]+ ± [\d.]+</td>", page)) > 20
    intervals = json.loads((trained / "evaluation" / "intervals.json").read_text())["reconstruction"]
    for row, metrics in intervals.items():
        assert all(low <= first[row][metric] <= high for metric, (low, high) in metrics.items())
    assert {"mse", "gain_db"} < set(intervals["median filter"])
    errors = np.load(trained / "evaluation" / "errors.npy")
    assert errors.mean() == pytest.approx(first["model"]["mse"], rel=1e-5)


@pytest.mark.slow
def test_it_is_evaluated_under_another_corruption_but_not_as_another_model(
    trained: Path, data_root: Path
) -> None:
    refused = run("evaluate.py", data_root, f"run={trained}", "model.code_dim=3", ok=False)
    assert "is trained" in refused.stderr
    masked = ("corruption=masking", "groups=reconstruction", "logger=csv")
    run("evaluate.py", data_root, f"run={trained}", *masked)
    first, other = (
        json.loads((trained / "evaluation" / name).read_text())["reconstruction"]["corrupted image"]["mse"]
        for name in ("metrics.json", "groups.json")
    )
    assert first != other


@pytest.mark.slow
def test_a_grid_has_every_kind_and_level(trained: Path, data_root: Path) -> None:
    run("evaluate.py", data_root, f"run={trained}", "grid=true")
    lines = (trained / "evaluation" / "grid.csv").read_text().splitlines()
    assert len(lines) == 1 + 6 * 5
    blur = [float(line.split(",")[4]) for line in lines if line.startswith("blur")]
    assert blur == sorted(blur)  # the more an image is blurred, the farther it is from the clean one
    assert (trained / "evaluation" / "grid.png").stat().st_size > 1000
    if (page := trained / "evaluation" / "report.html").is_file():
        assert "blur (sigma 0.5 to 3.0), corrupted image" in page.read_text()


# A wrong name is found without torch, in half a second.
BAD_NAMES = {
    "model=denoisin": "no model=denoisin: did you mean 'denoising'",
    "data=mnits": "no data=mnits: did you mean 'mnist'",
    "corruption=gausian": "no corruption=gausian: did you mean 'gaussian'",
    "experiment=latent": "no experiment=latent: did you mean 'latent_space'",
    "callbacks=early_stoping": "no callbacks=early_stoping: did you mean 'early_stopping'",
    "model.cod_dim=3": "no key model.cod_dim: did you mean 'code_dim'",
    "modle=vae": "no key modle: did you mean 'model'",
    "trainer.max_epoch=3": "no key trainer.max_epoch: did you mean 'max_epochs'",
    "corruption.std=1": "no key corruption.std: corruption=gaussian and corruption=speckle have it",
    "network.activation=relu": "no key network.activation: network=mlp has it",
    "model=null": "a group can't be null",
    "+task_name=x": "no key task_name: hydra.run.dir=<folder> names",
    "callbacks=[early_stopping,rich]": "no callbacks=rich: there are: device_stats",
    "-cn mine": "no config mine: there are: train",
    "hydra.sweeper=optuna": "a file of a group is chosen with a slash: hydra/sweeper=tpe",
    "debug=true": "no debug=true: there are: anomaly",
    "+network=own": "there is network already, say network=own without the +",
    "data=mydata.Mine": "data=mydata.Mine is the name of a class: write data._target_=mydata.Mine",
    "model=VAE": "no model=VAE: did you mean 'vae'",
    "callbacks.mine.monitor=x": "no key callbacks.mine: no callback is chosen",
    "callbacks.model_checkpoint.monitor=x": "objective=val/mse chooses best.ckpt",
    "foo": "foo is neither key=value nor",
    "callbacks.early_stopping.patience=3": "it is not chosen; choose it too: callbacks=early_stopping",
    "+callbacks.mine=mine.Count": "callbacks.mine=mine.Count is the name of a class: write",
    "network.encoder._target_=mine.Encoder": "network.encoder._target_=mine.Encoder needs network=own",
    "objective=${oc.env:NOPE}": "Environment variable 'NOPE' not found",
    "resume=runs/nowhere": "no run folder runs/nowhere",
    "model.code_dim=2,4": "model.code_dim=2,4 has several values: add -m to sweep over them",
    "model.code_dim=[": "model.code_dim=[ can't be read: no viable alternative",
    "seed=ß": "seed=ß can't be read: token recognition error",
    "hydra.run.dir=": "hydra.run.dir= names no folder",
    "ckpt_path=last.ckpt": "no key ckpt_path: resume=<run folder>",
    "data.num_workers=4": "no key data.num_workers: not needed: the images are in memory",
    "hydra/launcher=joblib": "hydra.launcher.max_parallel=2 runs two jobs at a time",
    "-m hydra/sweeper=optuna": "hydra/sweeper=tpe searches with Optuna",
}
# A wrong value is found by the class that uses it.
BAD_VALUES = {
    "network=own": "network.encoder._target_ must be given",
    "model.code_dim=0": "model.code_dim=0 must be ≥ 1",
    "model.code_dim=two": "model.code_dim=two must be a whole number",
    "optimizer.lr=0": "optimizer.lr=0 must be > 0",
    "scheduler.warmup=1": "scheduler.warmup=1 must be > 0 and < 1",
    "network.hidden=[5,x]": "network.hidden[1]=x must be a whole number",
    "corruption=gaussian corruption.std=-1": "corruption.std=-1 must be ≥ 0",
    "corruption=masking corruption.fraction=1.5": "corruption.fraction=1.5 must be ≥ 0 and ≤ 1",
    "corruption=compose corruption.steps.blur.sigma=0": "corruption.steps.blur.sigma=0 must be > 0",
    "data.batch_size=63 trainer.devices=2": "data.batch_size=63 must be divisible by the 2 devices",
    "trainer=cpu trainer.devices=4096": "trainer.devices=4096 is more than the",
    "trainer.devices=4099": "trainer.devices=4099 is more than the",
    "trainer=gpu trainer.devices=640": "is more than the",
    "trainer=cpu trainer.devices=[0,0]": "trainer: `devices` selected with `CPUAccelerator`",
    "trainer.strategy=ddpp": "trainer: You selected an invalid strategy name",
    "trainer.precision=8": "trainer: Precision 8 is invalid",
    "+trainer.overfit_batchs=10": "no key trainer.overfit_batchs: did you mean 'overfit_batches'",
    "model=colorization data=mnist": "can't colour MNIST",
    "model=denoising corruption=none": "nothing to denoise",
    "data=noisy_mnist corruption=none": "corrupt_once=True needs a corruption",
    "data=mnist data.target=color": "its images are gray",
    "data.root=''": "data.root= must be a folder",
    "seed=1.5": "seed=1.5 must be a whole number",
    "data=cifar10_gray data.target=red": "data.target=red must be gray or color",
    "model=linear network=mlp": "network=MLP must be Linear",
    "model.likelihood=poisson": "model.likelihood=poisson must be gaussian or gaussian_unbounded or",
    "ema=1.5": "ema=1.5 must be > 0 and < 1",
    "figures.images=0": "figures.images=0 must be ≥ 1",
    "checkpoint.every_n_minutes=-1": "checkpoint.every_n_minutes=-1 must be ≥ 0",
    "model._target_=mine.Model": "model._target_=mine.Model is not found: No module named 'mine'",
    "model._target_=autoencoders.models.VEA": "autoencoders.models has no VEA: did you mean 'VAE'?",
    "model._target_=pathlib.Path": "pathlib.Path is not a LightningModule",
    "init=nowhere": "init=nowhere is neither a run folder nor a checkpoint",
}


@pytest.mark.parametrize("arguments", BAD_NAMES)
def test_a_bad_name_gets_one_line(arguments: str, tmp_path: Path) -> None:
    """... and a non-zero exit, soon, without torch, and no folder is left."""
    start = time.perf_counter()
    refused(arguments, BAD_NAMES[arguments], tmp_path)
    assert time.perf_counter() - start < 10  # 0.5 s on an idle machine


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(arguments, marks=() if index % 16 == 0 else pytest.mark.slow)
        for index, arguments in enumerate(BAD_VALUES)
    ],
)
def test_a_bad_value_gets_one_line(arguments: str, tmp_path: Path) -> None:
    """... and a non-zero exit, and no folder is left."""
    refused(arguments, BAD_VALUES[arguments], tmp_path)


def refused(arguments: str, message: str, folder: Path) -> None:
    run_dir = [] if "hydra.run.dir" in arguments else [f"hydra.run.dir={folder}/runs/model/run"]
    command = [sys.executable, str(tiny.REPOSITORY / "train.py"), *arguments.split(), *run_dir]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert message in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("arguments", ["--help", "--cfg job", "model.cod_dim=3"])
def test_what_needs_no_torch_does_not_import_it(arguments: str, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(tiny.REPOSITORY / "train.py"), *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "numpy"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "name one run folder"),
        ("run=nowhere", "no run folder nowhere"),
        ("run=.", "is not a run folder"),
        (".", "must be named as a run: run=."),
        ("run=. gird=true", "no key gird: did you mean 'grid'?"),
        ("run=. trust=true lr=1", "no key lr: use optimizer.lr="),
    ],
)
def test_evaluate_says_what_is_wrong_with_its_arguments(arguments: str, message: str, tmp_path: Path) -> None:
    command = [sys.executable, str(tiny.REPOSITORY / "evaluate.py"), *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert message in done.stderr


def test_a_run_without_a_checkpoint_is_no_run_to_evaluate(tmp_path: Path) -> None:
    runs.write_config(tmp_path, config.compose_conf(["model=vae"]), ["model=vae"])
    command = [sys.executable, str(tiny.REPOSITORY / "evaluate.py"), f"run={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "holds no checkpoint" in done.stderr
