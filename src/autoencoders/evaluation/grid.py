"""A model's error over kinds and levels of corruption, those that it was not trained on included."""

import csv
from pathlib import Path

from tqdm import tqdm

from autoencoders import figures, runs
from autoencoders.evaluation import report, test_errors
from autoencoders.files import atomic_write

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)
KINDS: dict[str, tuple[str, tuple[float, ...]]] = {  # corruption: what its level is, and the levels
    "gaussian": ("std", (0.1, 0.25, 0.5, 0.75, 1.0)),
    "salt_pepper": ("fraction", FRACTIONS),
    "masking": ("fraction", FRACTIONS),
    "patches": ("fraction", FRACTIONS),
    "speckle": ("std", (0.1, 0.25, 0.5, 0.75, 1.0)),
    "blur": ("sigma", (0.5, 1.0, 1.5, 2.0, 3.0)),
}


def evaluate_grid(run: Path, trust: bool = False) -> None:
    """Writes `run/evaluation/grid.csv`, the test MSE of the model and of the corrupted image at each kind and
    level, and grid.png, the model's."""
    folder, lines = run / "evaluation", list[tuple[str, str, float, float, float]]()
    cells = [(kind, key, level) for kind, (key, levels) in KINDS.items() for level in levels]
    for kind, key, level in tqdm(cells, desc="kinds and levels", disable=None):
        arguments = [f"run={run}", f"corruption={kind}", f"corruption.{key}={level}"]
        if trust:
            arguments.append("trust=true")
        model, corrupted = test_errors(*runs.compose_evaluated(arguments))
        lines.append((kind, key, level, model, corrupted))
    with atomic_write(run / report.GRID) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["corruption", "level", "value", "model mse", "corrupted image mse"])
        writer.writerows(lines)
    rows = [
        f"{kind}, {key} {', '.join(f'{level:g}' for level in levels)}"
        for kind, (key, levels) in KINDS.items()
    ]
    values = [[line[3] for line in lines if line[0] == kind] for kind in KINDS]
    figure = figures.heatmap(
        values,
        rows,
        ["1", "2", "3", "4", "5"],
        x="level",
        y="corruption at test",
        title="test MSE of the model",
    )
    figures.save(figure, folder / "grid.png")
    for kind, key, level, model, corrupted in lines:
        print(f"{kind:12} {key:8} {level:<5g} model {model:.5f}   corrupted image {corrupted:.5f}")
    report.update_robustness(run)
    print(f"\n  grid    {runs.near(folder / 'grid.png')}, {runs.near(folder / 'grid.csv')}")
    if (page := folder / "report.html").is_file():
        print(f"  report  {runs.near(page)}")
    else:
        command = runs.command_for(runs.near(run), "evaluate.py", "run")
        print(f"  next    {command}\n          (scores it and makes a report, with this grid)")
