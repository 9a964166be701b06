"""A model of one size on a picture of any size: overlapping tiles, blended by smooth windows."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]  # tiles (N, C, h, w) to (N, C', h, w)


def blended(function: Function, images: Tensor, tile: tuple[int, int], overlap: float, batch: int) -> Tensor:
    """`function` over the tiles of images (B, C, H, W), put together to (B, C', H, W).

    Each axis has windows of its own, and a tile's weight is their product: tiles are first added up along a
    row, then row by row. An image that is smaller than a tile is continued as in a mirror, and cut again.

    Args:
        tile: (h, w).
        overlap: the least that neighbours share, as a part of a tile, 0..1.
        batch: tiles at a time.
    """
    size = images.shape[2:]
    images = images[:, :, mirrored(size[0], tile[0], images.device)]
    images = images[:, :, :, mirrored(size[1], tile[1], images.device)]
    count, _, height, width = images.shape
    tops, lefts = (starts(whole, part, overlap) for whole, part in ((height, tile[0]), (width, tile[1])))
    down, across = (weights(first, part).to(images) for first, part in ((tops, tile[0]), (lefts, tile[1])))
    columns = (lefts[:, None] + torch.arange(tile[1])).to(images.device)  # (n, w)
    canvas: Tensor | None = None
    for part in torch.arange(len(tops)).split(max(1, batch // (count * len(lefts)))):
        rows = (tops[part, None] + torch.arange(tile[0])).to(images.device)  # (k, h)
        tiles = images[:, :, rows][..., columns].permute(0, 2, 4, 1, 3, 5)  # (B, k, n, C, h, w)
        made = torch.cat([function(some).float() for some in tiles.flatten(0, 2).split(batch)])
        made = made.view(*tiles.shape[:3], *made.shape[1:]) * across[:, None, None]
        flat = made.permute(0, 1, 3, 4, 2, 5).flatten(4)  # (B, k, C', h, n w)
        strips = flat.new_zeros(*flat.shape[:4], width).index_add_(4, columns.flatten(), flat)
        strips *= down[part.to(down.device)][:, None, :, None]
        if canvas is None:
            canvas = strips.new_zeros(count, strips.shape[2], height, width)
        for place, strip in zip(tops[part].tolist(), strips.unbind(1), strict=True):
            canvas[:, :, place : place + tile[0]] += strip
    assert canvas is not None
    top, left = (max(0, part - whole) // 2 for whole, part in zip(size, tile, strict=True))
    return canvas[:, :, top : top + size[0], left : left + size[1]]


def starts(size: int, tile: int, overlap: float) -> Tensor:
    """Where the tiles begin along an axis (n,): evenly spread, from its start to its end."""
    stride = max(1, math.floor(tile * (1 - overlap)))
    count = math.ceil((size - tile) / stride) + 1
    return torch.linspace(0, size - tile, count, dtype=torch.float64).round().long()


def weights(first: Tensor, tile: int) -> Tensor:
    """How much each pixel of a tile counts along an axis (n, tile), float64: sin², made to add up to 1 at
    each pixel of the axis."""
    window = torch.sin(math.pi * (torch.arange(tile, dtype=torch.float64) + 0.5) / tile).square()
    places = first[:, None] + torch.arange(tile)
    repeated = window.expand(len(first), tile)
    total = window.new_zeros(int(places.max()) + 1).index_add_(0, places.flatten(), repeated.flatten())
    return repeated / total[places]


def mirrored(size: int, least: int, device: torch.device) -> Tensor:
    """Which pixel stands where along an axis of `size` that must have at least so many: 0..size−1 in the
    middle, and as in mirrors at the edges' pixels to both sides of it."""
    missing = max(0, least - size)
    period = max(1, 2 * size - 2)
    places = (torch.arange(size + missing, device=device) - missing // 2) % period
    return torch.minimum(places, period - places)
