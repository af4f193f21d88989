"""Which features are active on the same samples, beyond how often each is active."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from scipy.sparse import csr_array, issparse
from torch import Tensor

from mmmono.core.finite import check_tensor
from mmmono.core.ranges import check_whole
from mmmono.interpretability.neighbors import CHUNK_FEATURES, Neighbors, strongest

SPARSE = 0.1  # share of active entries below which counting them one by one is quicker than a matrix product
SHIFT = 2.0**24  # counts in float32 are exact below it


def co_firing(image: Bool[Tensor, "images features"], text: Bool[Tensor, "texts features"], count: int) -> Neighbors:
    """Find the `count` features that each feature is most often active together with, by the φ coefficient.

    φ is Pearson's correlation of two yes-or-no variables. Here each modality is centered by itself: two features that are
    active on images alone would else go together just for that. It is 1 for features that are always active together,
    and about 0 for features that are active independently, however often.

    Args:
        image: whether each image activates each feature.
        text: the same for texts; the features are the same, the samples need not be pairs.
        count: number of features for each.

    Returns:
        Features with a positive φ, in descending order, and their φ; a feature that is active on all samples of each
        modality, or on none, has none.

    Raises:
        TypeError: a side is no tensor.
        ValueError: `count` is not positive, a side is no matrix of yes and no, or both have different features.
    """
    check_whole("count", count)
    for side, name in ((image, "image"), (text, "text")):
        check_tensor(side, name)
        if side.ndim != 2 or side.dtype != torch.bool:
            raise ValueError(
                f"{name}: yes or no by [samples, features] expected, got {side.dtype} {tuple(side.shape)}: give "
                "activations > 0"
            )
    if image.shape[1] != text.shape[1]:
        raise ValueError(f"{image.shape[1]} features on images but {text.shape[1]} on texts: give the same features")
    sides = [side for side in (image, text) if len(side)]
    size = image.shape[1]
    features = torch.full((size, count), -1)
    phi = torch.zeros(size, count)
    kept = min(count, size - 1)
    counted = [_Counted(side) for side in sides]
    scatter = np.sqrt(sum(side.scatter for side in counted) if counted else np.zeros(size))
    scale = np.divide(1, scatter, out=np.zeros(size), where=scatter > 0)
    for start in range(0, size if kept and counted else 0, CHUNK_FEATURES):
        rows = slice(start, min(start + CHUNK_FEATURES, size))
        met = [side.met(rows) for side in counted]
        if all(issparse(of) and of.nnz < SPARSE * np.prod(of.shape) for of in met):
            features[rows], phi[rows] = _strongest_of_few(counted, met, start, scale, count)
            continue
        together = sum(side.beyond_chance(of, rows) for side, of in zip(counted, met, strict=True))
        together = together * scale[rows, None] * scale
        together[np.arange(len(together)), np.arange(rows.start, rows.stop)] = -np.inf
        features[rows, :kept], phi[rows, :kept] = strongest(torch.from_numpy(together).float(), kept)
    return Neighbors(features, phi)


def _strongest_of_few(
    counted: Sequence[_Counted], met: Sequence[Any], start: int, scale: np.ndarray, count: int
) -> tuple[Tensor, Tensor]:
    """The same for features from `start` on, from those that any sample activates both of: φ of others is not positive."""
    # Both counts in one number, below 2⁴⁸ and so exact: the sum has the pairs that either modality has.
    joined = sum(of.astype(np.float64) * SHIFT**place for place, of in enumerate(met)).tocoo()
    mine, other = joined.row + start, joined.col
    together: np.ndarray = np.zeros(len(mine))
    for place, side in enumerate(counted):
        together = together + side.beyond(joined.data // SHIFT**place % SHIFT, mine, other)
    together = (together * scale[mine] * scale[other]).astype(np.float32)
    found = (together > 0) & (mine != other)
    mine, other, together = joined.row[found], other[found], together[found]
    order = np.lexsort((other, -together, mine))
    mine, other, together = mine[order], other[order], together[order]
    rank = np.arange(len(mine)) - np.searchsorted(mine, mine)
    best = rank < count
    features, phi = torch.full((joined.shape[0], count), -1), torch.zeros(joined.shape[0], count)
    places = torch.from_numpy(mine[best].astype(np.int64)), torch.from_numpy(rank[best])
    features[places] = torch.from_numpy(other[best].astype(np.int64))
    phi[places] = torch.from_numpy(together[best]).clamp_max(1)
    return features, phi


class _Counted:
    """How often features of one modality are active, alone and together."""

    def __init__(self, active: Tensor) -> None:
        values = active.cpu().numpy()
        self._samples = len(values)
        self._count = values.sum(0, dtype=np.float64)
        self._active = csr_array(values, dtype=np.float32) if values.mean() < SPARSE else values.astype(np.float32)

    @property
    def scatter(self) -> np.ndarray:
        """Σ (active − share of active)² of each feature."""
        spread: np.ndarray = self._count * (1 - self._count / self._samples)
        return spread

    def met(self, rows: slice) -> Any:
        """Number of samples that activate two features, as an array, or as a matrix of what is not 0."""
        return self._active[:, rows].T @ self._active

    def beyond_chance(self, met: Any, rows: slice) -> np.ndarray:
        """Number of samples that activate two features, minus the number to expect of unrelated ones."""
        together: np.ndarray = met if isinstance(met, np.ndarray) else met.toarray()
        beyond: np.ndarray = together.astype(np.float64) - np.outer(self._count[rows], self._count / self._samples)
        return beyond

    def beyond(self, together: np.ndarray, mine: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Number of samples that activate both of two features, minus the number to expect, pair by pair."""
        found: np.ndarray = together - self._count[mine] * (self._count / self._samples)[other]
        return found
