"""What is made of a whole sweep, when its last job has ended."""

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf


class PCAComparison(Callback):
    """Draws test error against code size, of a sweep's autoencoders and of PCA, into the sweep's folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from autoencoders import figures  # matplotlib and torch: only when there is something to draw

        folder = Path(config.hydra.sweep.dir)
        sizes, model, pca = [], [], []
        runs = {OmegaConf.load(path).model.code_dim: path.parent for path in folder.glob("*/config.yaml")}
        for code_dim, run in sorted(runs.items()):
            scores = json.loads((run / "evaluation" / "metrics.json").read_text())
            sizes.append(code_dim)
            model.append(scores["model"]["mse"])
            pca.append(scores[f"PCA {code_dim}"]["mse"])
        for row in zip(["numbers", *sizes], ["autoencoder", *model], ["PCA", *pca], strict=True):
            print("".join(f"{cell:>12.5g}" if isinstance(cell, float) else f"{cell:>12}" for cell in row))
        figure = figures.curves(
            {"PCA": (sizes, pca), "autoencoder": (sizes, model)},
            x="numbers in the code",
            y="test MSE",
            title="autoencoder against PCA",
        )
        path = folder / "pca_comparison.png"
        figures.save(figure, path)
        print(f"\n  figure  {path}")
