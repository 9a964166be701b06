"""From the words of the command line to what is done."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from autoencoders import hardware, training
from autoencoders.apply import anomalies, codes, motion, pictures
from autoencoders.apply.command import Options
from autoencoders.apply.pictures import Entry
from autoencoders.apply.predict import (
    Outcome,
    build_trainer,
    channels,
    counted,
    predict,
    validation_images,
)
from autoencoders.apply.restore import Restore, check_apart, claim_folder, names_apart, release_folder
from autoencoders.config import plain
from autoencoders.corruption import Corruption, Identity
from autoencoders.data.pairs import Images
from autoencoders.errors import UserError, is_main_process
from autoencoders.processes import Interrupted, Interruption
from autoencoders.runs import missing
from autoencoders.trained import model_of, weights_file


class Job:
    """A trained model, the pictures, and what is to be done with them."""

    def __init__(self, options: Options, run: Path, cfg: DictConfig) -> None:
        self.options, self.run, self.cfg = options, run, cfg
        self.data = training.build_data(cfg)
        self.model = model_of(run, cfg).eval()
        channels(self.model)
        if options.task not in ("restore", "anomalies") and not getattr(self.model, "code_dim", 0):
            raise UserError(f"{options.task}= needs a model with a code, and that of {run} has none")
        self.entries: list[Entry] = []
        self.base: Path | None = None
        if options.images:
            self.entries, self.base = pictures.find(options.images)

    def corruption(self) -> Corruption | None:
        """What is to be done to the pictures first.

        Raises:
            UserError: it is asked for, and the run has none.
        """
        if not self.options.corrupt:
            return None
        if getattr(self.data, "measured", False):
            raise UserError("corrupt=true: this run has learnt from measured pictures: name such pictures")
        corruption: Corruption = getattr(self.data, "corruption", Identity())
        if isinstance(corruption, Identity):
            raise UserError(
                "corrupt=true: this run has no corruption; choose one, such as corruption=gaussian"
            )
        return corruption

    def restore(self) -> None:
        options, out = self.options, self.options.folder
        check_apart(out, self.base)
        self.entries = names_apart(out, self.entries)
        task = Restore(out, options.overlap, options.batch, self.corruption(), options.side_by_side)
        trainer, made = build_trainer(self.cfg.trainer, out), missing(out)
        if is_main_process():
            node = OmegaConf.select(self.cfg, "data.corruption") if options.corrupt else None
            corruption = None if node is None else plain(node)
            settings = {"overlap": options.overlap, "corruption": corruption}
            claim_folder(out, weights_file(self.run), settings)

        def report(outcomes: list[Outcome]) -> None:
            skipped = sum(outcome.skipped for outcome in outcomes)
            written = sum(not outcome.wrong for outcome in outcomes) - skipped
            before = f"; {skipped} were there already" if skipped else ""
            print(f"{counted(written)} written to {out}{before}", flush=True)

        try:
            predict(trainer, self.model, self.entries, task, report)
        finally:
            if is_main_process():
                release_folder(out, made)

    def codes(self) -> None:
        """Into a file, as a sheet of neighbours, or both."""
        options, task = self.options, codes.Encode(self.corruption())
        file, sheet, query = Path(options.codes), options.folder / "similar.png", Path(options.similar)
        if options.codes:
            codes.check_format(file)
        if options.similar:
            check_apart(options.folder, self.base)
            check_new(sheet, self.entries)
            codes.read_named(query)  # before the others are

        def keep(outcomes: list[Outcome]) -> None:
            places, found = codes.codes_of(outcomes)
            entries = [self.entries[place] for place in places]
            if options.codes:
                codes.save(file, entries, found)
                print(f"codes of {counted(len(entries))}, {found.shape[1]} numbers each: {file}", flush=True)
            if options.similar:
                sheet.parent.mkdir(parents=True, exist_ok=True)
                codes.show_similar(self.model, query, entries, found, options.neighbours, task, sheet)
                print(f"the nearest to {query}: {sheet}", flush=True)

        predict(build_trainer(self.cfg.trainer, options.folder), self.model, self.entries, task, keep)

    def anomalies(self) -> None:
        options, task = self.options, anomalies.Score(self.corruption())
        if options.normal:
            anomalies.check_normal(self.entries, options.normal)
        held_out: Images | None = None
        rate = anomalies.RATE
        if is_main_process():
            held_out = validation_images(self.data, "anomalies=")
            rate = anomalies.checked_rate(options.false_alarms, len(held_out))

        def rank(outcomes: list[Outcome]) -> None:
            assert held_out is not None
            normal = anomalies.scores(self.model, self.data, held_out, options.corrupt)
            limit = anomalies.threshold(normal, rate)
            ranked = [
                anomalies.Ranked(self.entries[outcome.place], outcome.result)
                for outcome in sorted(outcomes, key=lambda outcome: -(outcome.result or 0))
                if not outcome.wrong
            ]
            anomalies.save(Path(options.anomalies), ranked, limit)
            print(
                f"threshold {limit:.6g}: at most {rate:.3g} false alarms, by the "
                f"{len(normal)} validation images of the run"
            )
            for line in anomalies.summary(ranked, limit, options.normal):
                print(line)
            print(f"ranked in {options.anomalies}", flush=True)

        predict(build_trainer(self.cfg.trainer, Path()), self.model, self.entries, task, rank)

    def walk(self) -> None:
        motion.check_format(self.options.format)
        named = [Path(name) for name in self.options.walk.split(",") if name]
        if len(named) < 2:
            raise UserError(f"walk={self.options.walk} must name at least two pictures: walk=a.png,b.png")
        read = [(Entry(path, path.name), codes.read_named(path)) for path in named]
        self.model.to(device())
        found = [torch.from_numpy(codes.Encode()(self.model, *one)) for one in read]
        self._animate({"walk": motion.walk(found, self.options.steps)})

    def traverse(self) -> None:
        """Along the main directions of the codes of the pictures, or of the run's validation images."""
        motion.check_format(self.options.format)
        check_apart(self.options.folder, self.base)

        def go(found: codes.Codes) -> None:
            paths = motion.traversals(found, self.options.steps)
            self._animate({f"traverse-{number}": path for number, path in enumerate(paths, start=1)})

        if self.entries:
            trainer = build_trainer(self.cfg.trainer, self.options.folder)
            predict(
                trainer, self.model, self.entries, codes.Encode(), lambda all_: go(codes.codes_of(all_)[1])
            )
        else:
            self.model.to(device())
            go(codes.of_validation(self.model, self.data))

    def _animate(self, paths: dict[str, torch.Tensor]) -> None:
        folder = self.options.folder
        folder.mkdir(parents=True, exist_ok=True)
        if not paths:
            raise UserError("there is nothing to traverse: all codes are the same")
        for name, path in paths.items():
            file = folder / f"{name}.{self.options.format}"
            motion.save(motion.frames(self.model, path), file)
            print(file, flush=True)


def do(options: Options, run: Path, cfg: DictConfig) -> None:
    """What the command line asks for, with a run's best model."""
    with Interruption(deferred=False).listening():  # so that a signal leaves no unfinished file
        training.quiet()
        hardware.prepare()
        job = Job(options, run, cfg)
        tasks = {
            "restore": job.restore,
            "codes": job.codes,
            "similar": job.codes,
            "anomalies": job.anomalies,
            "walk": job.walk,
            "traverse": job.traverse,
        }
        try:
            tasks[options.task]()
        except Interrupted:
            if options.task == "restore" and is_main_process():
                print("interrupted; the same command does the rest", flush=True)
            raise


def device() -> str:
    """Where the few images are decoded that need no Trainer."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_new(path: Path, entries: Sequence[Entry]) -> None:
    """Raises UserError where a result would overwrite one of the pictures."""
    if os.path.realpath(path) in {os.path.realpath(entry.path) for entry in entries}:
        raise UserError(f"{path} is one of the pictures: choose another out=")
