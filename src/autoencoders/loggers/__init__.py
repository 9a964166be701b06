"""Where metrics go: always metrics.csv in the run folder, and beside it the loggers that a run chooses."""

import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig

from autoencoders.config import parameters_of
from autoencoders.errors import UserError, is_main_process
from autoencoders.loggers.metrics_csv import MetricsCSV
from autoencoders.loggers.mlflow import MLflow
from autoencoders.loggers.protocol import CheckpointLogger, NotStartedError, RunLogger, redact
from autoencoders.loggers.tensorboard import TensorBoard
from autoencoders.loggers.wandb import Wandb
from autoencoders.metrics import metric_names

__all__ = [
    "CheckpointLogger",
    "MLflow",
    "MetricsCSV",
    "RunLogger",
    "TensorBoard",
    "Wandb",
    "build_loggers",
    "log_evaluation",
]


def build_loggers(
    cfg_logger: Mapping[Any, DictConfig], folder: Path, config: Any, resume: bool
) -> list[Logger]:
    """metrics.csv and the chosen loggers of one process of a run.

    Args:
        cfg_logger: what to instantiate, by name. A `save_dir` that is not given is the run folder.
        folder: the run folder.
        config: the run's whole configuration in plain containers, which each logger gets without secrets.
        resume: whether the run continues from a checkpoint in the folder.
    """
    loggers: list[Logger] = [MetricsCSV(folder, resume)]
    for node in cfg_logger.values():
        # Lightning's own are in every process, and silent in all but the first.
        if (is_main_process() or not _is_run_logger(node)) and (logger := _build(node, folder)) is not None:
            logger.log_hyperparams(redact(config))
            loggers.append(logger)
    return loggers


def _is_run_logger(node: DictConfig) -> bool:
    try:
        return hasattr(pkgutil.resolve_name(str(node._target_)), "leaves")
    except (ImportError, AttributeError, ValueError):
        return False  # as instantiating it explains


def _build(node: DictConfig, folder: Path) -> Logger | None:
    """None, and a warning, where its service is out of reach."""
    # As a Path, in which Hydra does not look for interpolations.
    unset = "save_dir" in parameters_of(node) and node.get("save_dir") is None
    given = {"save_dir": folder} if unset else {}
    try:
        logger = instantiate(node, **given, _convert_="all")
    except InstantiationException as error:
        if not isinstance(error.__cause__, NotStartedError):
            raise
        rank_zero_warn(f"{error.__cause__}; this run is logged without it")
        return None
    if not isinstance(logger, Logger):
        raise UserError(f"{node._get_full_key(None)}: {node._target_} is not a Lightning logger")
    return logger


def log_evaluation(run: Path, cfg: DictConfig, scores: Mapping[str, Any], pictures: Path) -> list[str]:
    """Adds an evaluation's tables and figures to what the loggers of `cfg.logger` hold of a run already.

    Args:
        run: the run folder.
        scores: {"<group>": {"model": {metric: value}, "<reference row>": {...}, ...}, ...}.
        pictures: the folder of its PNG files.

    Returns:
        How to look at it, one line per logger.
    """
    figures = {f"evaluation/figures/{path.stem}": path for path in sorted(pictures.glob("*.png"))}
    summary = {
        f"evaluation/{group}/{metric}": value
        for group, rows in scores.items()
        for metric, value in rows.get("model", {}).items()
    }
    lines: list[str] = []
    for node in cfg.logger.values():
        folder = Path(node.get("save_dir") or run)
        if not _is_run_logger(node) or not (folder / get_object(node._target_).leaves).exists():
            continue
        if not isinstance(logger := _build(node, run), RunLogger):
            continue
        logger.log_images(figures, step=None)
        for group, rows in scores.items():
            columns = metric_names(rows)
            table = [[row, *map(metrics.get, columns)] for row, metrics in rows.items()]
            logger.log_table(f"evaluation/{group}", ["row", *columns], table, step=None)
        logger.log_summary(summary)
        logger.finish(failed=False)
        lines.append(logger.where())
    return lines
