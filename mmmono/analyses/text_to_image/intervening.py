"""Embeddings of the prompt with the features of one class moved toward those of a reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.analyses.text_to_image import Intervention, Strength
from mmmono.case_studies.references import Reference
from mmmono.case_studies.text_to_image import draw_members, intervene_on_features
from mmmono.modality.random_sets import RANDOM, Activity
from mmmono.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Encoded:
    """Embeddings of the prompt and of a reference, as the generator takes them.

    Attributes:
        reference: the reference.
        text: T, the embedding of the prompt.
        image: R, the embedding of the reference.
    """

    reference: Reference
    text: Float[Tensor, "tokens dim"]
    image: Float[Tensor, "tokens dim"]


@dataclass(frozen=True)
class GridCell:
    """A cell of Figure 10 with its intervened embeddings.

    Attributes:
        feature_set: name of the feature set.
        reference: the reference.
        members: class of the changed features, `Random` ones or `All`; see `rows_of`.
        features: number of changed features.
        energy: share of Σ z² over images and texts that they carry, mean over seeds.
        mismatch: largest mismatch of random features over seeds, see `RandomSet`; None for others.
        strength: the strength.
        embeddings: T′, one for each seed.
    """

    feature_set: str
    reference: Reference
    members: str
    features: int
    energy: float
    mismatch: float | None
    strength: Strength
    embeddings: Float[Tensor, "seeds tokens dim"]


def intervened(
    workspace: Workspace, name: str, encoded: Encoded, settings: Intervention, activity: Activity
) -> Iterator[GridCell]:
    """Yield the cells of one feature set and reference: class by class, each with all strengths in order.

    Args:
        workspace: provides the feature set, its classes and the seed.
        name: name of the feature set.
        encoded: embeddings of the prompt and the reference.
        settings: strengths, numbers of features, and number of seeds.
        activity: activity of the features on images and texts.
    """
    device, normalize = workspace.device, workspace.settings.features.normalize
    feature_set, partition = workspace.feature_set(name), workspace.partition(name)
    text, image = encoded.text.to(device), encoded.image.to(device)
    match = workspace.settings.random_sets
    drawn = [
        draw_members(partition, settings.sizes, workspace.seed + seed, activity, match)
        for seed in range(settings.seeds)
    ]
    for members in drawn[0]:
        sets = [own[members] for own in drawn]
        energy = float(np.mean([activity.share(one.members) for one in sets]))
        mismatch = max(one.mismatch for one in sets) if members.startswith(RANDOM) else None
        indices = [torch.from_numpy(one.members).to(device) for one in sets]
        for strength in settings.swept:
            embeddings = torch.stack(
                [intervene_on_features(feature_set, text, image, own, strength.weight, normalize) for own in indices]
            )
            yield GridCell(
                name, encoded.reference, members, len(indices[0]), energy, mismatch, strength, embeddings.cpu()
            )
