"""Trains every row of the README's results table, several seeds each, and writes the table into it.

python -m autoencoders.results [row ...]: each run is `python train.py ...` in a process of its own, timed
from its start to its end. What was measured is kept in runs/results.json, so rows can be made one by one.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

from autoencoders.config import REPOSITORY
from autoencoders.files import write_json, written_whole

SEEDS = (0, 1, 2)
# name: (overrides, what it is, the lecture's test MSE). The lecture's notebooks (R. Atienza, University of
# the Philippines, 2022) train with batch 64, Adam and a cosine over 30 epochs, choosing on the test split.
ROWS: dict[str, tuple[str, str, str]] = {
    "code2": ("experiment=latent_space", "autoencoder, MNIST, code of 2", "0.0392"),
    "code16": ("model=autoencoder", "autoencoder, MNIST, code of 16", "0.00744"),
    "denoising": ("model=denoising", "denoising N(0.5, 0.5²) clipped, MNIST, code of 16", "0.0161"),
    "colorization": ("experiment=colorization", "colorization, CIFAR-10, code of 256", "0.00777"),
    "linear": ("model=linear", "linear, MNIST, code of 16", ""),
}
START, END = "<!-- results: made by `make results` -->", "<!-- end of results -->"


def run(row: str, seed: int, folder: Path) -> dict[str, float]:
    """One training run and its evaluation, in processes of their own; seconds are of the training's."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "train.py", *ROWS[row][0].split(), f"seed={seed}", f"hydra.run.dir={folder}"]
    print(" ".join(command[1:]), flush=True)
    start = time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True)
    seconds = time.perf_counter() - start
    subprocess.run([sys.executable, "evaluate.py", f"run={folder}"], cwd=REPOSITORY, check=True)
    scores = json.loads((folder / "evaluation" / "metrics.json").read_text())["reconstruction"]
    (pca,) = (values["mse"] for name, values in scores.items() if name.startswith("PCA"))
    return {"test/mse": scores["model"]["mse"], "pca/mse": pca, "seconds": seconds}


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        "| | command | lecture | here, test MSE | PCA, as many numbers | whole process |",
        "|---|---|---|---|---|---|",
    ]
    for row, seeds in results.items():
        overrides, title, lecture = ROWS[row]
        errors = [result["test/mse"] for result in seeds.values()]
        spread = f" ± {stdev(errors):.5f}" if len(errors) > 1 else ""
        pca = mean(result["pca/mse"] for result in seeds.values())
        seconds = min(result["seconds"] for result in seeds.values())  # other work on a machine only adds
        lines.append(
            f"| {title} | `python train.py {overrides}` | {lecture} | **{mean(errors):.5f}**{spread} "
            f"| {pca:.5f} | {seconds:.0f} s |"
        )
    return "\n".join(lines)


def known(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """What was measured so far: row, seed, values."""
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", help=", ".join(ROWS), metavar="row")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="none: only write the table")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no row {', '.join(sorted(unknown))}: there are {', '.join(ROWS)}")
    path = REPOSITORY / "runs" / "results.json"
    for row in arguments.rows or ROWS:
        for seed in arguments.seeds:
            measured = run(row, seed, path.parent / "results" / f"{row}-{seed}")
            results = known(path)  # read now: another process may have added its own
            results.setdefault(row, {})[str(seed)] = measured
            write_json(path, results)
    results = known(path)
    made = table({row: results[row] for row in ROWS if row in results})
    readme = REPOSITORY / "README.md"
    before, _, rest = readme.read_text().partition(START)
    _, _, after = rest.partition(END)
    with written_whole(readme) as temporary:
        temporary.write_text(f"{before}{START}\n{made}\n{END}{after}")
    print(f"\n{made}")


if __name__ == "__main__":
    main()
