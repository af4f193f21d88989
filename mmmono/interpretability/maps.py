"""A map of features: places in a plane at which similar features lie near one another."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mmmono.core.finite import check_finite, unit_rows

Method = Literal["tsne", "pca"]
PERPLEXITY = 30.0  # number of neighbors, about, that t-SNE keeps near
STEPS = 500  # of t-SNE: half as many as scikit-learn's default, in half the time, since it starts from a good place
COMPONENTS = 50  # principal components that t-SNE starts from
FEW = 4  # with fewer features there is nothing to arrange, and they lie where their principal components put them


def feature_map(
    directions: Float[Tensor, "features dim"], method: Method = "tsne", seed: int = 0
) -> Float64[Tensor, "features 2"]:
    """Place features in a plane by the cosines of their vectors.

    t-SNE (van der Maaten and Hinton 2008) keeps neighbors near one another; distances between far places mean little. It
    starts from the principal components, so that the same vectors give the same map.

    Args:
        directions: vector of each feature, such as its decoder atom or its centered activations.
        method: `tsne`, or `pca` for the first two principal components, which takes no time.
        seed: seed of t-SNE.

    Returns:
        Places within the unit square; NaN for features whose vectors are all zero.

    Raises:
        NonFiniteError: a direction is NaN or infinite.
        ValueError: `method` is unknown.
    """
    if method not in get_args(Method):
        raise ValueError(f"method={method} is none of {', '.join(get_args(Method))}")
    check_finite(directions, "feature", column="dimension")
    unit = unit_rows(directions).float().cpu().numpy()
    known = np.abs(unit).max(axis=1, initial=0) > 0
    places = np.full((len(unit), 2), np.nan)
    if known.any():
        places[known] = _in_unit_square(_placed(unit[known], method, seed))
    return torch.from_numpy(places)


def _placed(unit: np.ndarray, method: Method, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA  # not at the top: it takes a second
    from sklearn.manifold import TSNE

    if not np.ptp(unit, axis=0).any():  # one feature, or all alike
        return np.zeros((len(unit), 2))
    found = PCA(min(COMPONENTS, *unit.shape), random_state=seed).fit_transform(unit)
    found = np.pad(found, ((0, 0), (0, max(0, 2 - found.shape[1]))))
    if method == "pca" or len(unit) < FEW:
        placed: np.ndarray = found[:, :2]
        return placed
    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    arranged: np.ndarray = TSNE(perplexity=perplexity, init="pca", max_iter=STEPS, random_state=seed).fit_transform(
        found
    )
    return arranged


def _in_unit_square(places: np.ndarray) -> np.ndarray:
    """Shift and scale, by the same factor in both directions; one place in the middle if all are the same."""
    low, high = places.min(axis=0), places.max(axis=0)
    reach = float((high - low).max()) or 1.0
    inside: np.ndarray = 0.5 + (places - (low + high) / 2) / reach
    return inside
