"""Where metrics go: metrics.csv in the run folder always, Weights & Biases beside it."""

import csv
import errno
import math
import netrc
import os
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from omegaconf import DictConfig, OmegaConf

from autoencoders.errors import one_line, redacted
from autoencoders.files import written_whole
from autoencoders.metrics import metric_names

WANDB_TIMEOUT_S = 5


class MetricsCSV(Logger):
    """One row a logged step, one column a metric, in `metrics.csv`; a resumed run goes on in its file.

    (Lightning's own CSVLogger deletes the file of the run that is resumed.) The file is written anew each
    time, so it is always whole: with every checkpoint, at the end, and in between at most once a second and
    for a hundredth of the time.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.written_at, self.took = -math.inf, 0.0
        if resume and self.path.exists():
            with self.path.open(newline="") as file:
                rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
            self.rows = [row | {"step": int(row["step"])} for row in rows]

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run folder has its config already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.rows and self.rows[-1]["step"] == step:
            self.rows[-1].update(metrics)
        else:
            self.rows.append({"step": step, **metrics})

    @rank_zero_only
    def save(self) -> None:
        if time.monotonic() - self.written_at > max(1, 100 * self.took):
            self.write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.write()

    @rank_zero_only
    def drop_after(self, step: int) -> None:
        """Forgets what a run did after the checkpoint of `step` that it is resumed from."""
        self.rows = [row for row in self.rows if row["step"] < step]

    @rank_zero_only
    def write(self) -> None:
        start = time.monotonic()
        if not self.path.parent.is_dir():  # it is not made anew when it was deleted
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        columns = dict.fromkeys(["step", "epoch", *(key for row in self.rows for key in row)])
        with written_whole(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(self.rows)
        self.written_at = time.monotonic()
        self.took = self.written_at - start


class Wandb(WandbLogger):
    """A W&B run that may be lost: then it is said once, and the training goes on without."""

    lost = False

    def send(self, what: Callable[[Any], object]) -> None:
        """Does something with the run of W&B, if there still is one."""
        if self.lost:
            return
        try:
            what(self.experiment)
        except Exception as error:
            self.lost = True
            rank_zero_warn(f"W&B is lost ({_why(error)}); the run goes on without it")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.send(lambda _: super(Wandb, self).log_metrics(dict(metrics), step))

    def finish(self, exit_code: int) -> None:
        self.send(lambda run: run.finish(exit_code=exit_code))


def start_wandb(
    folder: Path, config: Any, project: str, mode: str, group: str | None, tags: list[str]
) -> Wandb | None:
    """Starts the run's W&B run in its folder, or goes on with it.

    `mode` "auto" is online when an account is known, else offline, which needs none. W&B being out of reach
    never stops a run: it is offline then, or, if even that fails, None.
    """
    import wandb

    # W&B stages the images of tables for their upload; by default it does so in the home directory.
    os.environ["WANDB_DATA_DIR"] = str(folder / "wandb")
    known = folder / "wandb-id.txt"
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
    arguments: dict[str, Any] = {
        "project": project, "group": group, "tags": tags, "name": "-".join(folder.parts[-2:]),
        "config": config, "dir": folder, "resume": "allow",
        "id": known.read_text() if known.exists() else None,
    }  # fmt: skip
    os.environ.setdefault("WANDB_SILENT", "true")  # else it shows its server's address, password included
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its telemetry waits for a server that hangs
    settings = wandb.Settings(
        silent=True, console="off", init_timeout=WANDB_TIMEOUT_S, finish_timeout=2 * WANDB_TIMEOUT_S
    )
    try:
        run = wandb.init(mode=mode, settings=settings, **arguments)  # type: ignore[arg-type]
    except Exception as error:
        rank_zero_warn(f"W&B can't be reached ({_why(error)}); this run is logged offline")
        try:
            run = wandb.init(mode="offline", settings=settings, **arguments)
        except Exception as offline:
            rank_zero_warn(f"W&B can't be started ({_why(offline)}); this run is logged without it")
            return None
    with written_whole(known) as temporary:
        temporary.write_text(run.id)
    return Wandb(experiment=run)


def _why(error: Exception) -> str:
    """The first line of what it says, without what may be secret in it."""
    return one_line((str(error).strip() or type(error).__name__).splitlines()[0])


def log_evaluation(run: Path, cfg: DictConfig, scores: Mapping[str, Any], pictures: Path) -> str | None:
    """Puts an evaluation's tables and figures into the W&B run that trained the model.

    Returns:
        How to look at it; None where there is no such run.
    """
    if cfg.logger.name != "wandb" or not (run / "wandb-id.txt").is_file():
        return None
    import wandb

    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    options = {key: value for key, value in settings["logger"].items() if key != "name"}
    logger = start_wandb(run, settings, **options)
    if logger is None:
        return None
    logged: dict[str, Any] = {
        f"evaluation/figures/{path.stem}": wandb.Image(str(path)) for path in sorted(pictures.glob("*.png"))
    }
    for group, rows in scores.items():
        columns = metric_names(rows)
        table = wandb.Table(columns=["row", *columns])
        for row, metrics in rows.items():
            table.add_data(row, *(metrics.get(column) for column in columns))
        logged[f"evaluation/{group}"] = table
    summary = {
        f"evaluation/{group}/{metric}": value
        for group, rows in scores.items()
        for metric, value in rows.get("model", {}).items()
    }
    logger.send(lambda experiment: experiment.log(logged))
    logger.send(lambda experiment: experiment.summary.update(summary))
    logger.finish(exit_code=0)
    return how_to_look(logger.experiment)


def how_to_look(run: Any) -> str:
    """One line on where a W&B run is, for the end of a run."""
    if not run.settings._offline:
        return redacted(str(run.url))
    folder = Path(run.settings.sync_dir)
    return f"{folder} (offline; look: wandb leet {folder}; upload: wandb sync {folder})"


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
