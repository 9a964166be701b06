"""What a run's folder says of the run, for its model card: how it was trained and how good it is."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image

from autoencoders import runs, untrusted
from autoencoders.errors import UserError, one_line
from autoencoders.export.checking import ERROR_TOLERANCE, TRAINING_TOLERANCE, Checked

# Of a command: where something is on one machine, which is no part of the recipe.
OF_A_PLACE = (
    "hydra.run.dir=",
    "hydra.sweep.dir=",
    "data.root=",
    "logger",
    "trust=",
    "data.cache=",
    "data.input_root=",
)
LARGEST_FIGURE = 2**25  # bytes


@dataclass(frozen=True)
class Record:
    """What is not known is empty."""

    recipe: str  # the command
    started: str
    commit: str
    versions: Mapping[str, str]  # that it was trained with
    metrics: Mapping[str, float]  # of metrics.json
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]  # of the evaluation: group, row, metric
    figures: Mapping[str, bytes]  # PNG by name

    @property
    def test_mse(self) -> float | None:
        """Of the run's own metrics, as it computed it."""
        return self.metrics.get("test/mse")

    def compare(self, run: Path, checked: Checked) -> None:
        """Raises UserError where the numbers in the folder are not those of its weights."""
        if self.test_mse is not None and not math.isclose(
            self.test_mse, checked.mse, rel_tol=TRAINING_TOLERANCE
        ):
            raise UserError(
                f"{run / 'metrics.json'} says test/mse={self.test_mse:.6g}, and its best checkpoint has "
                f"{checked.mse:.6g}: nothing is exported"
            )
        self.check_evaluation(run, checked.mse, ERROR_TOLERANCE)

    def check_evaluation(self, run: Path, mse: float | None, tolerance: float) -> None:
        """Raises UserError where the evaluation has another error than the run, if both are known."""
        evaluated = self.scores.get("reconstruction", {}).get("model", {}).get("mse")
        if mse is None or evaluated is None:
            return
        if not math.isclose(evaluated, mse, rel_tol=tolerance):
            evaluate = runs.to_paste("python", runs.script_path("evaluate.py"), f"run={run}")
            raise UserError(
                f"{run / 'evaluation'} scores other data or another corruption than the run's (mse "
                f"{evaluated:.6g}, not {mse:.6g}); evaluate it again with: {evaluate}"
            )


def read(run: Path, config: DictConfig) -> Record:
    """Reads what is there of a run whose folder has been looked at by `autoencoders.load`.

    Raises:
        UserError: a file is not what a run or its evaluation leaves.
    """
    environment, metrics = (
        untrusted.read_json(path) if (path := run / name).is_file() else {}
        for name in ("environment.json", "metrics.json")
    )
    limited = config.get("trainer", {}).get("limit_test_batches") not in (None, 1.0)
    evaluation = run / "evaluation" / "metrics.json"
    scores = _scores(evaluation) if evaluation.is_file() else {}
    git, versions = environment.get("git", {}), environment.get("versions", {})
    commit = str(git.get("commit") or "")
    return Record(
        recipe=_recipe(run, environment.get("command", [])),
        started=one_line(str(environment.get("started", ""))),
        commit=one_line(f"{commit}{' with changes' if commit and git.get('changed') else ''}"),
        versions={one_line(name): one_line(str(number)) for name, number in versions.items()},
        metrics={k: v for k, v in metrics.items() if not (limited and k.startswith("test/"))},
        scores=scores,
        figures=dict(_figures(run / "evaluation" / "figures" if scores else run / "figures")),
    )


def _recipe(run: Path, command: list[str]) -> str:
    """The command that trains it, anywhere; of one that started from another run its overrides."""
    if not command or any(word.startswith(("rerun=", "resume=")) for word in command):
        command = ["train.py", *runs.read_overrides(run)]
    return one_line("python " + shlex.join(word for word in command if not word.startswith(OF_A_PLACE)))


def _scores(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for group, rows in untrusted.read_json(path).items():
        if not isinstance(rows, dict):
            raise UserError(f"{path} does not hold an evaluation")
        scores[group] = {row: untrusted.numbers(path, metrics) for row, metrics in rows.items()}
    return scores


def _figures(folder: Path) -> list[tuple[str, bytes]]:
    """The pictures in a folder, by name.

    Raises:
        UserError: one is not a picture.
    """
    found = []
    for path in sorted(folder.glob("*.png")):
        try:
            if path.stat().st_size > LARGEST_FIGURE:
                raise ValueError
            with Image.open(path, formats=["PNG"]) as picture:
                picture.verify()
        except Exception:  # PIL raises all kinds
            raise UserError(f"{path} is not a PNG picture") from None
        found.append((path.name, path.read_bytes()))
    return found
