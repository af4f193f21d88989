"""Agreement of two partitions or two sets of scores of the same, or of matched, features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from mmmono.core.finite import check_finite, double
from mmmono.core.streams import Stream
from mmmono.modality.partition import Partition


def adjusted_rand_index(first: Partition, second: Partition) -> float:
    """Adjusted Rand index of two partitions over the features that are live in both.

    1 for equal partitions, 0 in expectation for random ones, NaN if no feature is live in both.
    """
    a, b = np.array(first.class_of()), np.array(second.class_of())
    live = (a != "dead") & (b != "dead")
    return float(adjusted_rand_score(a[live], b[live])) if live.any() else float("nan")


def rank_correlation(first: Float[Tensor, " features"], second: Float[Tensor, " features"]) -> float:
    """Spearman's ρ over features without NaN in either; NaN if there are fewer than two or a side is constant."""
    known = ~(first.isnan() | second.isnan()).detach()
    a, b = double(first)[known].cpu().numpy(), double(second)[known].cpu().numpy()
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def feature_correlations(
    blocks: Iterable[tuple[Float[Tensor, "samples features_a"], Float[Tensor, "samples features_b"]]],
) -> Float64[Tensor, "features_a features_b"]:
    """Pearson correlations between the features of two feature sets on the same samples; 0 for constant features.

    Args:
        blocks: activations of both feature sets, row by row on the same samples.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there are no samples.
    """
    stream = CorrelationStream()
    for a, b in blocks:
        stream.add(a, b)
    return stream.result()


class CorrelationStream(Stream[[Tensor, Tensor], Tensor]):
    """Running correlations, for callers that compute several things in one pass; see `feature_correlations`.

    Sums are of deviations from the first sample, which stay accurate if means are large relative to deviations.
    """

    def __init__(self) -> None:
        self._count = 0
        self._origin: list[Tensor] = []  # of both sets, float64 [features]: the first sample
        self._sums: list[Tensor]  # of both sets: Σ deviations
        self._squares: list[Tensor]  # of both sets: Σ deviations²
        self._product: Tensor  # [features_a, features_b]: Σ deviation of a · deviation of b

    def add(self, a: Float[Tensor, "samples features_a"], b: Float[Tensor, "samples features_b"]) -> None:
        """Add a block of activations of both sets. Raises NonFiniteError if one is NaN or infinite."""
        if not len(a):
            return
        self._start([double(side[0]) for side in (a, b)])
        check_finite(a, "first set's sample", self._count)
        check_finite(b, "second set's sample", self._count)
        deviations = [double(side) - origin for side, origin in zip((a, b), self._origin, strict=True)]
        for total, square, deviation in zip(self._sums, self._squares, deviations, strict=True):
            total += deviation.sum(0)
            square += deviation.square().sum(0)
        self._product += deviations[0].T @ deviations[1]
        self._count += len(a)

    def merge(self, other: Self) -> None:
        """Add the samples of another stream; see `Stream.merge`."""
        if not other._count:
            return
        self._start(other._origin)
        device = self._product.device
        theirs = [total.to(device) for total in other._sums]
        # What their deviations lack to be deviations from this stream's first sample.
        moved = [new.to(device) - old for new, old in zip(other._origin, self._origin, strict=True)]
        for i, square in enumerate(other._squares):
            self._sums[i] += theirs[i] + other._count * moved[i]
            self._squares[i] += square.to(device) + moved[i] * (2 * theirs[i] + other._count * moved[i])
        self._product += other._product.to(device) + torch.outer(theirs[0], moved[1])
        self._product += torch.outer(moved[0], theirs[1] + other._count * moved[1])
        self._count += other._count

    def _start(self, origin: list[Tensor]) -> None:
        if not self._origin:
            self._origin = origin
            self._sums, self._squares = ([torch.zeros_like(side) for side in origin] for _ in range(2))
            self._product = torch.zeros_like(torch.outer(*origin))

    def result(self) -> Float64[Tensor, "features_a features_b"]:
        """Return the correlations over all samples added so far. Raises ValueError if there are none."""
        if not self._count:
            raise ValueError("no activations to match features by")
        means = [total / self._count for total in self._sums]
        variances = [s / self._count - mean.square() for s, mean in zip(self._squares, means, strict=True)]
        # A variance this small relative to the mean square is rounding error of a constant feature.
        known = [v > 1e-14 * s / self._count for v, s in zip(variances, self._squares, strict=True)]
        a, b = (v.clamp_min(0).sqrt() for v in variances)
        correlation = (self._product / self._count - torch.outer(*means)) / torch.outer(a, b)
        return torch.where(torch.outer(*known), correlation.clamp(-1, 1), 0.0).cpu()


def match_features(
    blocks: Iterable[tuple[Float[Tensor, "samples features_a"], Float[Tensor, "samples features_b"]]],
) -> tuple[Int64[Tensor, " features_a"], Float64[Tensor, " features_a"]]:
    """Match the features of two feature sets one to one by the correlation of their activations.

    Dictionaries trained with different seeds order their features differently. The assignment maximizes the sum of
    correlations (Hungarian algorithm).

    Args:
        blocks: activations of both sets, row by row on the same samples; both have the same number of features.

    Returns:
        For each feature of the first set, the index of its match in the second set, and their correlation. Constant
        features, including silent ones, have correlation 0.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there are no samples.
    """
    correlation = feature_correlations(blocks)
    rows, columns = linear_sum_assignment(correlation.numpy(), maximize=True)
    return torch.from_numpy(columns), correlation[rows, columns]


def reordered(partition: Partition, order: Int64[Tensor, " features"]) -> Partition:
    """Renumber the features of a partition: feature i of the result is feature `order[i]` of the argument."""
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order))
    return Partition(
        *(position[members].sort().values for members in (
            partition.image_dominant, partition.text_dominant, partition.cross_modal, partition.dead
        ))
    )  # fmt: skip
