"""One training run: compose → seed → fit → test on the best checkpoint → metrics.json."""

import html
import logging
import os
import platform
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from omegaconf import DictConfig, OmegaConf

from autoencoders import config, hardware, stored
from autoencoders.callbacks import Pictures, progress
from autoencoders.checkpoints import Checkpoints, WholeFiles
from autoencoders.data import ImageDataModule
from autoencoders.errors import UserError, is_main_process, one_line
from autoencoders.files import clear_unfinished, write_json, written_whole
from autoencoders.loggers import MetricsCSV, how_to_look, start_wandb
from autoencoders.models import BaseAutoencoder
from autoencoders.processes import Interrupted, Interruption, Ranks


def train(cfg: DictConfig, folder: Path) -> float:
    """Trains what `cfg` describes into the run folder and returns the objective of its best checkpoint.

    What the folder holds of this run already is gone on with if `cfg.resume` says so.
    """
    with Interruption(deferred=False).listening() as interruption:
        try:
            return _train(cfg, folder, interruption)
        except Interrupted:
            if is_main_process() and any(path.name != ".hydra" for path in folder.iterdir()):
                print(f"interrupted; it goes on by: train.py resume={folder}", flush=True)
            raise


def _train(cfg: DictConfig, folder: Path, interruption: Interruption) -> float:
    start = time.monotonic()
    quiet()
    hardware.prepare()
    seed_everything(cfg.seed, workers=True, verbose=False)
    # What most often goes wrong comes before other processes and W&B are started.
    data, model = build_data(cfg), build_model(cfg)
    if is_main_process():
        data.prepare_data()
        data.setup("fit")
        check_validation(cfg, steps=len(data.train_dataloader()))
        for part in (folder, folder / "checkpoints", folder / "figures"):
            part.mkdir(parents=True, exist_ok=True)
            clear_unfinished(part)
    minutes = cfg.checkpoint.every_n_minutes
    checkpoints = Checkpoints(folder / "checkpoints", cfg.objective, minutes, start, interruption)
    pictures = Pictures(folder / "figures", cfg.figures.every_n_epochs, cfg.figures.images)
    averaging = [EMAWeightAveraging(decay=cfg.ema)] if cfg.ema else []
    trainer = build_trainer(cfg, [checkpoints, pictures, progress(), *averaging])
    ranks = Ranks(trainer.strategy.launcher)
    # A run that was killed before its first checkpoint goes on at its beginning.
    last = checkpoints.last_path if cfg.resume and checkpoints.last_path.is_file() else None
    loggers = trainer.loggers = build_loggers(cfg, folder, resume=last is not None)
    failed = 1
    try:
        if trainer.is_global_zero:
            record(cfg, folder)
            describe(model, folder, loggers)
        if last:
            stored.read_checkpoint(last)  # torch itself takes a damaged one
        trainer.fit(model, data, ckpt_path=last, weights_only=True)
        for average in averaging:  # it is in the best checkpoint, and would take its place in validation
            trainer.callbacks.remove(average)  # type: ignore[attr-defined]
        checkpoints.load_best(model)
        # Validation chose them, so the test images are looked at here, at the end.
        trainer.validate(model, data, verbose=False)
        validation = {name: float(value) for name, value in trainer.callback_metrics.items()}
        (test,) = trainer.test(model, data, verbose=False)
        metrics = {
            **validation,
            **test,
            "epochs": trainer.current_epoch,
            "steps": trainer.fit_loop.epoch_loop.global_step,
            "seconds": checkpoints.seconds,
        }
        if trainer.is_global_zero:
            pictures.draw(trainer, model)
            write_json(folder / "metrics.json", metrics)
            report(folder, metrics, loggers)
        failed = 0
    except Exception as error:
        if last and checkpoints.saved_at is None and not isinstance(error, UserError):
            raise UserError(f"{last} can't be gone on from: {one_line(str(error))}") from error
        raise ranks.explain(error) from error
    finally:
        for logger in loggers[1:]:
            logger.finish(exit_code=failed)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return float(metrics[cfg.objective])


def check_validation(cfg: DictConfig, steps: int) -> None:
    """Raises UserError for a run that would end before its first validation, and so without a best model."""
    chosen = cfg.trainer
    if (limit := chosen.limit_train_batches) is not None:
        steps = min(steps, limit) if isinstance(limit, int) else int(steps * min(1.0, limit))
    every, interval = chosen.check_val_every_n_epoch, chosen.val_check_interval
    if every and interval and interval > steps:
        raise UserError(
            f"trainer.val_check_interval={interval} is more than the {steps} steps of an epoch: "
            "add trainer.check_val_every_n_epoch=null"
        )
    first = (interval or steps) + (every - 1 if every else 0) * steps
    for key, last in (("max_steps", chosen.max_steps), ("max_epochs", chosen.max_epochs * steps)):
        if 0 <= last < first:
            raise UserError(
                f"trainer.{key}={chosen[key]} ends before the first validation, after {first} steps: "
                "add trainer.check_val_every_n_epoch=null trainer.val_check_interval=<steps>"
            )


def build_data(cfg: DictConfig) -> ImageDataModule:
    data = instantiate(cfg.data, _convert_="all")
    assert isinstance(data, ImageDataModule)
    return data


def build_model(cfg: DictConfig) -> BaseAutoencoder:
    model = instantiate(cfg.model, _convert_="all")
    assert isinstance(model, BaseAutoencoder)
    return model


def build_loggers(cfg: DictConfig, folder: Path, resume: bool) -> list[Any]:
    loggers: list[Logger] = [MetricsCSV(folder, resume)]
    if cfg.logger.name == "wandb" and is_main_process():
        options = {key: value for key, value in config.plain(cfg.logger).items() if key != "name"}
        if (logger := start_wandb(folder, config.plain(cfg), **options)) is not None:
            loggers.append(logger)
    return loggers


def build_trainer(cfg: DictConfig, callbacks: list[Callback]) -> Trainer:
    options = config.plain(cfg.trainer)
    if options["precision"] == "auto":
        options["precision"] = hardware.fast_precision(options["accelerator"])
    trainer = instantiate(
        options,
        logger=False,
        callbacks=callbacks,
        enable_progress_bar=any(isinstance(callback, TQDMProgressBar) for callback in callbacks),
        enable_model_summary=False,  # it is in model.txt
        enable_checkpointing=False,  # Lightning's: ours are a callback
        plugins=[WholeFiles()],
        use_distributed_sampler=False,  # the loaders share the images out themselves
        num_sanity_val_steps=0,
        _convert_="all",
    )
    assert isinstance(trainer, Trainer)
    config.check_batch_size(cfg, trainer.world_size)
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
        raise UserError(
            f"trainer.devices={trainer.num_devices} is more than the {cores} CPU cores of this machine"
        )
    return trainer


def record(cfg: DictConfig, folder: Path) -> None:
    """Keeps what it takes to run it again."""
    with written_whole(folder / "config.yaml") as temporary:
        OmegaConf.save(cfg, temporary, resolve=True)
    write_json(folder / "environment.json", environment())
    if cfg.resume and HydraConfig.initialized():  # what it was resumed with is the run's from now on
        with written_whole(folder / ".hydra" / "overrides.yaml") as temporary:
            OmegaConf.save(HydraConfig.get().overrides.task, temporary)


def environment() -> dict[str, Any]:
    """What one needs to know to run it again: command, versions, git state, machine."""
    packages = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy", "scikit-learn")
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "git": {"commit": _git("rev-parse", "HEAD"), "changed": _git("status", "--porcelain") != ""},
        "machine": {
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }


def _git(*arguments: str) -> str | None:
    """What git says of this repository; None outside of one."""
    command = ["git", "-C", str(config.REPOSITORY), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe(model: BaseAutoencoder, folder: Path, loggers: list[Any]) -> None:
    """The layers and their sizes, in model.txt and in W&B."""
    text = str(ModelSummary(model, max_depth=4))
    with written_whole(folder / "model.txt") as temporary:
        temporary.write_text(text + "\n")
    for logger in loggers[1:]:
        import wandb

        page = wandb.Html(f"<pre>{html.escape(text)}</pre>")
        logger.send(lambda experiment, page=page: experiment.log({"model": page}))


def report(folder: Path, metrics: dict[str, float], loggers: list[Any]) -> None:
    """Says what came out and where it is."""
    print()
    for name, value in metrics.items():
        print(f"  {name:14} {value:.5g}")
    print(f"\n  figures  {folder / 'figures'}")
    print(f"  metrics  {folder / 'metrics.json'}, {folder / 'metrics.csv'}")
    for logger in loggers[1:]:
        print(f"  W&B      {how_to_look(logger.experiment)}")


def quiet() -> None:
    """Leaves of the libraries' messages those that a user can act on."""
    logging.getLogger("lightning.pytorch").handlers.clear()  # else Hydra's root handler says all twice
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # there are none on purpose
        ".*GPU available but not used.*",
        ".*your dataloader is not resumable.*",  # its sampler is
        ".*sync_dist.*",  # torchmetrics adds up over the devices
        ".*isinstance.treespec, LeafSpec.*",  # lightning 2.6 on torch 2.14
    ):
        warnings.filterwarnings("ignore", message)
