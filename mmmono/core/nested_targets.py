"""Numba kernel of the nested levels of a sparse dictionary's loss (`mmmono.dictionaries.fused`). Compiled on first use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _sum_of_squares(row: Array) -> np.float32:
    total = np.float32(0)
    for j in range(len(row)):
        total += row[j] * row[j]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _subtract(before: Array, atoms: Array, values: Array, indices: Array, after: Array) -> None:
    """Set `after` to `before` minus the weighted sum of some rows of `atoms`."""
    for j in range(len(after)):
        after[j] = np.float32(0)
    for value, index in zip(values, indices):  # noqa: B905 - numba knows no strict zip
        atom = atoms[index]
        for j in range(len(after)):
            after[j] += value * atom[j]
    for j in range(len(after)):
        after[j] = before[j] - after[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def nested_targets(
    centered: Array, atoms: Array, codes: tuple[Array, Array, Array], weights: Array, targets: Array, last: Array
) -> float:
    """Residuals of nested levels of a sparse dictionary, summed from each level to the last; all float32.

    The residual of level l is c minus the reconstruction from the codes of levels up to l. The target of level l is the
    sum of weight_i · residual_i over i ≥ l. Both are computed while a sample's levels lie in the fastest cache.

    Args:
        centered: samples c, [samples, dim].
        atoms: rows that codes weight, [latents, dim].
        codes: values and latents of the active entries, level by level of sample by sample, and where the entries of each
            level of each sample start, [samples * levels + 1].
        weights: of the levels.
        targets: receives the targets, [samples * levels, dim].
        last: receives the residuals of the last level, [samples, dim].

    Returns:
        Sum over samples and levels of weight_l · ‖residual_l‖².
    """
    values, indices, starts = codes
    levels, error = len(weights), 0.0
    for i in range(len(centered)):
        before = centered[i]
        for row in range(i * levels, (i + 1) * levels):
            entries = slice(starts[row], starts[row + 1])
            _subtract(before, atoms, values[entries], indices[entries], targets[row])
            before = targets[row]
            error += weights[row - i * levels] * _sum_of_squares(before)
        last[i] = before
        for j in range(len(before)):
            before[j] *= weights[levels - 1]
        for level in range(levels - 2, -1, -1):
            weight, target = weights[level], targets[i * levels + level]
            for j in range(len(target)):
                target[j] = before[j] + weight * target[j]
            before = target
    return error
