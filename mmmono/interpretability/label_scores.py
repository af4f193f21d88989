"""Do features agree with labels of the samples? Average precision of every feature for every label, and purity@k."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

Array = np.ndarray[Any, Any]
CHUNK_FEATURES = 128  # ranked at a time; limits the memory


def average_precision(
    values: Float[Tensor, "samples features"], members: Bool[Tensor, "samples labels"]
) -> Float64[Tensor, "features labels"]:
    """Average precision of each feature as a detector of each label: Σ (R_n − R_{n−1}) P_n over the distinct thresholds n.

    Samples with equal activations are found together, so that the many zeros of a sparse feature have no order. A feature
    that is the same for all samples scores the share of them that have the label; one that orders them at random scores
    `chance_precision`. NaN for labels without a sample.

    Args:
        values: activations; larger ones come first.
        members: which samples have which labels.
    """
    found = torch.full((values.shape[1], members.shape[1]), torch.nan, dtype=torch.float64)
    having = [(label, mask.nonzero().squeeze(1)) for label, mask in enumerate(members.T) if bool(mask.any())]
    for start in range(0, values.shape[1], CHUNK_FEATURES):
        part = values[:, start : start + CHUNK_FEATURES].T.contiguous()
        falling = part.sort(dim=1, descending=True).values.neg_()
        # Rank of each sample, from 1 on: of those that are as active, the last one.
        rank = torch.searchsorted(falling, -part, right=True)
        for label, samples in having:  # only samples with the label count: ranks of all others are not looked at
            mine = rank[:, samples].sort(dim=1).values
            hits = torch.searchsorted(mine, mine, right=True)
            found[start : start + CHUNK_FEATURES, label] = (hits.double() / mine).mean(1)
    return found


def chance_precision(members: int, samples: int) -> float:
    """Expected average precision of a feature that orders all samples at random, none of them equal.

    Each member has precision (1 + (r − 1) (k − 1) / (n − 1)) / r at its rank r, which is uniform on 1, …, n: the mean is
    (k − 1 + H_n (n − k) / n) / (n − 1), with H_n = 1 + ½ + … + 1 / n (Bestgen 2015). It is more than k / n.

    Args:
        members: number k of samples with the label, at least 1.
        samples: number n of all samples.
    """
    if members == samples:
        return 1.0
    harmonic = float((1 / np.arange(1, samples + 1)).sum())
    return (members - 1 + harmonic * (samples - members) / samples) / (samples - 1)


@dataclass(frozen=True)
class Purity:
    """What the most activating samples of each feature have in common.

    Attributes:
        share: of the k most activating samples, the share that has the commonest label among them; NaN for features with
            fewer than k samples above 0.
        label: that label, as an index; −1 where there is none.
    """

    share: Float64[Tensor, " features"]
    label: Int64[Tensor, " features"]


def purity(values: Float[Tensor, "samples features"], labels: Int[Array, " samples"], k: int) -> Purity:
    """Measure purity@k of every feature.

    Args:
        values: activations.
        labels: label of each sample, as numbers from 0 on.
        k: number of samples.
    """
    strength, rows = values.topk(min(k, len(values)), dim=0)
    enough = (strength > 0).all(0) & (len(values) >= k)
    counts = torch.zeros(int(labels.max()) + 1, values.shape[1], dtype=torch.float64)
    found = torch.from_numpy(np.asarray(labels, np.int64))[rows]
    counts.scatter_add_(0, found, torch.ones_like(found, dtype=torch.float64))
    most, label = counts.max(0)
    return Purity(torch.where(enough, most / k, torch.nan), torch.where(enough, label, -1))


def chance_purity(labels: Int[Array, " samples"], k: int, rng: np.random.Generator, draws: int = 200) -> float:
    """Mean purity of k random samples; it is above the share of the commonest label, since the best of all labels counts."""
    size = min(k, len(labels))
    shares = [np.bincount(rng.choice(labels, size, replace=False)).max() / size for _ in range(draws)]
    return float(np.mean(shares))
