"""Compare scores and classes before and after a change of the activations, such as scaling one modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mmmono.core.finite import check_finite, double
from mmmono.core.streams import Stream
from mmmono.features.rows import check_pairs
from mmmono.modality.agreement import adjusted_rand_index, rank_correlation
from mmmono.modality.groups import group_codes
from mmmono.modality.partition import CLASSES, LIVE_CLASSES
from mmmono.modality.report import FeatureSetDominance


@dataclass(frozen=True)
class Agreement:
    """Agreement of scores and classes of the same features before and after a change.

    Attributes:
        rho: rank correlation of the scores (Spearman).
        same: share of the features, live in both, that have the same class in both.
        same_by_chance: that share in expectation if the classes, of the same sizes, were independent.
        ari: adjusted Rand index of the classes.
        ImgD_kept, TextD_kept: how many features that were ImgD, or TextD, still are.
    """

    rho: float
    same: float
    same_by_chance: float
    ari: float
    ImgD_kept: int
    TextD_kept: int


def score_agreement(before: FeatureSetDominance, after: FeatureSetDominance) -> Agreement:
    """Compare scores and classes of the same features before and after a change.

    Raises:
        ValueError: the numbers of features differ.
    """
    if len(before.partition) != len(after.partition):
        raise ValueError(f"{len(before.partition)} features cannot be compared with {len(after.partition)}")
    old, new = (np.array(one.partition.class_of()) for one in (before, after))
    live = (old != "dead") & (new != "dead")
    shares = [[(side[live] == name).mean() if live.any() else np.nan for name in CLASSES] for side in (old, new)]
    return Agreement(
        rho=rank_correlation(
            *(torch.where(torch.from_numpy(live), one.scores.scores, torch.nan) for one in (before, after))
        ),
        same=float((old == new)[live].mean()) if live.any() else float("nan"),
        same_by_chance=float(np.prod(shares, axis=0).sum()),
        ari=adjusted_rand_index(before.partition, after.partition),
        **{f"{name}_kept": int(((old == name) & (new == name)).sum()) for name in LIVE_CLASSES if name != "CrossD"},
    )


class MeanStream(Stream[[Tensor, Tensor], Tensor]):
    """Running mean activations of both modalities."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # float64 [2, features]
        self._pairs = 0

    def add(self, image: Float[Tensor, "pairs features"], text: Float[Tensor, "pairs features"]) -> None:
        """Add a block of activations. Raises NonFiniteError if one is NaN or infinite, ValueError if shapes differ."""
        check_pairs(image, text, None if self._sums is None else self._sums.shape[1])
        check_finite(image, "image", self._pairs)
        check_finite(text, "text", self._pairs)
        sums = torch.stack([double(side).sum(0) for side in (image, text)])
        self._sums = sums if self._sums is None else self._sums + sums
        self._pairs += len(image)

    def merge(self, other: Self) -> None:
        """Add the pairs of another stream; see `Stream.merge`."""
        if other._sums is not None:
            mine = self._sums
            self._sums = other._sums if mine is None else mine + other._sums.to(mine.device)
            self._pairs += other._pairs

    def result(self) -> Float64[Tensor, "2 features"]:
        """Return the means, images in row 0 and texts in row 1, on the CPU. Raises ValueError if there are no pairs."""
        if self._sums is None or not self._pairs:
            raise ValueError("no activations to average")
        return (self._sums / self._pairs).cpu()


def can_be_broken(groups: np.ndarray[Any, Any]) -> bool:
    """Whether every image can get a text of another group: no group has more than half of the pairs."""
    return not len(groups) or 2 * int(np.unique(groups, return_counts=True)[1].max()) <= len(groups)


def other_partners(groups: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draw for each image the position of a text of another group: broken pairs, in which every text occurs once.

    Groups are put into a random order and every image gets the text that lies as many places further as the largest group
    has pairs. So groups stay together: pairs of one group get texts of few others.

    Args:
        groups: group of each pair, as `FeatureView.groups` returns it.
        seed: seed of the order.

    Raises:
        ValueError: a group has more than half of the pairs, or groups are no whole numbers from 0 on.
    """
    groups = group_codes(groups)
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if not can_be_broken(groups):
        raise ValueError(f"one group has {sizes.max()} of {len(groups)} pairs: there are too few texts of other groups")
    order = np.argsort(np.random.default_rng(seed).permutation(len(sizes))[codes], kind="stable")
    partners = np.empty(len(groups), dtype=np.int64)
    partners[order] = np.roll(order, -int(sizes.max()) if len(groups) else 0)
    return partners
