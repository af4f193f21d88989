"""Nearest neighbors of features, by their directions in the embedding space or by their activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, double, single, unit_rows

CHUNK_FEATURES = 1024  # features compared with all others at a time; avoids a [features, features] matrix


@dataclass(frozen=True)
class Neighbors:
    """Nearest neighbors of each feature.

    Attributes:
        features: indices of the neighbors in descending order of cosine, padded with −1.
        cosines: their cosines, padded with 0.
    """

    features: Int64[Tensor, "features count"]
    cosines: Float[Tensor, "features count"]


def nearest_features(directions: Float[Tensor, "features dim"], count: int) -> Neighbors:
    """Find the `count` features with the largest positive cosine to each feature.

    With decoder atoms as vectors, neighbors write similar directions. With centered activations (one column per
    sample), cosines are Pearson correlations, and neighbors are active on the same samples.

    Args:
        directions: vector of each feature; all-zero vectors have no neighbors.
        count: neighbors per feature, not counting the feature itself.

    Raises:
        NonFiniteError: a direction is NaN or infinite.
        ValueError: `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"count={count} neighbors: give at least 1")
    check_finite(directions, "feature", column="dimension")
    unit = unit_rows(directions).float()
    size = len(unit)
    features = torch.full((size, count), -1)
    cosines = torch.zeros(size, count)
    kept = min(count, size - 1)
    for start in range(0, size if kept else 0, CHUNK_FEATURES):
        similarity = unit[start : start + CHUNK_FEATURES] @ unit.T
        similarity[torch.arange(len(similarity)), torch.arange(start, start + len(similarity))] = -torch.inf
        best, index = similarity.topk(kept, dim=1)
        found = best > 0
        rows = slice(start, start + len(similarity))
        features[rows, :kept] = torch.where(found, index, -1).cpu()
        cosines[rows, :kept] = torch.where(found, best.clamp_max(1), 0.0).cpu()
    return Neighbors(features, cosines)


def centered_activations(
    image: Float[Tensor, "pairs features"], text: Float[Tensor, "pairs features"]
) -> Float[Tensor, "features samples"]:
    """Activations of each feature on all samples as one vector, centered within each modality.

    Centered over both modalities together, features would be similar just because they prefer the same modality.
    """
    return torch.cat([_centered(image), _centered(text)]).T


def _centered(activations: Tensor) -> Tensor:
    """Subtract the mean of each feature, computed in float64; constant features become exactly 0."""
    deviation = double(activations)
    deviation = deviation - deviation[:1]
    return (deviation - deviation.mean(0)).to(single(activations).dtype)
