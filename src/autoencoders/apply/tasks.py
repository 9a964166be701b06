"""From the words of the command line to what is done."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from autoencoders import hardware, runs, training, untrusted
from autoencoders.apply import pictures
from autoencoders.apply.command import Options
from autoencoders.apply.predict import Outcome, build_trainer, channels, predict
from autoencoders.apply.restore import Restore, check_folder, claim_folder
from autoencoders.config import plain
from autoencoders.corruption import Corruption, Identity
from autoencoders.errors import UserError, is_main_process
from autoencoders.processes import Interruption


def do(options: Options, run: Path, cfg: DictConfig) -> None:
    """What the command line asks for, with a run's best model."""
    with Interruption(deferred=False).listening():  # so that a signal leaves no unfinished file
        training.quiet()
        hardware.prepare()
        data = training.build_data(cfg)
        model = training.build_model(cfg, data)
        untrusted.load_weights(model, runs.best_checkpoint(run))
        model.eval()
        channels(model)
        corruption = chosen_corruption(options, data)
        restore(options, run, cfg, model, corruption)


def chosen_corruption(options: Options, data: Any) -> Corruption | None:
    """What is to be done to the pictures first.

    Raises:
        UserError: it is asked for, and the run has none.
    """
    if not options.corrupt:
        return None
    corruption: Corruption = data.corruption
    if isinstance(corruption, Identity):
        raise UserError("corrupt=true: this run has no corruption; choose one, such as corruption=gaussian")
    return corruption


def restore(
    options: Options, run: Path, cfg: DictConfig, model: Any, corruption: Corruption | None
) -> None:
    entries, base = pictures.find(options.images)
    out = options.folder
    entries = check_folder(out, entries, base)
    trainer = build_trainer(cfg.trainer, out)
    if is_main_process():
        kind = OmegaConf.select(cfg, "data.corruption")
        corrupted = plain(kind) if options.corrupt and kind is not None else None
        claim_folder(out, runs.best_checkpoint(run), {"overlap": options.overlap, "corruption": corrupted})
    task = Restore(out, options.overlap, options.batch, corruption, options.side_by_side)

    def report(outcomes: list[Outcome]) -> None:
        skipped = sum(outcome.skipped for outcome in outcomes)
        written = sum(not outcome.wrong for outcome in outcomes) - skipped
        before = f"; {skipped} were there already" if skipped else ""
        print(f"{written} pictures written to {out}{before}", flush=True)

    predict(trainer, model, entries, task, report)
