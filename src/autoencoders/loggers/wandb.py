"""Weights & Biases."""

import html
import netrc
import os
import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from autoencoders import checks, runs
from autoencoders.errors import redacted
from autoencoders.files import atomic_write
from autoencoders.loggers.protocol import NotStartedError, Service, reason, redact

TIMEOUT_S = 5
UPLOAD_TIMEOUT_S = 600  # of checkpoints


class Wandb(Service, WandbLogger):
    """Starts a W&B run in the run folder, or continues the one that is named in its `wandb-id.txt`.

    Args:
        save_dir: the run folder.
        project: of W&B.
        mode: "auto" is online when an account is known, else offline, which needs none; "online", "offline"
            and "disabled" are W&B's. Where W&B is out of reach the run is logged offline.
        log_model: whether the checkpoints are logged too when the training ends, as versions of an artifact.
        init: further arguments of `wandb.init`, such as entity, group, tags, name, notes, job_type.

    Raises:
        NotStartedError: it can't even be started offline.
    """

    service: ClassVar[str] = "W&B"
    leaves: ClassVar[str] = "wandb-id.txt"

    def __init__(
        self,
        save_dir: str | Path,
        project: str = "autoencoders",
        mode: str = "auto",
        log_model: bool = False,
        **init: Any,
    ) -> None:
        checks.choice("mode", mode, ("auto", "online", "offline", "disabled"))
        checks.boolean("log_model", log_model)
        self.logs_checkpoints = log_model
        timeout = UPLOAD_TIMEOUT_S if log_model else 2 * TIMEOUT_S
        super().__init__(experiment=start(Path(save_dir), mode, {"project": project, **init}, timeout))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        content = redact(vars(params) if isinstance(params, Namespace) else params)
        self.send(lambda _: super(Wandb, self).log_hyperparams(content))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.send(lambda _: super(Wandb, self).log_metrics(dict(metrics), step))

    def log_images(self, images: Mapping[str, Path], step: int | None) -> None:
        import wandb

        self.log_metrics({name: wandb.Image(str(path)) for name, path in images.items()}, step)  # type: ignore[misc]

    def log_table(
        self,
        key: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        import wandb

        cells = ([wandb.Image(c) if isinstance(c, np.ndarray) else c for c in row] for row in data or ())
        super().log_table(
            key, list(columns or ()), list(cells) if dataframe is None else None, dataframe, step
        )

    def log_document(self, name: str, text: str) -> None:
        import wandb

        self.send(lambda run: run.log({name: wandb.Html(f"<pre>{html.escape(text)}</pre>")}))

    def log_summary(self, values: Mapping[str, float]) -> None:
        self.send(lambda run: run.summary.update(dict(values)))

    def log_checkpoints(self, checkpoints: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> None:
        """One artifact of the run, with a version and an alias for each; what is as it was before, as after
        resuming a run that was done, stays the version that it was."""
        import wandb

        if not self.logs_checkpoints:
            return

        def log(run: Any) -> None:
            for alias, (path, about) in checkpoints.items():
                known = {name: value for name, value in redact(about).items() if value == value}  # no NaN
                artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=known)
                # Copied, as the file may change before an offline run is uploaded.
                artifact.add_file(str(path), name=path.name, policy="mutable", skip_cache=True)
                run.log_artifact(artifact, aliases=[alias])

        self.send(log)

    def finish(self, failed: bool) -> None:
        self.send(lambda run: run.finish(exit_code=int(failed)))

    def where(self) -> str:
        run = self.experiment
        if not run.settings._offline:
            return f"W&B  {redacted(str(run.url))}"
        # All parts of the run: resuming it makes one, an evaluation makes one.
        folder = shlex.quote(str(runs.near(Path(run.settings.sync_dir).parent)))
        return f"W&B  wandb leet {folder}  (offline; to upload it: wandb sync {folder}/offline-run-*)"


def start(folder: Path, mode: str, init: Mapping[str, Any], finish_timeout: int) -> Any:
    """The run of W&B, whose id it keeps in the folder. It may take `finish_timeout` seconds to end."""
    import wandb

    # W&B stages the images of tables for their upload; by default it does so in the home directory.
    os.environ["WANDB_DATA_DIR"] = str(folder / "wandb")
    known = folder / Wandb.leaves
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    arguments: dict[str, Any] = {
        "name": "-".join(folder.absolute().parts[-2:]), "resume": "allow",
        "id": known.read_text() if known.exists() else None, **init, "dir": folder,
    }  # fmt: skip
    os.environ.setdefault("WANDB_SILENT", "true")  # else it shows its server's address, password included
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its telemetry waits for a server that hangs
    chosen: dict[str, Any] = {
        "silent": True, "console": "off", "init_timeout": TIMEOUT_S, "finish_timeout": finish_timeout,
        **(arguments.pop("settings", None) or {}),
    }  # fmt: skip
    settings = wandb.Settings(**chosen)
    try:
        run = wandb.init(mode=mode, settings=settings, **arguments)  # type: ignore[arg-type]
    except Exception as error:
        rank_zero_warn(f"W&B can't be reached ({reason(error)}); this run is logged offline")
        try:
            run = wandb.init(mode="offline", settings=settings, **arguments)
        except Exception as offline:
            raise NotStartedError(f"W&B can't be started ({reason(offline)})") from offline
    with atomic_write(known) as temporary:
        temporary.write_text(run.id)
    return run


def logged_in() -> bool:
    """Whether W&B would know whose a run is, by its variable or by a `netrc` file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
