"""Embeddings of the prompt with the features of one class moved toward those of a reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.analyses.text_to_image import Intervention, Strength
from mmmono.case_studies.references import Reference
from mmmono.case_studies.text_to_image import ROWS, draw_members, intervene_on_features
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
        members: class of the changed features, `Random` or `All`.
        features: number of changed features.
        strength: the strength.
        embeddings: T′, one for each seed.
    """

    feature_set: str
    reference: Reference
    members: str
    features: int
    strength: Strength
    embeddings: Float[Tensor, "seeds tokens dim"]


def intervened(workspace: Workspace, name: str, encoded: Encoded, settings: Intervention) -> Iterator[GridCell]:
    """Yield the cells of one feature set and reference: class by class, each with all strengths in order.

    Args:
        workspace: provides the feature set, its classes and the seed.
        name: name of the feature set.
        encoded: embeddings of the prompt and the reference.
        settings: strengths, numbers of features, and number of seeds.
    """
    device, normalize = workspace.device, workspace.cfg.features.normalize
    feature_set, partition = workspace.feature_set(name), workspace.partition(name)
    text, image = encoded.text.to(device), encoded.image.to(device)
    drawn = [draw_members(partition, settings.sizes, workspace.seed + seed) for seed in range(settings.seeds)]
    for members in ROWS:
        for strength in settings.swept:
            embeddings = [
                intervene_on_features(feature_set, text, image, own[members].to(device), strength.weight, normalize)
                for own in drawn
            ]
            count = len(drawn[0][members])
            yield GridCell(name, encoded.reference, members, count, strength, torch.stack(embeddings).cpu())
