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
    known = ~(first.isnan() | second.isnan())
    a, b = first[known].numpy(), second[known].numpy()
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def feature_correlations(
    blocks: Iterable[tuple[Float[Tensor, "samples features_a"], Float[Tensor, "samples features_b"]]],
) -> Float64[Tensor, "features_a features_b"]:
    """Pearson correlations between the features of two sets on the same samples; 0 with silent features.

    Raises:
        ValueError: there is no block.
    """
    count, moments = 0, None
    for a, b in blocks:
        a, b = a.double(), b.double()
        block = [a.sum(0), b.sum(0), a.square().sum(0), b.square().sum(0), a.T @ b]
        moments = block if moments is None else [old + new for old, new in zip(moments, block, strict=True)]
        count += len(a)
    if moments is None:
        raise ValueError("no activations to match features by")
    sum_a, sum_b, square_a, square_b, product = (moment / count for moment in moments)
    deviation = torch.outer(
        (square_a - sum_a.square()).clamp_min(0).sqrt(), (square_b - sum_b.square()).clamp_min(0).sqrt()
    )
    correlation = torch.where(deviation > 0, (product - torch.outer(sum_a, sum_b)) / deviation, 0.0).cpu()
    return correlation


def match_features(
    blocks: Iterable[tuple[Float[Tensor, "samples features_a"], Float[Tensor, "samples features_b"]]],
) -> tuple[Int64[Tensor, " features_a"], Float64[Tensor, " features_a"]]:
    """For each feature of one set its partner in another, one to one, by the correlation of their activations.

    Two dictionaries from different seeds order their features differently; the assignment maximizes the sum of
    correlations (Hungarian algorithm).

    Args:
        blocks: activations of both sets on the same samples; both have equally many features.

    Returns:
        Partners, and the correlations with them; silent features correlate with nothing.

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
