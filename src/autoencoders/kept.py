"""What of x̃ a model keeps, as it is known: pixels that were seen, the lightness of a gray image."""

from typing import Any

import torch
from torch import Tensor

from autoencoders.corruption import Identity, Masking, Patches


def with_known(corrupted: Tensor, restored: Tensor) -> Tensor:
    """x̃ (B, C, H, W) where it was seen, and the restored image where a channel of x̃ is outside of [0, 1],
    which tells that it was hidden."""
    hidden = ((corrupted < 0) | (corrupted > 1)).any(1, keepdim=True)
    return torch.where(hidden, restored, corrupted)


def check_known(data: Any) -> None:
    """Raises ValueError for data of which hidden pixels can't be told from others, or are the target."""
    if (supervision := getattr(data, "supervision", "clean")) != "clean":
        raise ValueError(
            f"model.keep_known=true needs clean images, and data.supervision={supervision} has none"
        )
    corruption = getattr(data, "corruption", None)
    if not isinstance(corruption, Masking | Patches):
        raise ValueError(
            f"model.keep_known=true keeps pixels that were not hidden, and {type(corruption).__name__} hides "
            "none: use corruption=masking or corruption=patches"
        )
    if 0 <= corruption.fill <= 1:
        raise ValueError(
            f"model.keep_known=true can't tell a hidden pixel from one that is {corruption.fill:g}: "
            "use corruption.fill=-1"
        )


def check_lightness(data: Any, keeps: str = "model.keep_lightness=true") -> None:
    """Raises ValueError for data whose gray images don't tell the lightness."""
    corruption = getattr(data, "corruption", Identity())
    if not isinstance(corruption, Identity):
        raise ValueError(
            f"{keeps} would keep what {type(corruption).__name__} does to the gray image: use corruption=none"
            + (", or model.keep_lightness=false" if "keep_lightness" in keeps else "")
        )
