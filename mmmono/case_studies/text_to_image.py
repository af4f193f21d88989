"""Case study 3: modality-aware control of text-to-image generation (Section 4.3, Appendix A.4.3).

T′[I] = α T[I] + (1 − α) R[I], where T is the embedding of the prompt, R that of a reference image, and I the features
of a class. Figures 10 and 14 sweep the strength 1 − α, the weight of the reference.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.features import FeatureSet, RawFeatures
from mmmono.modality import FeatureClass, Partition
from mmmono.modality.random_sets import Activity, Match, RandomSet, random_name, random_pool, random_set

CLASSES: tuple[FeatureClass, ...] = ("TextD", "CrossD", "ImgD")
ALL = "All"  # row of all live features
Sizes = Literal["equal", "whole"]


def intervene(
    text: Float[Tensor, "*batch features"],
    reference: Float[Tensor, "*batch features"],
    members: Int64[Tensor, " members"],
    strength: float,
) -> Float[Tensor, "*batch features"]:
    """Compute T′[I] = α T[I] + (1 − α) R[I] with strength 1 − α (Section 4.3); features outside I keep their values.

    Args:
        text: activations of the prompt, T.
        reference: activations of the reference, R; broadcast to T's shape.
        members: indices of the features to change, I.
        strength: weight of the reference, 1 − α, in [0, 1]; 0 returns T.

    Raises:
        ValueError: the strength lies outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength} lies outside [0, 1]")
    intervened = text.clone()
    if strength:
        own, other = text[..., members], reference.expand_as(text)[..., members]
        intervened[..., members] = (1 - strength) * own + strength * other
    return intervened


def intervene_on_features(
    feature_set: FeatureSet,
    text: Float[Tensor, "tokens dim"],
    reference: Float[Tensor, "tokens dim"],
    members: Int64[Tensor, " members"],
    strength: float,
    normalize: bool = True,
) -> Float[Tensor, "tokens dim"]:
    """Move the features I of the prompt's embedding towards those of the reference.

    Raw features are the embedding's dimensions. With a dictionary, the codes c of T are changed to c′, and the change
    of the reconstruction is added to the embedding: T′ = T + decode(c′) − decode(c). The part of T that the dictionary
    does not reconstruct is kept, and strength 0 returns T.

    Args:
        feature_set: feature set with a decoder.
        text: embedding of the prompt, T.
        reference: embedding of the reference image, R.
        members: indices of the features to change, I.
        strength: weight of the reference, in [0, 1].
        normalize: whether the dictionary takes L2-normalized embeddings; the change is then scaled by the norm of T.

    Raises:
        DictionaryError: the feature set has no decoder.
    """
    if isinstance(feature_set, RawFeatures):
        return intervene(text, reference, members, strength)
    length = torch.linalg.vector_norm(text, dim=-1, keepdim=True) if normalize else torch.ones_like(text[..., :1])
    with torch.no_grad():
        codes = feature_set.encode(text / length, "text")
        other = feature_set.encode(
            torch.nn.functional.normalize(reference, dim=-1) if normalize else reference, "image"
        )
        moved = intervene(codes, other, members, strength)
        return text + length * (feature_set.decode(moved, "text") - feature_set.decode(codes, "text"))


def rows_of(match: Match) -> tuple[str, ...]:
    """Rows of Figures 10 and 14: the classes, random features like them, and all live features."""
    return (*map(str, CLASSES), *dict.fromkeys(random_name(match, name) for name in CLASSES), ALL)


def class_sizes(partition: Partition, sizes: Sizes, match: Match = "energy") -> dict[str, int]:
    """Return the number of features that each row of the figure changes.

    Args:
        partition: partition of the features.
        sizes: `equal` uses the size of the smallest class for every class and for random features. `whole` uses whole
            classes, and for random features that of the class that they are like, or the larger size of ImgD and TextD
            if they are like none. `All` always has all live features.
        match: what random features have in common with the class, see `mmmono.modality.random_sets`.

    Raises:
        ValueError: a class is empty, or `sizes` is unknown.
    """
    if sizes not in get_args(Sizes):
        raise ValueError(f"sizes {sizes!r} is none of {', '.join(get_args(Sizes))}")
    counts = {str(name): len(partition[name]) for name in CLASSES}
    if min(counts.values()) == 0:
        raise ValueError(f"no feature is {min(counts, key=counts.__getitem__)}")
    everything = sum(counts.values())
    if sizes == "equal":
        return {**dict.fromkeys(rows_of(match), min(counts.values())), ALL: everything}
    randoms = {random_name(match, name): counts[name] for name in CLASSES}
    if match == "size":
        randoms = {random_name(match, ""): max(counts["ImgD"], counts["TextD"])}
    return {**counts, **randoms, ALL: everything}


def draw_members(
    partition: Partition, sizes: Sizes, seed: int, activity: Activity, match: Match = "energy"
) -> dict[str, RandomSet]:
    """Draw the features I of each row of the figure, without replacement; see `class_sizes`. Indices are ascending.

    Random features are like those that are drawn of the class; the mismatch of a class is 0.

    Args:
        partition: partition of the features.
        sizes: see `class_sizes`.
        seed: seed of the draw.
        activity: activity of the features; that of images and texts together, since an intervention takes the features of
            the text away and puts those of an image in their place.
        match: see `class_sizes`.
    """
    rng = np.random.default_rng(seed)
    counts, weights = class_sizes(partition, sizes, match), activity.weights(match)
    drawn = {
        str(name): RandomSet(np.sort(rng.choice(partition[name].numpy(), counts[name], replace=False)), 0.0)
        for name in CLASSES
    }
    if match == "size":
        random = random_name(match, "")
        drawn[random] = RandomSet(np.sort(rng.choice(partition.live.numpy(), counts[random], replace=False)), 0.0)
    else:
        for name in CLASSES:
            pool = random_pool(partition, name, counts[name], match)
            drawn[random_name(match, name)] = random_set(pool, drawn[name].members, weights, rng)
    return {**drawn, ALL: RandomSet(partition.live.numpy(), 0.0)}
