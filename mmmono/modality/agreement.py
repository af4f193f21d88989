"""Agreement between two partitions, or two sets of scores, of the same or of matched features."""

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
    """Agreement of two partitions over features that are live in both: 1 for equal ones, 0 in expectation for random.

    NaN where no feature is live in both.
    """
    a, b = np.array(first.class_of()), np.array(second.class_of())
    live = (a != "dead") & (b != "dead")
    return float(adjusted_rand_score(a[live], b[live])) if live.any() else float("nan")


def rank_correlation(first: Float[Tensor, " features"], second: Float[Tensor, " features"]) -> float:
    """Spearman's ρ over features that both score; NaN where there are fewer than two, or all are equal."""
    known = ~(first.isnan() | second.isnan()).detach()
    a, b = double(first)[known].cpu().numpy(), double(second)[known].cpu().numpy()
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def feature_correlations(
    blocks: Iterable[tuple[Float[Tensor, "samples features_a"], Float[Tensor, "samples features_b"]]],
) -> Float64[Tensor, "features_a features_b"]:
    """Pearson correlations between the features of two sets on the same samples; 0 with features that are constant.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there is no block.
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
    """Sums of deviations from the first sample, which keep their digits where means are large beside deviations."""

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
        # What rounding leaves of the variance of a feature that is constant but for its first sample's deviation.
        known = [v > 1e-14 * s / self.count for v, s in zip(variances, self.squares, strict=True)]
        a, b = (v.clamp_min(0).sqrt() for v in variances)
        correlation = (self.product / self.count - torch.outer(*means)) / torch.outer(a, b)
        return torch.where(torch.outer(*known), correlation.clamp(-1, 1), 0.0)


def match_features(
    blocks: Iterable[tuple[Float[Tensor, "samples features_a"], Float[Tensor, "samples features_b"]]],
) -> tuple[Int64[Tensor, " features_a"], Float64[Tensor, " features_a"]]:
    """For each feature of one set its partner in another, one to one, by the correlation of their activations.

    Two dictionaries from different seeds order their features differently; the assignment maximizes the sum of
    correlations (Hungarian algorithm).

    Args:
        blocks: activations of both sets on the same samples; both have equally many features.

    Returns:
        Partners, and the correlations with them; constant features, silent ones among them, correlate with nothing.

    Raises:
        ValueError: there is no block.
    """
    correlation = feature_correlations(blocks)
    rows, columns = linear_sum_assignment(correlation.numpy(), maximize=True)
    return torch.from_numpy(columns), correlation[rows, columns]


def reordered(partition: Partition, order: Int64[Tensor, " features"]) -> Partition:
    """The partition of features renamed: feature i of the result is feature `order[i]` of the argument."""
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order))
    return Partition(
        *(position[members].sort().values for members in (
            partition.image_dominant, partition.text_dominant, partition.cross_modal, partition.dead
        ))
    )  # fmt: skip
