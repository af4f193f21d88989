"""Nearest neighbors of features, in their own feature set or in another one, by directions or by activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, double, single, unit_rows
from mmmono.core.ranges import check_whole

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
    check_whole("count", count)
    unit = _unit(directions)
    return _nearest(unit, unit, count, itself=False)


def counterparts(
    directions: Float[Tensor, "features dim"], others: Float[Tensor, "others dim"], count: int = 1
) -> Neighbors:
    """Find the `count` features of another set with the largest positive cosine to each feature of this one.

    With centered activations of both sets on the same samples (`centered_activations`), cosines are Pearson correlations.
    A feature has a largest correlation even with features that have nothing to do with it; what chance gives is found with
    the samples of one set in random order.

    Args:
        directions: vector of each feature; all-zero vectors have no counterparts.
        others: vector of each feature of the other set, of the same length.
        count: counterparts per feature.

    Raises:
        NonFiniteError: a direction is NaN or infinite.
        ValueError: `count` is not positive, or the vectors of both sets have different lengths.
    """
    check_whole("count", count)
    for vectors in (directions, others):
        check_finite(vectors, "feature", column="dimension")
    if directions.shape[1] != others.shape[1]:
        raise ValueError(
            f"vectors of {directions.shape[1]} and {others.shape[1]} entries: give activations of both on the same samples"
        )
    return _nearest(_unit(directions), _unit(others), count, itself=True)


def _unit(directions: Tensor) -> Tensor:
    check_finite(directions, "feature", column="dimension")
    return torch.cat([unit_rows(part).float() for part in directions.split(CHUNK_FEATURES)])


def _nearest(unit: Tensor, others: Tensor, count: int, itself: bool) -> Neighbors:
    size = len(unit)
    features = torch.full((size, count), -1)
    cosines = torch.zeros(size, count)
    kept = min(count, len(others) - (not itself))
    for start in range(0, size if kept else 0, CHUNK_FEATURES):
        similarity = unit[start : start + CHUNK_FEATURES] @ others.T
        if not itself:
            similarity[torch.arange(len(similarity)), torch.arange(start, start + len(similarity))] = -torch.inf
        rows = slice(start, start + len(similarity))
        features[rows, :kept], cosines[rows, :kept] = strongest(similarity, kept)
    return Neighbors(features, cosines)


def strongest(
    likeness: Float[Tensor, "features others"], kept: int
) -> tuple[Int64[Tensor, "features kept"], Float[Tensor, "features kept"]]:
    """The largest positive entries of each row, as columns and values: −1 and 0 in place of what is not positive."""
    best, index = likeness.topk(kept, dim=1)
    found = best > 0
    return torch.where(found, index, -1).cpu(), torch.where(found, best.clamp_max(1), 0.0).cpu()


def centered_activations(
    image: Float[Tensor, "pairs features"], text: Float[Tensor, "pairs features"]
) -> Float[Tensor, "features samples"]:
    """Activations of each feature on all samples as one vector, centered within each modality.

    Centered over both modalities together, features would be similar just because they prefer the same modality.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: both modalities have different features.
    """
    check_finite(image, "image")
    check_finite(text, "text")
    if image.shape[1] != text.shape[1]:
        raise ValueError(f"{image.shape[1]} features on images but {text.shape[1]} on texts: give the same features")
    return torch.cat([_centered(image), _centered(text)]).T


def _centered(activations: Tensor) -> Tensor:
    """Subtract the mean of each feature, computed in float64; constant features become exactly 0."""
    deviation = double(activations)
    deviation = deviation - deviation[:1]
    return (deviation - deviation.mean(0)).to(single(activations).dtype)
