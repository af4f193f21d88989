"""Whether two models share weights: one may be a copy of the other, stored in half precision."""

from __future__ import annotations

from torch import Tensor

SAME = 0.01  # largest relative difference of equal weights that are stored in different precision


def same_weights(own: Tensor, other: Tensor) -> bool:
    """Whether two weights have the same shape, and differ by at most 1 % of the norm of the second."""
    own, other = (weight.detach().float().cpu() for weight in (own, other))
    return own.shape == other.shape and bool((own - other).norm() <= SAME * other.norm())
