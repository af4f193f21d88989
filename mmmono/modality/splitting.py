"""Does a shared concept have one latent, or one for images and another for texts? And does a latent mean two things?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

FOUND = 0.5  # least correlation with a latent at which a concept counts as found
IMAGE, TEXT, SHARED = range(3)


@dataclass(frozen=True)
class Splitting:
    """What became of known concepts in a feature set.

    Attributes:
        one: share of the shared concepts that are found in both modalities, in the same latent.
        split: share of the shared concepts that are found in both modalities, in different latents.
        missed: share of the shared concepts that are not found in one of the modalities, or in neither.
        merged: share of the found single-modality concepts whose latent stands for some concept in the other modality,
            too; NaN if none is found.
    """

    one: float
    split: float
    missed: float
    merged: float


def concept_splitting(
    image: Float[Tensor, "atoms features"], text: Float[Tensor, "atoms features"], kind: Int64[Tensor, " atoms"]
) -> Splitting:
    """Compare what each latent stands for in images with what it stands for in texts.

    A concept's best latent in a modality is the one that correlates most with its true codes there; it is found if that
    correlation is at least `FOUND`.

    Args:
        image: correlations of the concepts' true codes in images with the features' activations on images.
        text: the same of texts.
        kind: kind of each concept: 0 image-only, 1 text-only, 2 shared.
    """
    sides = (image, text)
    best = [side[kind == SHARED].max(1) for side in sides]
    found = (best[0].values >= FOUND) & (best[1].values >= FOUND)
    same = best[0].indices == best[1].indices
    merged = []
    for own, side, other in ((IMAGE, image, text), (TEXT, text, image)):
        members = (kind == own).nonzero().squeeze(1)
        values, features = side[members].max(1)
        members, features = members[values >= FOUND], features[values >= FOUND]
        elsewhere = other[:, features].clone()
        elsewhere[members, torch.arange(len(members))] = 0  # a concept that leaks is no other one
        merged.append(elsewhere.max(0).values >= FOUND)
    return Splitting(
        one=float((found & same).double().mean()),
        split=float((found & ~same).double().mean()),
        missed=float((~found).double().mean()),
        merged=float(torch.cat(merged).double().mean()),
    )
