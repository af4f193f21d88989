"""Images of any aspect ratio as SigLIP 2 takes them (NaFlex): a list of patches, and how many rows and columns they fill.

Tschannen et al., "SigLIP 2", 2025 (arXiv 2502.14786), Section 2.4.2. So that such an image goes through the same
pipeline as others, its patches lie side by side in one long uint8 image, and a last column of pixels says the grid.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

GRID = "spatial_shapes"  # name of rows and columns in what the image processor returns


def packed(made: Mapping[str, Tensor]) -> UInt8[Tensor, "3 side length"]:
    """Put the patches of one image side by side, and rows and columns of the grid into a last column of pixels.

    Args:
        made: what the image processor returns for one image: `pixel_values` `[1, patches, side * side * 3]`, values from
            0 to 255, and `spatial_shapes` `[1, 2]`.

    Returns:
        A strip as high as a patch.
    """
    patches = made["pixel_values"][0]
    side = round((patches.shape[1] / 3) ** 0.5)
    strip = patches.view(-1, side, side, 3).permute(3, 1, 0, 2).reshape(3, side, -1).to(torch.uint8)
    last = torch.zeros(3, side, 1, dtype=torch.uint8)
    for channel, number in enumerate(made[GRID][0].tolist()):
        last[channel, 0, 0], last[channel, 1, 0] = divmod(number, 256)
    return torch.cat([strip, last], dim=2)


def grid_of(strips: UInt8[Tensor, "batch 3 side length"]) -> Int[Tensor, "batch 2"]:
    """Return rows and columns of each image's grid of patches."""
    high, low = strips[:, :2, :2, -1].long().unbind(2)
    return 256 * high + low


def patches_of(
    strips: Float[Tensor, "batch 3 side length"], grid: Int[Tensor, "batch 2"]
) -> tuple[Float[Tensor, "batch patches values"], Int[Tensor, "batch patches"]]:
    """Return the patches of strips, as the image processor orders their values, and the mask of those in the grid.

    Args:
        strips: normalized, without their last column.
        grid: rows and columns of patches.
    """
    batch, _, side, length = strips.shape
    count = length // side
    values = strips.reshape(batch, 3, side, count, side).permute(0, 3, 2, 4, 1).reshape(batch, count, -1)
    mask = torch.arange(count, device=strips.device) < grid.prod(1, keepdim=True)
    return values * mask.unsqueeze(2), mask.long()
