"""How far a training is: a bar on a terminal, lines in a log file."""

import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from tqdm import tqdm

WARMING_UP, MEASURED_S = 10, 5.0  # steps, and then seconds, after which the length of a training is told
GROWTH = 5  # percent by which the steps have grown from one line to the next


def progress(callbacks: Sequence[Callback], bar: bool | None = None) -> list[Callback]:
    """A progress bar, or lines; nothing where `callbacks` hold a progress bar already.

    Args:
        bar: which of them; None: a bar on a terminal, lines elsewhere, such as in a log file.
    """
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        return []
    return [Bar() if bar or (bar is None and _on_a_terminal()) else EpochLines()]


def _on_a_terminal() -> bool:
    """One that has a size, without which tqdm draws nothing."""
    return sys.stderr.isatty() and 0 not in os.get_terminal_size(sys.stderr.fileno())


class Bar(ProgressBar):
    """One bar for the whole training, "epoch 3/10  25% ██▌        00:12, 00:36 left, val/mse 0.01642", with
    all that is logged with `prog_bar`; and a passing one for each validation or test after it.

    Where epochs are not what the run is measured by, it begins with "step 300/1200".
    """

    def __init__(self) -> None:
        super().__init__()
        self.shown = True
        self.bar: tqdm[Any] = tqdm(disable=True)

    def disable(self) -> None:
        self.shown = False

    def enable(self) -> None:
        self.shown = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """What a model prints by `self.print`, above the bar."""
        if self.shown:
            with tqdm.external_write_mode():
                print(*args, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        if math.isfinite(steps):
            done = "{desc}" if in_epochs(trainer) else "step {n_fmt}/{total_fmt}"
            text, total = done + "  {percentage:3.0f}% {bar:10} {elapsed}, {remaining} left{postfix}", steps
        else:
            text, total = "{desc}, step {n_fmt}, {elapsed}{postfix}", None
        self.start(text, total, desc=epoch(trainer), initial=trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self.bar.set_description_str(epoch(trainer), refresh=False)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.bar.update(trainer.global_step - self.bar.n):  # it was drawn, as it is a few times a second
            self.bar.set_postfix_str(logged(trainer), refresh=False)

    def on_train_end(self, *_: Any) -> None:
        self.bar.close()

    def on_exception(self, *_: Any) -> None:
        self.bar.close()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self.bar.set_postfix_str("validating")
        else:
            self.start_passing("validating", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self.bar.update()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self.bar.set_postfix_str(logged(trainer))
        else:
            self.bar.close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start_passing("testing", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *_: Any) -> None:
        self.bar.update()

    def on_test_end(self, *_: Any) -> None:
        self.bar.close()

    def start_passing(self, what: str, batches: float) -> None:
        self.start("{desc}  {percentage:3.0f}% {bar:10} {remaining} left", batches, desc=what, leave=False)

    def start(self, text: str, total: float | None, **options: Any) -> None:
        off = not self.shown
        self.bar = tqdm(total=total, bar_format=text, disable=off, dynamic_ncols=True, smoothing=0, **options)


class EpochLines(Callback):
    """Prints "epoch 3/9   val/mse 0.01642   14.2 s" at validations: the seconds since the line before; and
    once, from the first steps, how long the training will take.

    Of many validations it leaves out those at which the steps have grown by less than a twentieth since the
    line before, but for the last: each of the first 20 epochs has its line, of 1,000 there are 90.

    Where epochs are not what the run is measured by, in validations within or across them or by a limit of
    steps, it prints "step 300/1200" instead.
    """

    start: float
    step = 0  # of the last line
    warm: float | None = None  # when its first steps, which are slower, were done; None before and after

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start, self.first_step = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps, now = trainer.global_step - self.first_step - WARMING_UP, time.perf_counter()
        if not steps:
            self.warm = now
        elif self.warm is not None and now - self.warm >= MEASURED_S:
            left = (trainer.estimated_stepping_batches - trainer.global_step) * (now - self.warm) / steps
            self.warm = None
            if math.isfinite(left) and trainer.is_global_zero:
                print(f"about {duration(left)} left", flush=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or not trainer.is_global_zero:
            return
        step = trainer.global_step
        if 100 * step < (100 + GROWTH) * self.step and step < trainer.estimated_stepping_batches:
            return
        mse, now = trainer.callback_metrics.get("val/mse"), time.perf_counter()
        score = "" if mse is None else f"val/mse {mse:.5f} "
        print(f"{place(trainer):14} {score}{now - self.start:8.1f} s", flush=True)
        self.start, self.step = now, step


def duration(seconds: float) -> str:
    """In words: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def in_epochs(trainer: Trainer) -> bool:
    """Whether a training is measured by its epochs, each with a validation at its end, not by steps."""
    every_epoch = trainer.check_val_every_n_epoch is not None
    once = every_epoch and trainer.val_check_batch == trainer.num_training_batches
    return once and trainer.max_steps == -1


def place(trainer: Trainer) -> str:
    """How far a training is when it validates: "epoch 3/9", "step 300/1200", or "epoch 3" without an end."""
    if in_epochs(trainer):
        return epoch(trainer)
    steps = trainer.estimated_stepping_batches
    return f"step {trainer.global_step}" + (f"/{int(steps)}" if math.isfinite(steps) else "")


def epoch(trainer: Trainer) -> str:
    last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
    return f"epoch {trainer.current_epoch + 1}{last}"


def logged(trainer: Trainer) -> str:
    """What is logged with `prog_bar`, validation's first: "val/mse 0.01642, train/loss 463.2"."""
    metrics = sorted(
        trainer.progress_bar_metrics.items(), key=lambda metric: not metric[0].startswith("val/")
    )
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics)
