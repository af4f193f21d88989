"""Agreement of two partitions or two sets of scores of the same, or of matched, features."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from mmmono.core.finite import check_finite, double
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
    sums: _Moments | None = None
    for a, b in blocks:
        if not len(a):
            continue
        sums = sums or _Moments(a[0], b[0])
        sums.add(a, b)
    if sums is None:
        raise ValueError("no activations to match features by")
    return sums.correlation().cpu()


class _Moments:
    """Sums of deviations from the first sample, which stay accurate if means are large relative to deviations."""

    def __init__(self, first_a: Tensor, first_b: Tensor) -> None:
        self.origin = double(first_a), double(first_b)
        self.count = 0
        self.sums, self.squares = ([torch.zeros_like(origin) for origin in self.origin] for _ in range(2))
        self.product = torch.zeros_like(torch.outer(*self.origin))

    def add(self, a: Tensor, b: Tensor) -> None:
        check_finite(a, "first set's sample", self.count)
        check_finite(b, "second set's sample", self.count)
        deviations = [double(side) - origin for side, origin in zip((a, b), self.origin, strict=True)]
        for total, square, deviation in zip(self.sums, self.squares, deviations, strict=True):
            total += deviation.sum(0)
            square += deviation.square().sum(0)
        self.product += deviations[0].T @ deviations[1]
        self.count += len(a)

    def correlation(self) -> Float64[Tensor, "features_a features_b"]:
        means = [total / self.count for total in self.sums]
        variances = [s / self.count - mean.square() for s, mean in zip(self.squares, means, strict=True)]
        # A variance this small relative to the mean square is rounding error of a constant feature.
        known = [v > 1e-14 * s / self.count for v, s in zip(variances, self.squares, strict=True)]
        a, b = (v.clamp_min(0).sqrt() for v in variances)
        correlation = (self.product / self.count - torch.outer(*means)) / torch.outer(a, b)
        return torch.where(torch.outer(*known), correlation.clamp(-1, 1), 0.0)


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
