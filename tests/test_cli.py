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


@pytest.fixture(scope="module")
def trained(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser's run folder, two epochs, with W&B offline, evaluated."""
    folder = tmp_path_factory.mktemp("runs") / "denoising"
    options = ["model=denoising", "corruption.std=0.4", "model.code_dim=2"]
    options += ["trainer.max_epochs=2", "figures.every_n_epochs=1", "evaluate=true"]
    done = train(data_root, folder, *options)
    assert "wandb leet" in done.stdout
    assert "wandb sync" in done.stdout
    return folder


def test_a_run_folder_holds_everything(trained: Path) -> None:
    figures = {path.name for path in (trained / "figures").iterdir()}
    assert figures == {"reconstructions.png", "latent_scatter.png", "manifold.png"}
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
    assert list((evaluation / "files" / "media").rglob("best_and_worst_*.png"))
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
    assert table["columns"] == ["image", "original", "corrupted", "denoised"]
    assert len(table["data"]) == 4
    pictures = [
        np.asarray(Image.open(files[cell["path"]]).convert("L"), float) for cell in table["data"][0][1:]
    ]
    assert [picture.shape for picture in pictures] == [(28, 28)] * 3
    original, corrupted, _ = pictures
    known = tiny.blobs(tiny.TRAIN, 1, 28, 0)[:, 0]
    assert abs(known - original).max(axis=(1, 2)).min() <= 1  # one of the images, up to rounding
    assert abs(original - corrupted).mean() > 50


def test_evaluate_scores_the_model_beside_references(trained: Path, data_root: Path) -> None:
    def scores() -> dict[str, dict[str, float]]:
        groups = json.loads((trained / "evaluation" / "metrics.json").read_text())
        rows: dict[str, dict[str, float]] = groups["reconstruction"]
        return rows

    first = scores()
    assert {"model", "PCA 2", "corrupted image", "median filter", "linear (Wiener)"} <= set(first)
    tested = json.loads((trained / "metrics.json").read_text())
    for name in ("mse", "mae", "psnr", "ssim"):
        assert first["model"][name] == pytest.approx(tested[f"test/{name}"], rel=1e-4)
    assert (trained / "evaluation" / "figures" / "manifold.png").stat().st_size > 1000
    assert "decoder" in (trained / "evaluation" / "report.html").read_text()
    refused = run("evaluate.py", data_root, f"run={trained}", "model.code_dim=3", ok=False)
    assert "is trained" in refused.stderr
    run("evaluate.py", data_root, f"run={trained}", "corruption=masking", "logger=csv")
    assert scores()["corrupted image"]["mse"] != first["corrupted image"]["mse"]


@pytest.mark.slow
def test_a_grid_has_every_kind_and_level(trained: Path, data_root: Path) -> None:
    run("evaluate.py", data_root, f"run={trained}", "grid=true")
    lines = (trained / "evaluation" / "grid.csv").read_text().splitlines()
    assert len(lines) == 1 + 6 * 5
    blur = [float(line.split(",")[4]) for line in lines if line.startswith("blur")]
    assert blur == sorted(blur)  # the more an image is blurred, the farther it is from the clean one
    assert (trained / "evaluation" / "grid.png").stat().st_size > 1000


BAD = {
    "model=denoisin": "no model=denoisin: did you mean 'denoising'",
    "data=mnits": "no data=mnits: did you mean 'mnist'",
    "corruption=gausian": "no corruption=gausian: did you mean 'gaussian'",
    "experiment=latent": "no experiment=latent: did you mean 'latent_space'",
    "model.cod_dim=3": "no key model.cod_dim: did you mean 'code_dim'",
    "modle=vae": "no key modle: did you mean 'model'",
    "model.code_dim=0": "model.code_dim=0 must be ≥ 1",
    "model.code_dim=two": "model.code_dim=two must be a whole number",
    "model.lr=0": "model.lr=0 must be > 0",
    "corruption=gaussian corruption.std=-1": "corruption.std=-1 must be ≥ 0",
    "corruption=masking corruption.fraction=1.5": "corruption.fraction=1.5 must be ≥ 0 and ≤ 1",
    "corruption=compose corruption.steps.blur.sigma=0": "corruption.steps.blur.sigma=0 must be > 0",
    "data.batch_size=63 trainer.devices=2": "data.batch_size=63 must be divisible by the 2 devices",
    "trainer=cpu trainer.devices=4096": "trainer.devices=4096 is more than the",
    "trainer.devices=4099": "trainer.devices=4099 is more than the",
    "model=colorization data=mnist": "nothing to colour in MNIST",
    "model=denoising corruption=none": "nothing to denoise",
    "data=noisy_mnist corruption=none": "is not noisy",
    "data=mnist data.target=color": "its images are gray",
    "seed=1.5": "seed=1.5 must be a whole number",
    "model.lr=null": "model.lr=null must have a value",
    "data.root=null": "data.root=null must have a value",
    "model=null": "a group can't be null",
    "+sede=1": "no key sede: did you mean 'seed'",
    "trainer=gpu trainer.devices=640": "is more than the",
    "data=cifar10_gray data.target=red": "data.target=red must be gray or color",
    "model=linear network=mlp": "model=linear is linear",
    "model.likelihood=poisson": "model.likelihood=poisson must be gaussian or bernoulli",
    "objective=test/mse": "objective=test/mse must be val/mse or val/loss",
    "resume=runs/nowhere": "no run folder runs/nowhere",
    "data.root=${oc.env:HOME}": "asks for more than a key's value",
    "trainer.devices=[0,1] data.batch_size=63": "must be divisible by the 2 devices",
    "+trainer.overfit_batches=10": "no key trainer.overfit_batches",
    "model.code_dim=[": "no viable alternative",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_gets_one_line(arguments: str, tmp_path: Path) -> None:
    """... and a non-zero exit, soon, and no folder is left."""
    command = [
        sys.executable,
        str(tiny.REPOSITORY / "train.py"),
        *arguments.split(),
        f"hydra.run.dir={tmp_path}/run",
    ]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert time.perf_counter() - start < 10  # 0.7 s on an idle machine
    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert BAD[arguments] in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "name one run folder"),
        ("run=nowhere", "no run folder nowhere"),
        ("run=.", "is not a run folder"),
    ],
)
def test_evaluate_says_what_is_wrong_with_a_run_folder(arguments: str, message: str, tmp_path: Path) -> None:
    command = [sys.executable, str(tiny.REPOSITORY / "evaluate.py"), *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert message in done.stderr


def test_a_run_without_a_checkpoint_is_no_run_to_evaluate(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- model=vae\n")
    command = [sys.executable, str(tiny.REPOSITORY / "evaluate.py"), f"run={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "holds no checkpoint" in done.stderr
