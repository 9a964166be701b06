"""An autoencoder laboratory: one image from disk to loss, and every variant a few lines.

import autoencoders
run = autoencoders.load("runs/denoising/2026-01-31_12-00-00")
codes, images = run.encode(x), run.reconstruct(x)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoencoders.trained import TrainedRun, load

__all__ = ["TrainedRun", "load"]


def __getattr__(name: str) -> Any:
    """torch and lightning take seconds to import: not before they are needed."""
    if name in __all__:
        from autoencoders import trained

        return getattr(trained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
