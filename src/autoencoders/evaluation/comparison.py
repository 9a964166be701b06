"""Several trained models on the same test images: their scores side by side, and which of them differ beyond
chance. See `compare.py`."""

import os
import textwrap
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from autoencoders import chance, figures, hardware, sweeps, trained
from autoencoders.compare import GROUPS, Options
from autoencoders.config import class_name
from autoencoders.data import ImageDataModule
from autoencoders.errors import UserError, one_line, suggest
from autoencoders.evaluation import groups_of, intervals, report, table, trainings
from autoencoders.evaluation.headline import Answer, answer, compared, smaller_is_better
from autoencoders.evaluation.intervals import Mean
from autoencoders.evaluation.restoration import Restorers, reconstruction, unaided
from autoencoders.evaluation.subject import Scores, Subject
from autoencoders.files import write_json
from autoencoders.metrics import metric_names
from autoencoders.models import BaseModel
from autoencoders.pages import compare as page_of
from autoencoders.pages import words
from autoencoders.palette import of_classes
from autoencoders.training import build_data

BOUND = (50, 1000)  # samples and images of the importance-weighted bound
PICTURES, LONGEST = 10, 24  # images a row of the figure, and letters a line of its title


def compare(options: Options, configs: Sequence[DictConfig], of_data: DictConfig) -> None:
    """Scores the models on the test images of `of_data`, and writes a page, its numbers and the figure.

    Args:
        configs: those of the runs, as they were trained.

    Raises:
        UserError: the models can't be tested on the same images, or have no such groups of scores.
    """
    start = time.perf_counter()
    hardware.prepare()
    names, data = options.names or named(options.runs), build_data(of_data)
    models = dict(zip(names, map(model_of, options.runs, configs), strict=True))
    chosen = {word.lstrip("+~").partition("=")[0] for word in options.overrides}
    check_images(options.runs, list(models.values()), configs, data, chosen)
    folders = zip(names, options.runs, configs, strict=True)
    trained = {name: trainings.read(run, config) for name, run, config in folders}
    unfinished = [f"{name} has not finished its training" for name, of in trained.items() if of.unfinished]
    notes, tested_on = [*unfinished, *differing(names, configs, of_data, data)], _described(data)
    for note in notes:
        print(f"note: {note}", flush=True)
    subjects = {name: Subject(model, data) for name, model in models.items()}
    first, count = subjects[names[0]], len(data.test)
    noisy = data.test.corrupted is not None
    restorers = Restorers(first) if noisy and options.beside and "reconstruction" in options.groups else None

    scores = dict[str, Scores]()
    differences = dict[str, Scores]()
    for group in options.groups:
        scores[group] = scores_of(group, subjects, options.beside, restorers)
        intervals.estimate(scores[group], count)
        differences[group] = differences_of(scores[group], names[0], count)
        means = {
            row: {m: v for m, v in of_row.items() if isinstance(v, Mean)}
            for row, of_row in scores[group].items()
        }
        print(f"\n{group}, {count:,} test images of {tested_on}\n{table(means)}")
        print(f"\nminus {names[0]}\n{table(differences[group], page_of.difference_text)}", flush=True)
    found = list(sentences(differences))
    answers = {group: told for group, rows in scores.items() if (told := answer(group, rows, names, count))}
    told_first, alike = [told.sentence for told in answers.values()], trainings.alike_but_for_seeds(trained)
    by_seed = trainings.only_the_seed(alike, len(names))
    of_seeds = [*(what_a_seed_changes(answers, scores, alike) if alike != [names] else []), *by_seed]
    print(f"\nagainst {names[0]}", *found, "", *told_first, *of_seeds, "", sep="\n")

    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    shown = pictures(subjects, restorers, options.beside)
    figure = figures.image_rows({textwrap.fill(name, LONGEST): images for name, images in shown.items()})
    figures.save(figure, out / "figures" / "images.png")
    about = {
        "images": count, "level": intervals.LEVEL, "resamples": intervals.RESAMPLES,
        "runs": {name: str(run) for name, run in zip(names, options.runs, strict=True)},
        "tested_on": tested_on, "data": test_images(of_data), "notes": notes,
        "trainings": {
            "differ_in": trainings.differing(trained), "only_the_seed": by_seed,
            "trained": {name: of.trained for name, of in trained.items()},
        },
        "scores": with_intervals(scores), "differences_from": names[0],
        "differences": with_intervals(differences, beyond_chance=intervals.beyond_chance),
        "answers": {group: told.sentence for group, told in answers.items()}, "command": options.command,
    }  # fmt: skip
    write_json(out / "compare.json", about)
    settings = [_setting(key, value) for key, value in test_images(of_data).items() if value]
    page_of.write(
        out / "compare.html",
        described(subjects, options.runs, out),
        scores,
        differences,
        trained,
        answers=answers,
        of_seeds=of_seeds,
        found=found,
        notes=notes,
        images=report.strips(figures.Rows(shown), "The first test images, and what is made of them."),
        tested_on=", ".join([f"{count:,} test images of {tested_on}", *settings]),
        command=options.command,
    )
    print(f"  page  {out / 'compare.html'}  ({time.perf_counter() - start:.0f} s)")


def named(folders: Sequence[Path]) -> list[str]:
    """What each run is called: its folder below the one that all of them are in; a sweep's job also by what
    the jobs differ in."""
    paths = [os.path.realpath(folder) for folder in folders]
    around, names = Path(os.path.commonpath(paths)), list[str]()
    for path in map(Path, paths):
        name = one_line(str(path.relative_to(around)) if path != around else path.name)
        name += _as_job(path)
        again = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({again + 1})" if again else name)
    return names


def _as_job(folder: Path) -> str:
    if not (folder.parent / "multirun.yaml").is_file():
        return ""
    try:
        jobs = sweeps.read_sweep(folder.parent)
    except UserError:  # no sweep as it should be: the folder's name is enough
        return ""
    keys = sweeps.varying(jobs)
    said = next((sweeps.varied(job, keys) for job in jobs if job.name == folder.name), "")
    return f" ({said})" if said else ""


def model_of(run: Path, config: DictConfig) -> BaseModel:
    model: BaseModel = trained.model_of(run, config)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def check_images(
    runs: Sequence[Path],
    models: Sequence[BaseModel],
    configs: Sequence[DictConfig],
    data: ImageDataModule,
    chosen: Collection[str],
) -> None:
    """
    Args:
        chosen: the keys that the user has said.

    Raises:
        UserError: a model does not take the images, or was trained on another data set.
    """
    first, places = runs[0], [config.data.get("root") for config in configs]
    for run, model, config, place in zip(runs, models, configs, places, strict=True):
        # An exported folder does not tell.
        roots = {os.path.realpath(root) for root in (place, places[0]) if root}
        for verb, mine, theirs in (
            ("reads", model.input_shape, data.input_shape), ("gives", model.target_shape, data.target_shape),
        ):  # fmt: skip
            compared = 1 if model.any_size else None
            if tuple(mine)[:compared] != tuple(theirs)[:compared]:
                raise UserError(
                    f"{run} {verb} images of {tuple(mine)} (C, H, W), but those of {_described(data)}, to be "
                    f"tested on, are of {tuple(theirs)}"
                )
        own = build_data(config)
        if "data" not in chosen and not _same_pictures(own, data, set() if "data.root" in chosen else roots):
            known = "data=mnist" if getattr(own, "source", None) else "data.root=pictures"
            raise UserError(
                f"{run} was trained on {_described(own)} and {first} on {_described(data)}: say what to test "
                f"on, such as {known}"
            )


def _same_pictures(a: ImageDataModule, b: ImageDataModule, roots: Collection[str]) -> bool:
    """Whether two runs' data are of the same pictures, up to what is made of them.

    Args:
        roots: the places that they were at, as far as these tell of the pictures.
    """
    source = getattr(a, "source", None)
    if source is not None:
        return source is getattr(b, "source", None)
    return type(a) is type(b) and len(roots) < 2


def _described(data: ImageDataModule) -> str:
    name, place = type(data).__name__, getattr(data, "root", None)
    return name if getattr(data, "source", None) else one_line(f"{name} of {place or 'elsewhere'}")


def test_images(config: DictConfig) -> dict[str, Any]:
    """What of a run's config makes its test images what they are."""
    data: Any = OmegaConf.to_container(config.data, resolve=True)
    of_test = chance.test_images(data)
    return {key: value for key, value in of_test.items() if key not in ("_target_", "root", "input_root")}


def differing(
    names: Sequence[str], configs: Sequence[DictConfig], of_data: DictConfig, data: ImageDataModule
) -> list[str]:
    """A sentence for each run that is tested on other images than it was trained for.

    Args:
        of_data, data: what they are tested on.
    """
    tested, said = test_images(of_data), list[str]()
    for name, config in zip(names, configs, strict=True):
        trained_on, places = build_data(config), (config.data.get("root"), of_data.data.get("root"))
        if not _same_pictures(trained_on, data, {os.path.realpath(root) for root in places if root}):
            was, now = _described(trained_on), _described(data)
            said.append(one_line(f"{name} was trained on {was}, and is tested on {now}"))
        own = test_images(config)
        # None: as the pictures are, which the models' shapes tell of.
        other = [key for key in tested if own.get(key) not in (None, tested[key]) and tested[key] is not None]
        if other:
            was, now = (", ".join(_setting(key, of[key]) for key in other) for of in (own, tested))
            said.append(one_line(f"{name} was trained with {was}, and is tested with {now}"))
    return said


def _setting(key: str, value: Any) -> str:
    """As `corruption=Gaussian(mean=0.5, std=0.5)`."""
    if isinstance(value, dict) and class_name(value) == "Identity":
        value = "none"
    elif isinstance(value, dict):
        arguments = ", ".join(f"{k}={v}" for k, v in value.items() if k != "_target_")
        value = f"{class_name(value)}({arguments})"
    return f"{key}={value}"


def what_a_seed_changes(
    answers: Mapping[str, Answer], scores: Mapping[str, Scores], alike: Sequence[Sequence[str]]
) -> list[str]:
    """That another seed may change what is said to be beyond chance, if anything is; and by how much seeds
    change the score, as far as some of the runs differ only in theirs.

    Args:
        alike: the names of each set of runs that do.
    """
    said = [(group, told.metric) for group, told in answers.items() if told.beyond_chance]
    changes = list[str]()
    for group, metric in said:
        values = [[float(scores[group][name][metric]) for name in names] for names in alike]
        if values:
            changes.append(f"{metric} by up to {max(max(of) - min(of) for of in values):.2g}")
    known = f": here, a seed alone changes {' and '.join(changes)}" if changes else ""
    return [f"Another seed of the training may change that{known}."] if said else []


def scores_of(
    group: str, subjects: Mapping[str, Subject], beside: bool, restorers: Restorers | None
) -> Scores:
    """One group of scores: a row a model, and what the first of them has beside it.

    Raises:
        UserError: a model has no such group.
    """
    scores, others = Scores(), Scores()
    for place, (name, subject) in enumerate(subjects.items()):
        with_others = beside and place == 0
        known: dict[str, Callable[[Subject], Scores]] = {
            "reconstruction": lambda of, b=with_others: reconstruction(of, b, restorers)[0],  # type: ignore[misc]
            **groups_of(subject, BOUND),
        }
        if group.replace("_", " ") not in known:
            there = [of for of in GROUPS if of in known]
            raise UserError(f"groups={group}: {name} has no such scores to compare: {suggest(group, there)}")
        of_subject = known[group.replace("_", " ")](subject)
        scores[name] = of_subject.pop("model")
        others |= {compared(row, name): of for row, of in of_subject.items()} if with_others else {}
    return scores | {row: of for row, of in others.items() if row not in scores}


def differences_of(scores: Scores, first: str, count: int) -> Scores:
    """Each row's scores minus those of the first, where both are means over images, with intervals that hold
    together for each metric."""
    found = Scores()
    for metric in metric_names(scores):
        reference, of_metric = scores[first].get(metric), dict[str, Mean]()
        for row, metrics in scores.items():
            value = metrics.get(metric)
            if row == first or not isinstance(value, Mean) or not isinstance(reference, Mean):
                continue
            if (paired := intervals.difference(value, reference, count)) is not None:
                of_metric[row] = paired
                found.setdefault(row, {})[metric] = paired
        intervals.simultaneous(list(of_metric.values()), count)
    return {row: found[row] for row in scores if row in found}


def sentences(differences: Mapping[str, Scores]) -> list[str]:
    """What differs beyond chance, a line a row."""
    said = list[str]()
    for group, rows in differences.items():
        for row, metrics in rows.items():
            parts: dict[str, list[str]] = {"better": [], "worse": [], "different": [], "within chance": []}
            for metric, value in metrics.items():
                parts[verdict(metric, value)].append(metric)
            told = "; ".join(f"{word} in {', '.join(of)}" for word, of in parts.items() if of)
            said.append(f"{group}: {row} is {told}")
    return said


def verdict(metric: str, difference: Mean) -> str:
    """What a difference from the first run is: better, worse, different or within chance."""
    if not intervals.beyond_chance(difference):
        return "within chance"
    smaller = smaller_is_better(metric)
    if smaller is None:
        return "different"
    return "better" if (difference < 0) == smaller else "worse"


@torch.inference_mode()
def pictures(subjects: Mapping[str, Subject], restorers: Restorers | None, beside: bool) -> dict[str, Tensor]:
    """Images by the title of their row: the first test images, and what is made of them."""
    first = next(iter(subjects.values()))
    batch = first.data.first(first.data.test, PICTURES, first.model.device)
    shown = {"original": batch.clean}
    if not torch.equal(batch.clean, batch.input_as_output):
        shown["corrupted image"] = batch.input_as_output
    shown |= {name: of.model(batch.corrupted) for name, of in subjects.items()}
    if beside:
        shown |= unaided(first, batch) | (restorers(batch) if restorers else {})
    return shown


def with_intervals(
    groups: Mapping[str, Scores], **more: Callable[[Any], Any]
) -> dict[str, dict[str, dict[str, Any]]]:
    """The scores for a JSON file: those with an interval as {"value": ..., "interval": [low, high]}."""

    def entry(value: Any) -> Any:
        if not isinstance(value, intervals.Score):
            return {"value": value}
        return {"value": float(value), "interval": value.interval, **{k: of(value) for k, of in more.items()}}

    return {
        group: {row: {m: entry(v) for m, v in metrics.items()} for row, metrics in rows.items()}
        for group, rows in groups.items()
    }


def described(subjects: Mapping[str, Subject], folders: Sequence[Path], out: Path) -> list[page_of.Run]:
    """What the page in the folder `out` says of each run."""
    said = []
    for (name, of), folder, colour in zip(subjects.items(), folders, of_classes(len(folders)), strict=True):
        known = folder / "evaluation" / "report.html"
        link = quote(os.path.relpath(known, out)) if known.is_file() else ""
        made_of = words(type(of.model).__name__) + f", code of {of.model.code_dim}" * of.model.has_code
        said.append(page_of.Run(name, str(folder), made_of, colour, link))
    return said
