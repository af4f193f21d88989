"""Case study 3: modality-aware control of text-to-image generation (Section 4.3, Appendix A.4.3).

T′[I] = α T[I] + (1 − α) R[I], with T the prompt's embedding, R a reference picture's, and I the features of a class.
Figures 10 and 14 sweep the strength 1 − α, the weight of the reference.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.features import FeatureSet, RawFeatures
from mmmono.modality import FeatureClass, Partition

CLASSES: tuple[FeatureClass, ...] = ("TextD", "CrossD", "ImgD")
ROWS = (*CLASSES, "Random", "All")  # of Figures 10 and 14; All is what the reference does through every live feature
Sizes = Literal["equal", "whole"]


def intervene(
    text: Float[Tensor, "*batch features"],
    reference: Float[Tensor, "*batch features"],
    members: Int64[Tensor, " members"],
    strength: float,
) -> Float[Tensor, "*batch features"]:
    """T′[I] = α T[I] + (1 − α) R[I] with strength 1 − α (Section 4.3); features outside I, and all at strength 0, are T's.

    Args:
        text: T.
        reference: R, of T's shape or broadcast to it.
        members: I.
        strength: weight of the reference, in [0, 1].

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
    """The embedding whose features I are moved toward the reference's.

    Raw features are the embedding's own dimensions. A dictionary's are moved in its codes c, and what that changes in its
    reconstruction is added to the embedding: T′ = T + decode(c′) − decode(c). What the dictionary does not reconstruct
    stays, and strength 0 gives T itself.

    Args:
        feature_set: with a decoder.
        text: T.
        reference: R.
        members: I, indices of features.
        strength: weight of the reference.
        normalize: whether a dictionary was made for embeddings of unit length; T's own length is kept.

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


def class_sizes(partition: Partition, sizes: Sizes) -> dict[str, int]:
    """How many features of each row's class are intervened on.

    Args:
        partition: of the features.
        sizes: `equal`, as many of each as the smallest class has, or `whole`. Of random ones as many, or as many as the
            larger of ImgD and TextD has; of `All` every live one.

    Raises:
        ValueError: a class is empty, or `sizes` is neither.
    """
    if sizes not in get_args(Sizes):
        raise ValueError(f"sizes {sizes!r} is none of {', '.join(get_args(Sizes))}")
    counts = {str(name): len(partition[name]) for name in CLASSES}
    if min(counts.values()) == 0:
        raise ValueError(f"no feature is {min(counts, key=counts.__getitem__)}")
    everything = sum(counts.values())
    if sizes == "equal":
        return {**dict.fromkeys(ROWS, min(counts.values())), "All": everything}
    return {**counts, "Random": max(counts["ImgD"], counts["TextD"]), "All": everything}


def draw_members(partition: Partition, sizes: Sizes, seed: int) -> dict[str, Int64[Tensor, " members"]]:
    """I for each row of the figure, in ascending order, `class_sizes` of each drawn without replacement."""
    rng = np.random.default_rng(seed)
    pools = {str(name): partition[name].numpy() for name in CLASSES}
    pools["Random"] = pools["All"] = np.sort(np.concatenate(list(pools.values())))
    return {
        name: torch.from_numpy(np.sort(rng.choice(pools[name], size, replace=False)))
        for name, size in class_sizes(partition, sizes).items()
    }
