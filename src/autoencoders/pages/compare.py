"""compare.html: runs on the same test images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autoencoders.evaluation import intervals, trainings
from autoencoders.evaluation.headline import Answer, smaller_is_better
from autoencoders.evaluation.subject import Scores
from autoencoders.evaluation.trainings import Training
from autoencoders.files import atomic_write
from autoencoders.metrics import metric_names
from autoencoders.pages import charts, template

BARS = (
    "Bars are each run's own 95 % interval over the test images. The runs are compared image by image, which "
    "is more precise: bars may overlap although the difference is beyond chance. Neither covers what another "
    "seed would change."
)
DIFFERENCES = (
    "The small number below a score is its difference from that of {first}, image by image. Its ± is half of "
    f"a {100 * intervals.LEVEL:g} % interval for all differences of a column at once: the more rows, the "
    "wider. Columns are not corrected for each other. A * marks a difference beyond chance: its interval "
    "excludes 0. It covers the choice of test images, not that of the seed."
)
SETTINGS = (
    "A cell is empty where a run has no such setting, or is an exported folder, which does not keep all of "
    "them. Settings that do not affect what is learnt, such as loggers, figures and paths, are left out."
)


class Run(NamedTuple):
    """What was compared."""

    name: str
    folder: str
    made_of: str
    colour: str
    report: str  # a link from the page to it; nothing where there is none


def write(
    path: Path,
    runs: Sequence[Run],
    scores: Mapping[str, Scores],
    differences: Mapping[str, Scores],
    trained: Mapping[str, Training],
    *,
    answers: Mapping[str, Answer],
    of_seeds: Sequence[str],
    found: Sequence[str],
    notes: Sequence[str],
    images: Any,
    tested_on: str,
    command: str,
) -> None:
    """Writes the page.

    Args:
        scores, differences: by group, row and metric; the differences are from the first run.
        trained: how each run was.
        answers: of the groups that have one.
        of_seeds: sentences on what another seed changes.
        found: sentences on the scores that differ from the first run's.
        images: of all rows, a block as a report's.
        tested_on: what the test images are.
        command: that does it again.
    """
    colours, differ = {run.name: run.colour for run in runs}, trainings.differing(trained)
    html = template("compare").render(
        title=f"{len(runs)} runs on the same test images",
        runs=runs,
        colours=colours,
        answers=[answer.sentence for answer in answers.values()],
        of_seeds=of_seeds,
        trainings=training_rows(trained, differ),
        differ=differ,
        settings=SETTINGS,
        first=runs[0].name,
        charts=list(charts_of(scores, colours, answers)),
        groups=[
            (group, columns(rows, differences[group]), rows, differences[group])
            for group, rows in scores.items()
        ],
        images=images,
        tested_on=tested_on,
        found=found,
        notes=notes,
        command=command,
        bars=BARS,
        intervals=intervals.EXPLAINED,
        explained=DIFFERENCES.format(first=runs[0].name),
        number=intervals.text,
        difference=difference_text,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def training_rows(
    trained: Mapping[str, Training], differ: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, list[str]]]:
    """How far each run was trained, and the settings in which they differ: a text for each run."""
    rows: dict[str, Mapping[str, Any]] = {
        f"{name} trained": {run: of.trained[name] for run, of in trained.items() if name in of.trained}
        for name in trainings.TRAINED
    }
    known = {key: row for key, row in rows.items() if row} | dict(differ)
    return [(key, [_text(row[run]) if run in row else "" for run in trained]) for key, row in known.items()]


def _text(value: Any) -> str:
    """As a config has it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def charts_of(
    scores: Mapping[str, Scores], colours: Mapping[str, str], answers: Mapping[str, Answer]
) -> Iterator[charts.Chart]:
    """A chart of each metric that has intervals, of the runs alone; what the answers are of comes first."""
    answered = [(group, answer.metric) for group, answer in answers.items()]
    every = [(group, metric) for group, rows in scores.items() for metric in metric_names(rows)]
    for group, metric in dict.fromkeys([*answered, *every]):
        values = {run: scores[group][run][metric] for run in colours if metric in scores[group][run]}
        ends = {run: (float(v), getattr(v, "interval", None)) for run, v in values.items()}
        if any(interval for _, interval in ends.values()):
            better = {True: ": smaller is better", False: ": larger is better", None: ""}
            caption = f"{group.capitalize()}{better[smaller_is_better(metric)]}."
            title = "mean squared error" if metric == "mse" else metric
            yield charts.intervals(ends, title, caption, colours, from_zero=False)


def columns(scores: Scores, differences: Scores) -> list[tuple[str, bool]]:
    """The metrics of a table, and whether they are shown before others are chosen: what was compared."""
    return [(metric, metric in metric_names(differences)) for metric in metric_names(scores)]


def difference_text(value: Any) -> str:
    sign = "+" if value > 0 else ""
    return f"{sign}{intervals.text(value)}{' *' if intervals.beyond_chance(value) else ''}"
