"""What each logger holds after a real training, read back by its own reader."""

import io
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from command import column, line_of, small, start
from conftest import Compose
from hydra.errors import InstantiationException
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import OmegaConf
from PIL import Image

from autoencoders import loggers, training
from autoencoders.errors import UserError
from autoencoders.loggers import MetricsCSV, RunLogger, build_loggers, log_evaluation, protocol
from autoencoders.models import Autoencoder

ALL = "logger=[wandb,tensorboard,mlflow]"
QUICK = ["model=denoising", "network=mlp", "figures.images=4", "figures.every_n_epochs=null"]
QUICK += ["trainer.max_epochs=2"]
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # of MLflow


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No account and no server of whoever runs the tests."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def wandb_records(folder: Path, *, last: bool = False) -> list[dict[str, Any]]:
    """What `wandb leet` reads in the first, or the last, part of a run."""
    log = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))[-1 if last else 0]
    leet = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(log)]
    done = subprocess.run(leet, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def wandb_artifacts(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["artifact"] for record in records if record["type"] == "artifact"]


def wandb_curve(folder: Path, name: str, *, last: bool = False) -> list[float]:
    items = [record["history"]["item"] for record in wandb_records(folder, last=last) if "history" in record]
    return [float(item[name]) for item in items if name in item]


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "scalars": 0}).Reload()


def tensorboard_image(found: Any, tag: str) -> Image.Image:
    return Image.open(io.BytesIO(found.Images(tag)[-1].encoded_image_string))


def mlflow_run(folder: Path) -> tuple[Any, Any]:
    """The client of a run's own store, and the run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow/mlflow.db")
    return client, client.get_run((folder / "mlflow-id.txt").read_text())


def mlflow_runs(client: Any) -> list[Any]:
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def lend_database(trained: Path, folder: Path) -> None:
    """Puts a run's database into another folder: to create one takes MLflow seconds."""
    (folder / "mlflow").mkdir()
    shutil.copy(trained / "mlflow" / "mlflow.db", folder / "mlflow")


def mlflow_curve(folder: Path, name: str) -> list[float]:
    client, run = mlflow_run(folder)
    return [metric.value for metric in client.get_metric_history(run.info.run_id, name)]


@pytest.fixture(scope="module")
def trained(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run with all loggers at once, and what it printed; a password in its configuration."""
    folder = tmp_path_factory.mktemp("all loggers") / "run"  # a path with a space
    folder.mkdir()
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WANDB_MODE", "offline")
        patched.delenv("WANDB_API_KEY", raising=False)
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        patched.setattr(sys, "stdout", printed)
        cfg = composed(*QUICK, ALL, "logger.wandb.log_model=true")
        OmegaConf.set_struct(cfg, False)
        cfg.notes = {"mirror": "https://me:hidden123@host", "api_key": "hidden123"}
        training.train(cfg, folder)
    return folder, printed.getvalue()


def test_every_logger_has_the_curves(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    for name in ("train/loss", "val/mse", "test/psnr"):
        expected = pytest.approx(column(folder, name), rel=1e-5)
        assert [event.value for event in events(folder).Scalars(name)] == expected
        assert mlflow_curve(folder, name) == expected
        assert wandb_curve(folder, name) == expected
    assert len(column(folder, "train/loss")) == 10


def test_every_logger_has_pictures_and_the_table_of_images(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    drawn = np.asarray(Image.open(folder / "figures" / "reconstructions.png").convert("RGB"))
    known = tiny.blobs(tiny.TRAIN, 1, 28, 0)[:, 0]
    found = events(folder)
    assert (np.asarray(tensorboard_image(found, "pictures/reconstructions")) == drawn).all()
    # Each epoch, and the best model at the end.
    assert [event.step for event in found.Images("pictures/reconstructions")] == [5, 10, 10]
    strip = np.asarray(tensorboard_image(found, "validation_images/original").convert("L"), float)
    assert strip.shape == (28, 4 * 28)
    denoised = tensorboard_image(found, "validation_images/denoised")
    assert denoised.size == (4 * 28, 28)

    client, run = mlflow_run(folder)
    artifacts = folder / "mlflow" / "artifacts" / run.info.run_id / "artifacts"
    listed = [Path(file.path) for file in client.list_artifacts(run.info.run_id, "images")]
    rows = sorted(file.name for file in listed if file.name.startswith("pictures~reconstructions+step+"))
    assert [name.split("+")[2] for name in rows if name.endswith(".png")] == ["10", "10", "5"]
    assert [name.removesuffix("+compressed.webp") for name in rows if name.endswith(".webp")] == [
        name.removesuffix(".png") for name in rows if name.endswith(".png")
    ]
    files = [artifacts / "images" / name for name in rows if "+step+10+" in name and name.endswith(".png")]
    assert (folder / "figures" / "reconstructions.png").read_bytes() in [file.read_bytes() for file in files]
    assert run.data.tags["mlflow.loggedImages"] == "true"
    tables = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert tables == [{"path": "validation_images.json", "type": "table"}]
    table = json.loads((artifacts / "validation_images.json").read_text())
    assert table["columns"] == ["image", "original", "corrupted", "denoised", "mse"]
    assert len(table["data"]) == 4
    errors = [row[-1] for row in table["data"]]
    from_mlflow = np.asarray(Image.open(artifacts / table["data"][0][1]["filepath"]).convert("L"), float)

    records = wandb_records(folder)
    artifact = [artifact for artifact in wandb_artifacts(records) if artifact["type"] != "model"][-1]
    paths = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
    assert all(folder in path.parents for path in paths.values())
    table = json.loads(paths["validation_images.table.json"].read_text())
    assert table["columns"] == ["image", "original", "corrupted", "denoised", "mse"]
    assert [row[-1] for row in table["data"]] == pytest.approx(errors)
    lowest, highest = min(errors), max(errors)
    assert 0 < lowest < highest < 1
    from_wandb = np.asarray(Image.open(paths[table["data"][0][1]["path"]]).convert("L"), float)
    pictures = [
        {key.split(".")[0] for key in record["history"]["item"] if key.startswith("pictures/")}
        for record in records
        if "history" in record
    ]
    every = {"pictures/reconstructions", "pictures/code_histograms"}
    assert [names for names in pictures if names] == [every, every, every]
    made = np.asarray(denoised.convert("L"), float)[:, :28]
    error = float(((made - strip[:, :28]) ** 2).mean() / 255**2)
    assert errors[0] == pytest.approx(error, abs=0.01)
    for original in (strip[:, :28], from_mlflow, from_wandb):
        assert abs(known - original).max(axis=(1, 2)).min() <= 1  # one of the images, up to rounding


def test_every_logger_has_the_hyperparameters_and_the_model(trained: tuple[Path, str]) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    folder, _ = trained
    client, run = mlflow_run(folder)
    assert run.data.params["model.code_dim"] == "16"
    assert run.info.status == "FINISHED"
    layers = client.list_artifacts(run.info.run_id)
    assert "model.txt" in {file.path for file in layers}
    content = events(folder).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    params = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert params["model.code_dim"].number_value == 16
    assert "encoder" in events(folder).Tensors("model/text_summary")[0].tensor_proto.string_val[0].decode()
    configs = [record["config"]["update"] for record in wandb_records(folder) if "config" in record]
    assert any(update.get("model", {}).get("code_dim") == 16 for update in configs)
    assert run.data.metrics["final/val/mse"] == pytest.approx(min(column(folder, "val/mse")), rel=1e-5)


def test_wandb_has_the_checkpoints_as_versions_of_a_model(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    run_id = (folder / "wandb-id.txt").read_text()
    models = [artifact for artifact in wandb_artifacts(wandb_records(folder)) if artifact["type"] == "model"]
    assert [set(artifact["aliases"]) for artifact in models] == [{"best", "latest"}, {"last", "latest"}]
    measured = json.loads((folder / "metrics.json").read_text())
    curve = column(folder, "val/mse")
    for name, artifact, mse in zip(("best", "last"), models, (min(curve), curve[-1]), strict=True):
        assert (artifact["name"], artifact["run_id"]) == (f"model-{run_id}", run_id)
        (entry,) = artifact["manifest"]["contents"]
        original = folder / "checkpoints" / f"{name}.ckpt"
        assert entry["path"] == original.name
        assert Path(entry["local_path"]).read_bytes() == original.read_bytes()
        about = json.loads(artifact["metadata"])
        assert about["config"]["model"]["code_dim"] == 16
        assert about["config"]["notes"]["api_key"] == "***"
        assert about["val/mse"] == pytest.approx(mse, rel=1e-5)
    assert json.loads(models[0]["metadata"])["test/mse"] == measured["test/mse"]
    assert "test/mse" not in json.loads(models[1]["metadata"])


def test_nothing_secret_reaches_a_logger(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "config.yaml":
            assert b"hidden123" not in path.read_bytes(), path
    assert "hidden123" not in printed


def test_the_start_of_a_run_says_where_to_look(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    (run,) = (folder / "wandb").glob("offline-run-*")
    assert f"wandb leet '{run.parent}'" in printed
    assert f"wandb sync '{run.parent}'/offline-run-*" in printed
    assert f"tensorboard --logdir '{folder / 'tensorboard'}' --samples_per_plugin images=100" in printed
    assert f"mlflow ui --backend-store-uri 'sqlite:///{folder / 'mlflow' / 'mlflow.db'}'" in printed


@pytest.mark.parametrize("chosen", ["wandb", "tensorboard", "mlflow"])
def test_a_resumed_run_and_its_evaluation_continue_in_each_logger(
    chosen: str,
    trained: tuple[Path, str],
    composed: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """... what it does again included, and what it does otherwise."""
    lend_database(trained[0], tmp_path)
    options = ["network=mlp", "network.hidden=[8]", "figures.images=2", "checkpoint.every_n_minutes=0"]
    cfg = composed(*options, f"logger={chosen}", "trainer.max_epochs=2")

    def failing(*_: object) -> None:
        raise OSError("no more")

    step = Autoencoder.training_step
    with monkeypatch.context() as patched:
        patched.setattr(
            Autoencoder,
            "training_step",
            lambda model, *rest: failing() if model.global_step == 7 else step(model, *rest),
        )
        with pytest.raises(OSError, match="no more"):
            training.train(cfg, tmp_path)
    cfg.figures.images = 3
    training.train(cfg, tmp_path)
    log_evaluation(tmp_path, cfg, {"reconstruction": {"model": {"mse": 0.5}, "mean image": {"mse": 0.9}}},
                   tmp_path / "figures")  # fmt: skip

    losses = pytest.approx(column(tmp_path, "train/loss"), rel=1e-5)
    assert len(column(tmp_path, "train/loss")) == 10
    if chosen == "wandb":
        ids = {path.name.split("-")[3] for path in (tmp_path / "wandb").glob("offline-run-*")}
        assert ids == {(tmp_path / "wandb-id.txt").read_text()}
        records = json.dumps(wandb_records(tmp_path, last=True))
        assert "evaluation/figures/reconstructions" in records
        assert "evaluation/reconstruction/mse" in records
        assert "model" not in {a["type"] for a in wandb_artifacts(wandb_records(tmp_path, last=True))}
    elif chosen == "tensorboard":
        found = events(tmp_path)
        assert [event.value for event in found.Scalars("train/loss")] == losses
        assert [event.step for event in found.Scalars("train/loss")] == list(range(10))
        assert tensorboard_image(found, "evaluation/figures/reconstructions").width > 0
        table = found.Tensors("evaluation/reconstruction/text_summary")[0].tensor_proto.string_val[0].decode()
        assert table.splitlines() == [
            "| row | mse |",
            "| --- | --- |",
            "| model | 0.5 |",
            "| mean image | 0.9 |",
        ]
        assert found.Scalars("evaluation/reconstruction/mse")[0].value == 0.5
    else:
        client, run = mlflow_run(tmp_path)
        assert len(mlflow_runs(client)) == 2  # with the lent database's own
        values = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "train/loss")}
        assert list(values.values()) == losses
        assert run.data.params["figures.images"] == "2"
        assert run.data.tags["figures.images"] == "3"  # what it was resumed with
        assert run.info.status == "FINISHED"
        assert run.data.metrics["evaluation/reconstruction/mse"] == 0.5
        artifacts = tmp_path / "mlflow" / "artifacts" / run.info.run_id / "artifacts" / "evaluation"
        assert json.loads((artifacts / "reconstruction.json").read_text())["data"][0] == ["model", 0.5]
        assert (artifacts / "figures" / "reconstructions.png").is_file()


def test_an_evaluation_starts_no_run_where_there_is_none(composed: Compose, tmp_path: Path) -> None:
    assert log_evaluation(tmp_path, composed(ALL), {}, tmp_path) == []
    assert not list(tmp_path.iterdir())


class Kept(Logger):
    """A logger of one's own, which keeps what it gets."""

    def __init__(self, save_dir: str, color: str) -> None:
        super().__init__()
        self.folder, self.color, self.seen = save_dir, color, dict[str, Any]()

    name = version = "kept"

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        self.seen |= params

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.seen |= metrics


def test_any_logger_of_lightnings_or_ones_own_gets_curves_and_hyperparameters(
    composed: Compose, tmp_path: Path
) -> None:
    cfg = composed("network=mlp", "+logger.table._target_=lightning.pytorch.loggers.CSVLogger")
    training.train(cfg, tmp_path)
    (folder,) = (tmp_path / "lightning_logs").iterdir()
    assert column(folder, "train/loss") == pytest.approx(column(tmp_path, "train/loss"))
    assert "code_dim: 16" in (folder / "hparams.yaml").read_text()

    target = f"+logger.own._target_={__name__}.Kept"
    node = composed(target, "+logger.own.color=red").logger
    secret = {"api_key": "abc", "hosts": ["https://me:hidden@host"], "seed": 1}
    _, logger = build_loggers(node, Path("/${oc.env:HOME}"), secret, resume=False)
    assert isinstance(logger, Kept)
    assert logger.color == "red"
    assert str(logger.folder) == "/${oc.env:HOME}"  # nothing in a path is an interpolation
    assert logger.seen == {"api_key": "***", "hosts": ["https://***@host"], "seed": 1}
    elsewhere = composed(target, "+logger.own.color=red", "+logger.own.save_dir=/elsewhere").logger
    assert build_loggers(elsewhere, tmp_path, {}, resume=False)[1].folder == "/elsewhere"  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"logger\.wrong: fractions\.Fraction is not a Lightning logger"):
        build_loggers(
            composed("+logger.wrong._target_=fractions.Fraction").logger, tmp_path, {}, resume=False
        )


def test_wrong_values_and_missing_packages_are_one_line(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = composed("logger=wandb", "logger.wandb.mode=ofline")
    with pytest.raises(
        InstantiationException, match=r"mode=ofline must be auto or online[\s\S]*logger\.wandb"
    ):
        build_loggers(cfg.logger, tmp_path, {}, resume=False)
    monkeypatch.setattr(protocol, "find_spec", lambda name: None)
    for chosen, service in (("tensorboard", "TensorBoard"), ("mlflow", "MLflow")):
        line = line_of(
            lambda: build_loggers(composed(f"logger={chosen}").logger, tmp_path, {}, resume=False)  # noqa: B023
        )
        assert line == f"logger={chosen} needs {service}: pip install -e '.[{chosen}]'"
    assert not list(tmp_path.iterdir())


def test_an_id_of_mlflow_is_a_plain_word(composed: Compose, tmp_path: Path) -> None:
    (tmp_path / "mlflow-id.txt").write_text("../../elsewhere")
    line = line_of(lambda: build_loggers(composed("logger=mlflow").logger, tmp_path, {}, resume=False))
    assert line == f"{tmp_path / 'mlflow-id.txt'} does not hold the id of an MLflow run"


def test_artifacts_stay_in_the_run_folder(
    trained: tuple[Path, str], composed: Compose, tmp_path: Path
) -> None:
    """... whatever its database says: it may have been moved, or come from somebody else."""
    lend_database(trained[0], tmp_path)
    cfg = composed("logger=mlflow").logger
    build_loggers(cfg, tmp_path, {}, resume=False)
    (tmp_path / "outside").mkdir()
    with sqlite3.connect(tmp_path / "mlflow" / "mlflow.db") as database:
        for table, column_ in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            database.execute(f"UPDATE {table} SET {column_} = ?", [(tmp_path / "outside").as_uri()])
    _, logger = build_loggers(cfg, tmp_path, {}, resume=True)
    assert isinstance(logger, RunLogger)
    logger.log_document("model", "layers")
    assert not list((tmp_path / "outside").iterdir())
    (file,) = tmp_path.glob("mlflow/artifacts/*/artifacts/model.txt")
    assert file.read_text() == "layers\n"


def test_a_server_out_of_reach_is_done_without(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    cfg = composed("logger=mlflow", "logger.mlflow.tracking_uri=http://me:hidden@127.0.0.1:9")
    with pytest.warns(UserWarning, match="MLflow can't be started.*this run is logged without it") as warned:
        assert len(build_loggers(cfg.logger, tmp_path, {}, resume=False)) == 1
    assert "hidden" not in str(warned[0].message)


def test_wandb_that_is_lost_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise ConnectionResetError("Connection lost to http://me:secret@host/")

    run = SimpleNamespace(id="abc", define_metric=lambda *_, **__: None, log=gone)
    monkeypatch.setattr("wandb.init", lambda **_: run)
    logger = loggers.Wandb(tmp_path)
    with pytest.warns(UserWarning, match=r"W&B is lost \(Connection lost to http://\*\*\*@host/\)"):
        logger.log_metrics({"val/mse": 1.0}, step=1)
    logger.log_metrics({"val/mse": 1.0}, step=2)
    logger.log_document("model", "layers")
    logger.finish(failed=False)
    assert not recwarn


def test_further_arguments_reach_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    run = SimpleNamespace(id="abc", define_metric=lambda *_, **__: None)
    monkeypatch.setattr("wandb.init", lambda **arguments: given.update(arguments) or run)
    loggers.Wandb(
        tmp_path, project="mine", entity="us", notes="a try", name="first", settings={"console": "wrap"}
    )
    assert (given["project"], given["entity"], given["notes"], given["name"]) == (
        "mine",
        "us",
        "a try",
        "first",
    )
    assert given["settings"].console == "wrap"
    assert given["settings"].silent
    assert given["dir"] == tmp_path
    assert (tmp_path / "wandb-id.txt").read_text() == "abc"


def test_metrics_csv_keeps_its_rows_in_order(tmp_path: Path) -> None:
    """... also those of callbacks, which count the steps ahead of an epoch's metrics."""
    table = MetricsCSV(tmp_path, resume=False)
    table.log_metrics({"train/loss": torch.tensor(2.0)}, step=1)  # type: ignore[dict-item]
    table.log_metrics({"cpu": 50.0}, step=2)
    table.log_metrics({"val/mse": 0.5}, step=1)
    table.log_metrics({"own": 3.0})
    table.finalize("success")
    written = (tmp_path / "metrics.csv").read_text().splitlines()
    assert written == ["step,epoch,train/loss,val/mse,cpu,own", "1,,2.0,0.5,,", "2,,,,50.0,3.0"]


@pytest.mark.slow
def test_two_processes_log_as_one(data_root: Path, tmp_path: Path) -> None:
    own = f"+logger.own._target_={CSVLogger.__module__}.CSVLogger"
    options = [ALL, own, "callbacks=[lr_monitor,device_stats]", "trainer.devices=2", "network=mlp"]
    options += ["logger.wandb.log_model=true"]
    process = start("train.py", data_root, *small(data_root, tmp_path / "run", *options))
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    losses = pytest.approx(column(tmp_path / "run", "train/loss"), rel=1e-5)
    assert [event.value for event in events(tmp_path / "run").Scalars("train/loss")] == losses
    assert mlflow_curve(tmp_path / "run", "train/loss") == losses
    assert wandb_curve(tmp_path / "run", "train/loss") == losses
    artifacts = wandb_artifacts(wandb_records(tmp_path / "run"))
    assert [artifact["type"] for artifact in artifacts].count("model") == 2
    (folder,) = (tmp_path / "run" / "lightning_logs").iterdir()
    assert column(folder, "train/loss") == losses
    assert column(tmp_path / "run", "lr-AdamW")
