"""What is kept of a training on disk, so that it goes on after any end as though there had been none."""

import io
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from autoencoders import stored
from autoencoders.errors import UserError
from autoencoders.files import written_whole
from autoencoders.loggers import MetricsCSV
from autoencoders.processes import Interruption

TOGETHER_EVERY = 20  # steps, where a run has several processes


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside the one that it replaces, onto the disk, before it takes its name.

    (Lightning writes it into the system's temporary folder, from where a move is a copy that may be cut off.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()  # torch.save to a full disk raises errors without a number and a path
        torch.save(checkpoint, content)
        with written_whole(Path(path)) as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


class Checkpoints(Callback):
    """Keeps `best.ckpt`, the best model by `objective`, and `last.ckpt`, where a resumed run goes on: every
    `every_n_minutes`, at the end, and when the run is asked to stop, which it then does.

    A run is saved before a step, never elsewhere: all that the step before has led to, validation and the
    rows of metrics.csv included, is done then, so what is saved is one kind of state only. Steps are done
    again after a kill, and come out the same, the best model included.

    Args:
        folder: of the checkpoints.
        start: when the run was started, of `time.monotonic`.
        interruption: notes the signals that ask the run to stop.
    """

    def __init__(
        self, folder: Path, objective: str, every_n_minutes: float, start: float, interruption: Interruption
    ) -> None:
        self.best_path, self.last_path = folder / "best.ckpt", folder / "last.ckpt"
        self.objective, self.every_s, self.interruption = objective, 60 * every_n_minutes, interruption
        self.best, self.saving_best = math.inf, False
        self.start, self.seconds_before = start, 0.0  # before: in earlier parts of the run
        self.steps: int | None = None
        self.saved_at: float | None = None  # of `time.monotonic`; None until training has begun
        self.wrong: str | None = None

    @property
    def seconds(self) -> float:
        """What the run has taken so far, all its parts together."""
        return self.seconds_before + time.monotonic() - self.start

    # ---- where it goes on ----

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.best, self.seconds_before = checkpoint["best"], checkpoint["seconds"]
        for table in _tables(trainer):
            table.drop_after(checkpoint["global_step"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()
        self.interruption.deferred = True
        self.saved_at = time.monotonic()
        epoch = trainer.fit_loop.epoch_loop
        self.steps = epoch._batches_that_stepped

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def _listen(self) -> None:
        """Over Lightning's own handlers, of which that of SIGTERM broadcasts, and so hangs when all ranks get
        it. When one of its stages has ended Lightning puts back what was there before."""
        self.interruption.listen()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        if self.steps is not None:
            # By which loggers count. Where validation was the last that was done, Lightning counts it again.
            trainer.fit_loop.epoch_loop._batches_that_stepped, self.steps = self.steps, None
        self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        # Never between batches whose gradients are added up for one step.
        if self._together(trainer) and batch_idx % trainer.accumulate_grad_batches == 0:
            assert self.saved_at is not None
            due = time.monotonic() - self.saved_at >= self.every_s
            if _any(trainer, due or bool(self.interruption)):
                self._save_last(trainer)
                if _any(trainer, bool(self.interruption)):
                    raise self.interruption.exit()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_last(trainer)
        if _any(trainer, bool(self.interruption)):
            raise self.interruption.exit()
        self.interruption.deferred = False

    def _save_last(self, trainer: Trainer) -> None:
        self._check_weights(trainer)
        _write_metrics(trainer)  # first: a resumed run drops the rows after its checkpoint, and misses none
        trainer.save_checkpoint(self.last_path, weights_only=False)
        self.saved_at = time.monotonic()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.saving_best:  # nothing goes on from it: without what Adam remembers it is a third as large
            del checkpoint["optimizer_states"]
        checkpoint |= {"best": self.best, "seconds": self.seconds}
        # The step that is about to begin has not begun.
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for count in (progress["total"], progress["current"]):
            count["ready"] = count["completed"]
        progress["is_last_batch"] = False

    # ---- the best model ----

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        score = float(trainer.callback_metrics[self.objective])
        if not math.isfinite(score):
            self._stop_if_wrong(trainer)
        _write_metrics(trainer)
        if score < self.best:
            self._check_weights(trainer)
            self.best, self.saving_best = score, True
            trainer.save_checkpoint(self.best_path, weights_only=False)
            self.saving_best = False

    def load_best(self, model: LightningModule) -> None:
        """Gives `model` the weights of the best one.

        Raises:
            UserError: there is none.
        """
        if not self.best_path.is_file():
            raise UserError(f"{self.objective} was never a number: there is no best model")
        stored.load_weights(model, self.best_path)

    # ---- numbers that are none ----

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        asked = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        on_cpu = trainer.strategy.root_device.type == "cpu"  # where looking costs nothing
        if self.wrong is None and (asked or on_cpu) and not math.isfinite(outputs["loss"]):
            self.wrong = self._what_is_wrong(trainer, outputs)
        if self._together(trainer):
            self._stop_if_wrong(trainer)

    def _what_is_wrong(self, trainer: Trainer, outputs: Mapping[str, Tensor]) -> str:
        terms = {name: float(term) for name, term in outputs.items() if name != "loss"}
        bad = [f"{name} is {value}" for name, value in terms.items() if not math.isfinite(value)]
        return (
            f"the loss is {float(outputs['loss'])} at step {trainer.global_step}, "
            f"learning rate {self.learning_rate:.3g}: {', '.join(bad) or 'the sum of its terms'}; "
            f"{self._last_good()}"
        )

    def _stop_if_wrong(self, trainer: Trainer) -> None:
        found: list[str | None] = [self.wrong]
        if trainer.world_size > 1:
            found = [None] * trainer.world_size
            torch.distributed.all_gather_object(found, self.wrong)
        for wrong in filter(None, found):
            raise UserError(wrong)

    def _check_weights(self, trainer: Trainer) -> None:
        """None that are not finite are saved: on a GPU the loss is not looked at after each step."""
        for name, weights in trainer.lightning_module.named_parameters():
            if not weights.isfinite().all():
                raise UserError(
                    f"{name} has weights that are not finite after step {trainer.global_step}, "
                    f"learning rate {self.learning_rate:.3g}; {self._last_good()}"
                )

    def _last_good(self) -> str:
        for path in (self.last_path, self.best_path):
            if path.is_file():
                return f"the last good checkpoint is {path}"
        return "there is no checkpoint yet"

    def _together(self, trainer: Trainer) -> bool:
        """Whether the processes ask each other now, which takes as long as a small step."""
        return trainer.world_size == 1 or trainer.global_step % TOGETHER_EVERY == 0


def _any(trainer: Trainer, here: bool) -> bool:
    """Whether it is so in any of the run's processes."""
    return here if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(here, all=False)


def _tables(trainer: Trainer) -> list[MetricsCSV]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsCSV)]


def _write_metrics(trainer: Trainer) -> None:
    for table in _tables(trainer):
        table.write()
