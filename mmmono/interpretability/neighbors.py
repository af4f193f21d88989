"""Which features are alike: by their directions in the embedding space, or by what activates them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, double, single, unit_rows

CHUNK_FEATURES = 1024  # features compared with all others at a time: no [features, features] matrix


@dataclass(frozen=True)
class Neighbors:
    """The features most like each feature.

    Attributes:
        features: in descending order of cosine; −1 where there is none.
        cosines: 0 where there is none.
    """

    features: Int64[Tensor, "features count"]
    cosines: Float[Tensor, "features count"]


def nearest_features(directions: Float[Tensor, "features dim"], count: int) -> Neighbors:
    """The `count` features with the largest positive cosine between their vectors.

    With atoms of a decoder as vectors, these are features that write the same direction. With centered activations, one
    column a sample, cosines are Pearson correlations, and these are features that the same samples activate.

    Args:
        directions: a vector a feature; one of length zero is near nothing.
        count: neighbors a feature, itself not among them.

    Raises:
        NonFiniteError: a number is NaN or infinite.
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
    """Activations of both modalities as one vector a feature, each modality centered by itself.

    Centered together, features would be alike for no other reason than that both prefer the same modality.
    """
    return torch.cat([_centered(image), _centered(text)]).T


def _centered(activations: Tensor) -> Tensor:
    """Less their mean, in float64 on the way; a constant feature becomes exactly 0, however its mean would be rounded."""
    deviation = double(activations)
    deviation = deviation - deviation[:1]
    return (deviation - deviation.mean(0)).to(single(activations).dtype)
