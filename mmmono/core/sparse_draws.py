"""Sums of sparse ratios with random signs and weights, by a compiled loop over what is not 0. Compiled on first use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]
TILE = 2048  # draws whose sums for a feature lie in the fastest cache


@njit(cache=True, nogil=True, error_model="numpy")
def add_drawn(starts: Array, groups: Array, values: Array, draws: Array, sums: Array) -> None:
    """Add Σ value · draw over groups to the sums of some features.

    Args:
        starts: where the values of each feature begin in `groups` and `values`, and the last one's end.
        groups, values: group and value of what is not 0, feature after feature.
        draws: int8 [groups, draws].
        sums: float64 [features, draws].
    """
    for first in range(0, draws.shape[1], TILE):
        end = min(first + TILE, draws.shape[1])
        for feature in range(len(starts) - 1):
            total = sums[feature, first:end]
            for i in range(starts[feature], starts[feature + 1]):
                value, drawn = values[i], draws[groups[i], first:end]
                for j in range(end - first):
                    total[j] += value * drawn[j]
