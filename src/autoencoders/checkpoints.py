"""What a training keeps on disk, so that it continues after any end as if uninterrupted.

Each callback has one task. They come before the user's own, so that what is saved is the state before a step,
with nothing of that step in it.
"""

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
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from autoencoders import untrusted
from autoencoders.errors import UserError
from autoencoders.files import atomic_write
from autoencoders.loggers import MetricsCSV
from autoencoders.processes import Interruption

SYNC_EVERY_N_STEPS = (
    20  # how often the processes of a run ask each other, which takes as long as a small step
)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the one that it replaces, onto the disk, before it takes its name.

    (Lightning writes it into the system's temporary folder, from where a move is a copy that may be cut off.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()  # torch.save to a full disk raises errors without errno and path
        torch.save(checkpoint, content)
        with atomic_write(Path(path)) as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


class Stopwatch(Callback):
    """The seconds that a run has taken, all its parts together.

    Args:
        start: when this part was started, of `time.monotonic`.
    """

    def __init__(self, start: float) -> None:
        self.start, self.before = start, 0.0

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def on_save_checkpoint(self, trainer: Trainer, _: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"] = self.seconds

    def on_load_checkpoint(self, trainer: Trainer, _: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.before = checkpoint["seconds"]


class TorchRandomness(Callback):
    """Keeps the state of torch's own generators, one a process, for what draws from them, such as a Dropout
    in the user's network: after a resume it draws what it would have drawn. (Ours draw from `Randomness`.)"""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        device, mine = trainer.strategy.root_device, {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            mine["cuda"] = torch.cuda.get_rng_state(device)
        checkpoint["torch_randomness"] = states = [mine] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(states, mine)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.states = checkpoint.get("torch_randomness", [])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(self.states) == trainer.world_size:  # on other devices there is no state to go on with
            mine = self.states[trainer.global_rank]
            torch.set_rng_state(mine["cpu"])
            if "cuda" in mine and trainer.strategy.root_device.type == "cuda":
                torch.cuda.set_rng_state(mine["cuda"], trainer.strategy.root_device)


class MetricsTable(Callback):
    """Keeps metrics.csv in step with the checkpoints: a resumed run drops the rows after its own, and misses
    none."""

    def on_save_checkpoint(self, trainer: Trainer, _: LightningModule, checkpoint: dict[str, Any]) -> None:
        for table in _tables(trainer):
            table.write()

    def on_load_checkpoint(self, trainer: Trainer, _: LightningModule, checkpoint: dict[str, Any]) -> None:
        for table in _tables(trainer):
            table.drop_after(checkpoint["global_step"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for table in _tables(trainer):
            table.write()


class FiniteCheck(Callback):
    """Ends a run with a non-finite loss, and refuses to save non-finite weights.

    Args:
        checkpoints: their paths, of which the first that is there is named as the last good one.
    """

    def __init__(self, *checkpoints: Path) -> None:
        self.checkpoints = checkpoints
        self.wrong: str | None = None
        self.learning_rate = math.nan

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        on_cpu = trainer.strategy.root_device.type == "cpu"  # where looking costs nothing
        if self.wrong is None and (on_cpu or (every and trainer.global_step % every == 0)):
            terms = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
            if "loss" in terms and not math.isfinite(terms["loss"]):
                self.wrong = self._what_is_wrong(trainer, terms)
        if _processes_sync(trainer):
            self._stop_if_wrong(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._stop_if_wrong(trainer)

    def on_save_checkpoint(self, trainer: Trainer, _: LightningModule, checkpoint: dict[str, Any]) -> None:
        # On a GPU the loss is not looked at after each step.
        for name, weights in trainer.lightning_module.named_parameters():
            if not weights.isfinite().all():
                raise UserError(
                    f"{name} has non-finite weights after step {trainer.global_step}, "
                    f"learning rate {self.learning_rate:.3g}; {self._last_good()}"
                )

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

    def _last_good(self) -> str:
        for path in self.checkpoints:
            if path.is_file():
                return f"the last good checkpoint is {path}"
        return "there is no checkpoint yet"


class BestCheckpoint(Callback):
    """Keeps the model with the smallest `objective` at a validation."""

    def __init__(self, path: Path, objective: str) -> None:
        self.path, self.objective = path, objective
        self.score, self.saving = math.inf, False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self.objective not in trainer.callback_metrics:
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val")))
            raise UserError(f"objective={self.objective} is not a metric of this model: there are {known}")
        self.compare(trainer)

    def compare(self, trainer: Trainer) -> None:
        """Keeps the model that was validated last if it is the best so far."""
        score = float(trainer.callback_metrics.get(self.objective, math.inf))
        if score < self.score:
            self.score = score
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        self.saving = True
        try:
            trainer.save_checkpoint(self.path, weights_only=False)
        finally:
            self.saving = False

    def on_save_checkpoint(self, trainer: Trainer, _: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.saving:  # nothing is resumed from it; without what Adam remembers it is a third as large
            del checkpoint["optimizer_states"]
            checkpoint[
                "callbacks"
            ] = {}  # which may hold anything, where a best model is read as a stranger's
        checkpoint["best"] = self.score

    def on_load_checkpoint(self, trainer: Trainer, _: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.score = checkpoint["best"]


class LastCheckpoint(Callback):
    """Keeps the checkpoint from which a run is resumed: every `every_n_minutes`, at the end, and when
    the run is asked to stop, which it then does.

    A run is saved before a step, never elsewhere: all that the step before has led to, validation and the
    rows of metrics.csv included, is done then, so what is saved is one kind of state only. Steps are done
    again after a kill, and come out the same, the best model included.

    Args:
        interruption: notes the signals that ask the run to stop.
    """

    def __init__(self, path: Path, every_n_minutes: float, interruption: Interruption) -> None:
        self.path, self.every_s, self.interruption = path, 60 * every_n_minutes, interruption
        self.steps: int | None = None
        self.saved_at: float | None = None  # of `time.monotonic`; None until training has begun

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()
        self.interruption.deferred = True
        self.saved_at = time.monotonic()
        self.steps = trainer.fit_loop.epoch_loop._batches_that_stepped
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.stopped_epoch:
                trainer.should_stop = True  # a run that was stopped early stays so; Lightning forgets it

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
        # Never between batches whose gradients are added up for one step.
        if _processes_sync(trainer) and batch_idx % trainer.accumulate_grad_batches == 0:
            assert self.saved_at is not None
            due = time.monotonic() - self.saved_at >= self.every_s
            if _any(trainer, due or bool(self.interruption)):
                self.save(trainer)
                if _any(trainer, bool(self.interruption)):
                    raise self.interruption.exit()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)
        if _any(trainer, bool(self.interruption)):
            raise self.interruption.exit()
        self.interruption.deferred = False

    def save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        self.saved_at = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, _: LightningModule, checkpoint: dict[str, Any]) -> None:
        # The step that is about to begin has not begun.
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for count in (progress["total"], progress["current"]):
            count["ready"] = count["completed"]
        progress["is_last_batch"] = False


class ValidateAtEnd(Callback):
    """Validates after the last step of a run, wherever in an epoch that is: else trainer.max_steps=40 would
    end without a validation, and so without a best model.

    (Lightning validates at once when a run is to stop.)
    """

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True


def _processes_sync(trainer: Trainer) -> bool:
    """Whether the processes ask each other now."""
    return trainer.world_size == 1 or trainer.global_step % SYNC_EVERY_N_STEPS == 0


def _any(trainer: Trainer, here: bool) -> bool:
    """Whether it is so in any of the run's processes."""
    return here if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(here, all=False)


def _tables(trainer: Trainer) -> list[MetricsCSV]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsCSV)]


def load_best(model: LightningModule, path: Path, objective: str) -> None:
    """Gives `model` the weights of the best one.

    Raises:
        UserError: there is none.
    """
    if not path.is_file():
        raise UserError(f"{objective} was never finite: there is no best model")
    untrusted.load_weights(model, path)
