"""One training run: build → fit → score the best checkpoint → metrics.json."""

import inspect
import json
import logging
import math
import os
import platform
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from hydra.utils import instantiate
from lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Checkpoint,
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateFinder,
    ProgressBar,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from autoencoders import checkpoints, checks, devices, hardware, jobs, runs, untrusted
from autoencoders.callbacks import Pictures, draw_thumbnail
from autoencoders.config import REPOSITORY, parameters_of, shareable
from autoencoders.data import ImageDataModule
from autoencoders.errors import UserError, habit, is_main_process, one_line, suggest
from autoencoders.files import atomic_write, clear_unfinished, write_json
from autoencoders.loggers import CheckpointLogger, RunLogger, build_loggers
from autoencoders.models import BaseModel
from autoencoders.processes import Interrupted, Interruption, Ranks
from autoencoders.progress import progress
from autoencoders.terminal import Introduction, report

PROFILERS = {
    name: f"lightning.pytorch.profilers.{kind}Profiler"
    for name, kind in (("simple", "Simple"), ("advanced", "Advanced"), ("pytorch", "PyTorch"))
}


def train(cfg: DictConfig, folder: Path, overrides: Sequence[str] = ()) -> float:
    """Trains what `cfg` describes into the run folder and returns the objective of its best checkpoint.

    A run that the folder already holds is continued.

    Args:
        overrides: those that led to `cfg`, to keep.
    """
    with Interruption(deferred=False).listening() as interruption:
        try:
            return _train(cfg, folder, overrides, interruption)
        except Interrupted:
            if is_main_process() and (folder / "checkpoints" / "last.ckpt").is_file():
                resume = runs.resume_command(folder)
                print(f"interrupted; resume with: {resume}", flush=True)
            raise


def _train(cfg: DictConfig, folder: Path, overrides: Sequence[str], interruption: Interruption) -> float:
    stopwatch = checkpoints.Stopwatch(time.monotonic())
    quiet()
    hardware.prepare()
    check_keys(cfg)
    devices.check_devices(cfg)
    seed_everything(cfg.seed, workers=True, verbose=False)
    # What most often goes wrong comes before other processes, loggers and the folder's content.
    data = build_data(cfg)
    model = build_model(cfg, data)
    if cfg.init:
        initialize(model, Path(cfg.init))
    best = checkpoints.BestCheckpoint(folder / "checkpoints" / "best.ckpt", cfg.objective)
    last = checkpoints.LastCheckpoint(
        folder / "checkpoints" / "last.ckpt", cfg.checkpoint.every_n_minutes, interruption
    )
    pictures = Pictures(folder / "figures", cfg.figures.every_n_epochs, cfg.figures.images)
    averaging = [EMAWeightAveraging(decay=cfg.ema)] if cfg.ema is not None else []
    trainer = build_trainer(
        cfg,
        folder,
        [
            stopwatch,
            checkpoints.FiniteCheck(last.path, best.path),
            checkpoints.TorchRandomness(),
            checkpoints.MetricsTable(),
            best,
            last,
            checkpoints.ValidateAtEnd(),
            pictures,
            Record(cfg, folder, overrides),
            Introduction(folder),
            *averaging,
        ],
    )
    if is_main_process():
        data.prepare_data()
        data.setup("fit")
        for part in (folder, folder / "checkpoints", folder / "figures"):
            part.mkdir(parents=True, exist_ok=True)
            clear_unfinished(part)
        devices.say_if_cores_are_busy(trainer.strategy.root_device.type)
    ranks = Ranks(trainer.strategy.launcher)
    # A run that was killed before its first checkpoint starts from the beginning.
    resumed, begun = None, None
    if last.path.is_file():
        # Also since torch itself takes a damaged one.
        resumed, begun = last.path, untrusted.read_checkpoint(last.path, trust=cfg.trust)["global_step"]
        if 0 <= trainer.max_steps < begun:
            raise UserError(
                f"trainer.max_steps={trainer.max_steps} is less than the {begun} steps of {folder}"
            )
    silent = trainer.fast_dev_run  # type: ignore[attr-defined]
    chosen = {} if silent else chosen_loggers(cfg)
    trainer.loggers = build_loggers(chosen, folder, shareable(cfg), resume=resumed is not None)
    loggers = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
    failed = True
    try:
        if trainer.is_global_zero:
            describe(model, folder, loggers)
        if resumed and trainer.is_global_zero:
            print(f"resuming after step {begun}", flush=True)
        trainer.fit(model, data, ckpt_path=resumed, weights_only=not cfg.trust)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if trainer.is_global_zero and (why := why_it_ended(trainer, callbacks, begun)):
            print(why, flush=True)
        for callback in list(callbacks):
            if isinstance(
                callback, WeightAveraging
            ):  # whose average would be validated in the best one's place
                callbacks.remove(callback)
        if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
            trainer.validate(model, data, verbose=False)  # it averages at the end, after all validations
            best.compare(trainer)
        if best.score == float("inf") and cfg.objective not in trainer.callback_metrics:
            best.save(trainer)  # never validated, as with limit_val_batches=0: the last weights are the best
        at_the_end = _metrics(trainer)
        checkpoints.load_best(model, best.path, cfg.objective)
        # Validation chose them, so the test images are looked at here, at the end.
        trainer.validate(model, data, verbose=False)
        validation = _metrics(trainer)
        tested = trainer.test(model, data, verbose=False)
        metrics = {
            **validation,
            **(tested[0] if tested else {}),
            "epochs": _epochs(trainer),
            "steps": trainer.fit_loop.epoch_loop.global_step,
            "seconds": stopwatch.seconds,
        }
        if trainer.is_global_zero:
            pictures.draw(trainer, model)
            draw_thumbnail(trainer, model, folder / runs.THUMBNAIL)
            write_json(folder / "metrics.json", metrics)
            for logger in loggers:
                logger.log_summary({f"final/{name}": value for name, value in metrics.items()})
                if isinstance(logger, CheckpointLogger):
                    config = shareable(cfg)
                    about = {"best": (best.path, metrics), "last": (last.path, at_the_end)}
                    logger.log_checkpoints({n: (p, {**m, "config": config}) for n, (p, m) in about.items()})
            known = isinstance(model, BaseModel) and isinstance(data, ImageDataModule)
            report(
                folder,
                metrics,
                evaluated=cfg.evaluate,
                can_be_evaluated=known and best.path.is_file(),
            )
        failed = False
    except Exception as error:
        if resumed and last.saved_at is None and not isinstance(error, UserError):
            raise UserError(f"{resumed} cannot be resumed from: {one_line(str(error))}") from error
        raise ranks.explain(error) from error
    finally:
        for logger in loggers:
            logger.finish(failed)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return float(metrics.get(cfg.objective, "nan"))


def _epochs(trainer: Trainer) -> float:
    """How many it has trained: where it ended within one, that in part."""
    batches = trainer.num_training_batches
    if not batches or math.isinf(batches):
        return trainer.current_epoch
    epochs = trainer.fit_loop.epoch_loop.batch_progress.total.completed / batches
    return int(epochs) if epochs.is_integer() else round(epochs, 2)


def _metrics(trainer: Trainer) -> dict[str, float]:
    """What was measured last."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def check_keys(cfg: DictConfig) -> None:
    """Raises ValueError for a value of train.yaml that is out of its range; groups check their own."""
    checks.integer("seed", cfg.seed, 0, 2**32 - 1)
    checks.boolean("evaluate", cfg.evaluate)
    for key in ("importance_samples", "importance_images", "fine_tuning_epochs"):
        checks.integer(f"evaluation.{key}", cfg.evaluation[key], 1)
    checks.boolean("evaluation.fine_tuning_activation", cfg.evaluation.fine_tuning_activation)
    checks.number("checkpoint.every_n_minutes", cfg.checkpoint.every_n_minutes, 0)
    checks.integer("figures.images", cfg.figures.images, 1)
    if cfg.figures.every_n_epochs is not None:
        checks.integer("figures.every_n_epochs", cfg.figures.every_n_epochs, 1)
    if cfg.init == "":
        raise ValueError("init= must be a run folder or a checkpoint")
    if cfg.ema is not None:
        checks.number("ema", cfg.ema, above=0, below=1)


# ---- building ----------------------------------------------------------------------------------------------


def build_data(cfg: DictConfig) -> Any:
    """The data module, with its corruption."""
    data = instantiate(cfg.data, _convert_="all")
    if not isinstance(data, LightningDataModule):
        raise UserError(f"data._target_={cfg.data._target_} is not a LightningDataModule")
    for shape in ("input_shape", "target_shape"):
        if not hasattr(data, shape):
            raise UserError(f"data._target_={cfg.data._target_} has no {shape}, the (C, H, W) of its images")
    return data


def build_model(cfg: DictConfig, data: Any) -> Any:
    """The model for the data's shapes.

    Raises:
        UserError: they don't go together.
    """
    model = instantiate(
        cfg.model, input_shape=data.input_shape, target_shape=data.target_shape, _convert_="all"
    )
    if not isinstance(model, LightningModule):
        raise UserError(f"model._target_={cfg.model._target_} is not a LightningModule")
    if isinstance(model, BaseModel):
        try:
            model.check_data(data)
        except ValueError as error:
            raise UserError(str(error)) from None
    model.monitor = cfg.objective
    return model


def initialize(model: torch.nn.Module, source: Path) -> None:
    """Starts from the weights of a run's best model or of a checkpoint; says what does not fit by its name
    and shape, which stays as it is.

    Raises:
        UserError: there is nothing that fits.
    """
    if source.is_dir():
        untrusted.check_links(source)
    path = runs.best_checkpoint(source) if source.is_dir() else source
    if not path.is_file():
        raise UserError(f"init={source} is neither a run folder nor a checkpoint")
    own = model.state_dict()
    found = untrusted.read_checkpoint(path)["state_dict"]
    fits = {
        name: value
        for name, value in found.items()
        if name in own and isinstance(value, torch.Tensor) and value.shape == own[name].shape
    }
    if not fits:
        raise UserError(f"init={source} has no weights that fit this model by name and shape")
    model.load_state_dict(fits, strict=False)
    model.initialized = True  # type: ignore[assignment]
    if is_main_process():
        left = [name for name in own if name not in fits]
        names = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        others = f"; not in it or of another shape: {names}" if left else ""
        print(f"init: {len(fits)} of {len(own)} tensors from {path}{others}")


def why_it_ended(trainer: Trainer, callbacks: Sequence[Callback], begun: int | None) -> str | None:
    """Why training has ended, where that is not its last step.

    Args:
        begun: the step after which it was resumed, if it was.
    """
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.stopped_epoch:
            return f"stopped early: {callback.monitor} has not improved in {callback.patience} validations"
        if isinstance(callback, Timer) and (callback.time_remaining() or 1) < 0:
            return "stopped: its time is over"
    if trainer.global_step < trainer.max_steps and trainer.current_epoch == trainer.max_epochs:
        return (
            f"ended after trainer.max_epochs={trainer.max_epochs}, before "
            f"trainer.max_steps={trainer.max_steps}: trainer.max_epochs=-1 is no limit"
        )
    if trainer.global_step == begun:
        limit = "max_steps" if trainer.global_step == trainer.max_steps else "max_epochs"
        return f"nothing was left to train: a larger trainer.{limit} continues it"
    return None


def build_trainer(cfg: DictConfig, folder: Path, callbacks: Sequence[Callback]) -> Trainer:
    """The Trainer of cfg.trainer with our callbacks, then those of cfg.callbacks and trainer.callbacks."""
    chosen = cfg.trainer
    options = inspect.signature(Trainer).parameters
    for key in chosen:
        if key not in options and not str(key).startswith("_"):
            raise UserError(f"no key trainer.{key}: {habit(f'trainer.{key}') or suggest(str(key), options)}")
    check_types(chosen)
    checks.integer("trainer.accumulate_grad_batches", chosen.get("accumulate_grad_batches", 1), 1)
    if chosen.get("barebones"):
        raise UserError(
            "trainer.barebones=true turns off the metrics and checkpoints that a run is made of: "
            "debug=profiler shows where the time goes"
        )
    if re.match(r"ddp_(spawn|fork|notebook)", str(chosen.get("strategy"))):
        raise UserError(f"trainer.strategy={chosen.strategy} leaves nothing in its first process: take ddp")
    own = [
        instantiate(callback, _convert_="all")
        for callback in [*cfg.callbacks.values(), *_nodes(chosen.get("callbacks"))]
        if callback
    ]
    for callback in own:
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            name = type(callback).__name__
            raise UserError(
                f"{name} needs a model with its own lr and batch_size: search with sweeps=lr_batch"
            )
    everyone = [*callbacks, *own, *progress(own, chosen.get("enable_progress_bar"))]
    precision = chosen.get("precision")
    if precision == "auto":
        precision = hardware.fast_precision(str(chosen.accelerator))
    ours = {
        "precision": precision,
        "profiler": _profiler(chosen.get("profiler"), folder),
        "callbacks": everyone,
        "plugins": [
            checkpoints.AtomicCheckpointIO(),
            *[instantiate(plugin, _convert_="all") for plugin in _nodes(chosen.get("plugins"))],
        ],
        "logger": False,  # see chosen_loggers
        "default_root_dir": chosen.get("default_root_dir") or str(folder),
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in everyone),
        "enable_checkpointing": bool(chosen.get("enable_checkpointing"))
        or any(isinstance(callback, Checkpoint) for callback in own),
    }
    theirs = cfg.copy().trainer
    with open_dict(theirs):  # Hydra would merge ours into them
        for key in ours:
            theirs.pop(key, None)
    trainer = instantiate(theirs, **ours, _convert_="all")
    if not isinstance(trainer, Trainer):
        raise UserError(f"trainer._target_={chosen.get('_target_')} is not a lightning.Trainer")
    devices.check_batch_size(cfg.data.get("batch_size"), trainer.world_size)
    if chosen.get("sync_batchnorm") and trainer.world_size > 1 and trainer.strategy.root_device.type == "cpu":
        raise UserError("trainer.sync_batchnorm=true needs GPUs: torch does it on no other device")
    return trainer


def check_types(chosen: DictConfig) -> None:
    """Raises ValueError for a plain value of another type than the Trainer's argument, which would only be
    noticed deep in the training."""
    hints = get_type_hints(Trainer.__init__)
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    given: dict[str, Any] = dict(chosen.items())  # type: ignore[arg-type]  # keys are texts
    for key, value in given.items():
        taken = _plain_types(hints.get(key, Any))
        if type(value) in names and taken and not isinstance(value, tuple(taken)):
            said = " or ".join(names[kind] for kind in names if kind in taken)
            raise ValueError(f"trainer.{key}={value} must be {said}")


def _plain_types(hint: Any) -> set[type]:
    """The types of plain values that an annotation allows; none where it allows others."""
    if get_origin(hint) is Literal:
        return {type(value) for value in get_args(hint)}
    if parts := get_args(hint):
        return set().union(*map(_plain_types, parts))
    return {float, int} if hint is float else {hint} & {int, str, bool}


def chosen_loggers(cfg: DictConfig) -> dict[str, DictConfig]:
    """The nodes of cfg.logger and trainer.logger, by name; none where trainer.logger=false."""
    if cfg.trainer.get("logger") is False:
        return {}
    theirs = {f"trainer.logger {index}": node for index, node in enumerate(_nodes(cfg.trainer.get("logger")))}
    return {**cfg.logger, **theirs}


def _nodes(chosen: Any) -> list[Any]:
    """One node with a `_target_`, or several, as a list; none for null and true."""
    return (
        list(chosen) if isinstance(chosen, ListConfig) else [chosen] if isinstance(chosen, DictConfig) else []
    )


def _profiler(chosen: Any, folder: Path) -> Any:
    """The profiler of trainer.profiler, which writes its report into the run folder unless it is told another
    place; a name that is none of Lightning's is left to its Trainer to refuse."""
    if chosen in PROFILERS:
        chosen = OmegaConf.create({"_target_": PROFILERS[chosen]})
    if not isinstance(chosen, DictConfig):
        return chosen
    place = {"dirpath": folder, "filename": "profile"} if "dirpath" in parameters_of(chosen) else {}
    given = {name: value for name, value in place.items() if chosen.get(name) is None}
    return instantiate(chosen, **given, _convert_="all")


# ---- what is kept and said ---------------------------------------------------------------------------------


class Record(Callback):
    """Saves what is needed to run it again, once nothing has refused the config and all processes have it."""

    def __init__(self, cfg: DictConfig, folder: Path, overrides: Sequence[str]) -> None:
        self.cfg, self.folder, self.overrides = cfg, folder, overrides

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            runs.write_config(self.folder, self.cfg, self.overrides)
            with atomic_write(self.folder / "config.yaml") as temporary:
                OmegaConf.save(OmegaConf.create(shareable(self.cfg)), temporary)
            path, now = self.folder / "environment.json", environment(self.overrides)
            if path.is_file():  # the run is resumed
                first: dict[str, Any] = untrusted.read_json(path)
                now["resumed"] = now["started"]
                now |= {key: first[key] for key in ("command", "started") if key in first}
            write_json(path, now)


def environment(overrides: Sequence[str]) -> dict[str, Any]:
    """What one needs to know to run it again: command, where, versions, git state, machine."""
    packages = (
        "autoencoders", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy",
        "scikit-learn",
    )  # fmt: skip
    typed = [Path(sys.argv[0]).name, *sys.argv[1:]]
    if any(word.startswith("resume=") for word in typed):  # what would start it, not what went on with it
        typed = json.loads(os.environ.get(jobs.COMMAND, "null")) or ["train.py", *overrides]
    return {
        "command": typed,
        "folder": str(runs.STARTED_IN),  # of paths that are relative
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
    command = ["git", "--no-optional-locks", "-C", str(REPOSITORY), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe(model: LightningModule, folder: Path, loggers: Sequence[RunLogger]) -> None:
    """The layers and their sizes, in model.txt and in the loggers."""
    text = str(ModelSummary(model, max_depth=4))
    with atomic_write(folder / "model.txt") as temporary:
        temporary.write_text(text + "\n")
    for logger in loggers:
        logger.log_document("model", text)


def quiet() -> None:
    """Leaves of the libraries' messages those that a user can act on."""
    logging.getLogger("lightning.pytorch").handlers.clear()  # else Hydra's root handler says all twice
    for said in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(said).setLevel(logging.WARNING)
    summary = logging.getLogger("lightning.pytorch.callbacks.model_summary")  # printed where it's asked for
    summary.handlers = [logging.StreamHandler()]
    for message in (
        ".*GPU available but not used.*",
        ".*smaller than the logging interval.*",  # a short run logs what it can
        ".*no logger configured.*",  # a Trainer(logger=False) in a notebook is meant to have none
        ".*sync_dist.*",  # torchmetrics adds up over the devices
        ".*isinstance.treespec, LeafSpec.*",  # lightning 2.6 on torch 2.14
        ".*torch.distributed.* is deprecated.*",  # likewise
    ):
        warnings.filterwarnings("ignore", message)
    # Not which line of which file it comes from.
    warnings.formatwarning = lambda message, *others, **more: f"warning: {one_line(str(message))}\n"
