"""Names of features: the words of a vocabulary whose directions are nearest to a feature's, by modality.

A feature means a direction in the space of images and one in the space of texts. Both are taken relative to their own
modality, since the modality gap (Liang et al. 2022) parts images from texts more than what they show does: an atom of an
image-dominant feature points along the gap as well as along what the feature is of, and would be nearest to whatever word
lies that way.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from torch import Tensor

from mmmono.core.finite import unit_rows


def mean_directions(
    members: Bool[Tensor, "samples sets"] | csr_array, embeddings: Float[Tensor, "samples dim"], least: int = 1
) -> Float[Tensor, "sets dim"]:
    """From the mean of all embeddings of a modality to the mean of those in a set, at length 1.

    It is the direction of the difference between members and the others as well, and no difference of two modalities.

    Args:
        members: which samples belong to which set: those that activate a feature, or whose captions hold a word.
        embeddings: of one modality.
        least: members that a set must have; the direction is 0 for smaller ones, and for sets that hold every sample.
    """
    rows = embeddings.double().numpy()
    indicator = members if isinstance(members, csr_array) else members.double().numpy()
    counts = np.asarray(indicator.sum(0), np.float64).reshape(-1)
    sums = np.asarray(indicator.T @ rows)
    moved = sums / np.maximum(counts, 1)[:, None] - rows.mean(0)
    moved[(counts < least) | (counts == len(rows))] = 0
    return unit_rows(torch.from_numpy(moved)).float()


def without_gap(
    directions: Float[Tensor, "n dim"], image_mean: Float[Tensor, " dim"], text_mean: Float[Tensor, " dim"]
) -> Float[Tensor, "n dim"]:
    """Take out of each direction what lies along the line between the modalities' means, and scale it to length 1.

    Args:
        directions: of features, such as decoder atoms.
        image_mean, text_mean: mean embeddings of the images and of the texts.
    """
    axis = unit_rows((image_mean - text_mean)[None])[0]
    wide = directions.double()
    return unit_rows(wide - (wide @ axis)[:, None] * axis).float()


def word_cosines(
    directions: Float[Tensor, "features dim"], words: Float[Tensor, "words dim"]
) -> Float[Tensor, "features words"]:
    """Cosine of every feature's direction with every word's; −∞ where either direction is 0, so that it is never chosen."""
    cosines = unit_rows(directions).float() @ unit_rows(words).float().T
    silent = (directions == 0).all(1)[:, None] | (words == 0).all(1)[None]
    return cosines.masked_fill(silent, -torch.inf)


def nearest_words(cosines: Float[Tensor, "features words"], count: int) -> Int64[Tensor, "features count"]:
    """Columns of the words with the largest cosines, best first; −1 where there is none."""
    best = cosines.topk(min(count, cosines.shape[1]), dim=1)
    return best.indices.masked_fill(best.values.isinf(), -1)


def distinct_words(cosines: Float[Tensor, "features words"]) -> Int64[Tensor, " features"]:
    """One word for each feature, none of them twice, with the largest sum of cosines (Hungarian algorithm).

    Features without a direction get −1, and so do those with the smallest cosines if there are more features than words.
    """
    chosen = torch.full((len(cosines),), -1)
    features = (~cosines.isinf()).any(1).nonzero().squeeze(1)
    if not len(features):
        return chosen
    table = cosines[features].masked_fill(cosines[features].isinf(), -2.0).numpy()
    rows, columns = linear_sum_assignment(table, maximize=True)
    there = table[rows, columns] >= -1.5
    chosen[features[rows[there]]] = torch.from_numpy(columns[there])
    return chosen
