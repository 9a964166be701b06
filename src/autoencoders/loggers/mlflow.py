"""MLflow."""

import json
import logging
import os
import re
import shlex
import shutil
import tempfile
import time
import uuid
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from autoencoders.errors import UserError, redacted
from autoencoders.files import atomic_write
from autoencoders.loggers.protocol import NotStartedError, Service, flatten, reason, redact, require

THUMBNAIL = (256, 256)  # pixels at most, as MLflow makes them
IMAGES_TAG, TABLES_TAG = "mlflow.loggedImages", "mlflow.loggedArtifacts"  # what its pages look for
LONGEST_PARAM = 500  # letters, which every version of MLflow takes


class MLflow(Service, MLFlowLogger):
    """Starts a run of MLflow, or continues the one that is named in the run folder's `mlflow-id.txt`.

    Args:
        save_dir: the run folder. Where there is no server it holds an SQLite database and the artifacts, in
            `mlflow/`.
        experiment_name: of MLflow.
        run_name: the last two parts of the run folder's path if None.
        tracking_uri: a server's address; None is that of MLFLOW_TRACKING_URI, or no server.
        tags: of the run.

    Raises:
        UserError: the packages of the extra `mlflow` are missing.
        NotStartedError: the server can't be reached.
    """

    service: ClassVar[str] = "MLflow"
    leaves: ClassVar[str] = "mlflow-id.txt"

    def __init__(
        self,
        save_dir: str | Path,
        experiment_name: str = "autoencoders",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        require(["mlflow", "sqlalchemy", "alembic"], "MLflow", extra="mlflow")
        for variable, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),  # its own five take minutes
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        ):
            os.environ.setdefault(variable, value)
        folder = Path(save_dir).absolute()
        known = folder / self.leaves
        run_id = known.read_text() if known.is_file() else None
        if run_id is not None and not re.fullmatch("[0-9a-f]{32}", run_id):
            raise UserError(f"{known} does not hold the id of an MLflow run")
        server = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        name = run_name or "-".join(folder.parts[-2:])
        self.store = None if server else folder / "mlflow"
        self.tables: list[str] = []
        if self.store:
            self.store.mkdir(exist_ok=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of MLflow's own use of SQLAlchemy
                import mlflow  # noqa: F401  # which sets up logging

                for noisy in ("mlflow", "alembic"):  # a line for each step in creating a database
                    logging.getLogger(noisy).setLevel(logging.WARNING)
                super().__init__(tracking_uri=server or f"sqlite:///{self.store}/mlflow.db")
                self._start(run_id, experiment_name, name, dict(tags or {}))
        except Exception as error:
            raise NotStartedError(f"MLflow can't be started ({reason(error)})") from error
        with atomic_write(known) as temporary:
            temporary.write_text(str(self._run_id))

    def _start(self, run_id: str | None, experiment_name: str, run_name: str, tags: dict[str, Any]) -> None:
        client = self._mlflow_client
        if run_id is not None:
            client.update_run(run_id, status="RUNNING")
            run = client.get_run(run_id)
            self._experiment_id = run.info.experiment_id
            self.tables = [table["path"] for table in json.loads(run.data.tags.get(TABLES_TAG, "[]"))]
        else:
            place = (self.store / "artifacts").as_uri() if self.store else None
            known = client.get_experiment_by_name(experiment_name)
            self._experiment_id = (
                known.experiment_id if known else client.create_experiment(experiment_name, place)
            )
            run_id = client.create_run(self._experiment_id, tags=tags, run_name=run_name).info.run_id
        self._run_id = run_id
        # Else Lightning would start it, and set MLFLOW_TRACKING_URI for whatever follows in this process.
        self._initialized = True

    @property
    def experiment(self) -> Any:
        """The client of MLflow."""
        return self._mlflow_client

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """As parameters, which MLflow never changes: what a resumed run has changed is a tag."""
        content = flatten(redact(vars(params) if isinstance(params, Namespace) else params))
        self.send(
            lambda client: self._log_params(client, {k: str(v)[:LONGEST_PARAM] for k, v in content.items()})
        )

    def _log_params(self, client: Any, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        logged = client.get_run(self._run_id).data.params
        new = [Param(key, value) for key, value in params.items() if key not in logged]
        for start in range(0, len(new), 100):  # as many as it takes at once
            client.log_batch(self._run_id, params=new[start : start + 100])
        for key, value in params.items():
            if logged.get(key, value) != value:
                client.set_tag(self._run_id, key, value)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        allowed = {re.sub(r"[^\w/. -]", "_", name, flags=re.ASCII): float(v) for name, v in metrics.items()}
        self.send(lambda _: super(MLflow, self).log_metrics(allowed, step))

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        self.send(lambda _: super(MLflow, self).finalize(status))

    def log_images(self, images: Mapping[str, Path], step: int | None) -> None:
        """Those of a step as MLflow's own `log_image` names them, whose charts have a slider of steps."""
        for name, path in images.items():
            if step is None:
                self._log_file(path, f"{name}.png")
                continue
            now = f"timestamp+{time.time_ns() // 1_000_000}+{uuid.uuid4()}"
            artifact = f"images/{name.replace('/', '~')}+step+{step}+{now}"
            with tempfile.TemporaryDirectory() as folder:
                small = Image.open(path).convert("RGB")
                small.thumbnail(THUMBNAIL)
                small.save(thumbnail := Path(folder) / "thumbnail.webp")
                self._log_file(path, f"{artifact}.png")
                self._log_file(thumbnail, f"{artifact}+compressed.webp")
        self._tag(IMAGES_TAG, "true")

    def log_table(
        self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], *, step: int | None
    ) -> None:
        """As JSON like MLflow's own tables, with images by their artifact; each step's replaces the last."""
        with tempfile.TemporaryDirectory() as folder:
            rows: list[list[Any]] = []
            for index, row in enumerate(data):
                rows.append(list(row))
                for column, cell in enumerate(row):
                    if isinstance(cell, np.ndarray):
                        picture = Path(folder) / "picture.png"
                        Image.fromarray(cell).save(picture)
                        at = f"{key}/{index}_{columns[column]}.png"
                        self._log_file(picture, at)
                        rows[-1][column] = {"type": "image", "filepath": at, "compressed_filepath": at}
            table = Path(folder) / "table.json"
            table.write_text(json.dumps({"columns": list(columns), "data": rows}))
            self._log_file(table, f"{key}.json")
        if f"{key}.json" not in self.tables:  # those that it shows as tables, and not as JSON
            self.tables.append(f"{key}.json")
            self._tag(TABLES_TAG, json.dumps([{"path": path, "type": "table"} for path in self.tables]))

    def _tag(self, key: str, value: str) -> None:
        self.send(lambda client: client.set_tag(self._run_id, key, value))

    def log_document(self, name: str, text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (document := Path(folder) / "document").write_text(text + "\n")
            self._log_file(document, f"{name}.txt")

    def _log_file(self, file: Path, artifact: str) -> None:
        """Keeps a copy of `file` as an artifact; in the run folder, whatever the database says of the place,
        since the folder may have been moved, or come from a stranger."""

        def copy(client: Any) -> None:
            if self.store:
                path = self.store / "artifacts" / str(self._run_id) / "artifacts" / artifact
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, path)
            else:
                with tempfile.TemporaryDirectory() as folder:
                    named = Path(folder) / Path(artifact).name
                    shutil.copyfile(file, named)
                    client.log_artifact(
                        self._run_id, str(named), str(Path(artifact).parent).lstrip(".") or None
                    )

        self.send(copy)

    def log_summary(self, values: Mapping[str, float]) -> None:
        self.log_metrics(values)

    def finish(self, failed: bool) -> None:
        self.finalize("failed" if failed else "success")

    def where(self) -> str:
        if self.store:
            return f"MLflow  mlflow ui --backend-store-uri {shlex.quote(str(self._tracking_uri))}"
        return f"MLflow  {redacted(str(self._tracking_uri))}, run {self._run_id}"
