"""Pairs of the dataset's split to compare with each other, and what removes the features of a set from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmmono.features import MODALITIES, FeatureSet, Modality, RawFeatures
from mmmono.features.removal import Composition, PairedCompositions, composition_of
from mmmono.modality.removal_outcomes import RemovalBench, ZeroShot
from mmmono.pipeline.workspace import Workspace
from mmmono.pipeline.zero_shot import ClassPrompts, class_prompts, embeddings_of, sample_of_pairs


@dataclass(frozen=True)
class EmbeddedPairs:
    """Pairs of the dataset's split that are compared with each other, with their embeddings.

    Attributes:
        rows: ascending positions of the pairs in the dataset's split.
        embeddings: of both modalities, `[pairs, dim]` each.
        groups: group of each pair.
        classes: the labels' texts, and the label of each pair; None without labels.
    """

    rows: np.ndarray[Any, Any]
    embeddings: dict[Modality, Tensor]
    groups: np.ndarray[Any, Any]
    classes: ClassPrompts | None

    @classmethod
    def of(cls, workspace: Workspace, max_pairs: int, prompt: str) -> EmbeddedPairs:
        """Draw a seeded sample of at most `max_pairs` pairs of the dataset's split.

        Args:
            workspace: has the dataset.
            max_pairs: number of pairs, at most.
            prompt: text of a label, with `{}` for its name; loads the model if the dataset has labels.
        """
        rows = sample_of_pairs(workspace, max_pairs)
        return cls(
            rows,
            {modality: embeddings_of(workspace, modality, rows) for modality in MODALITIES},
            workspace.features(workspace.dataset.split).view.groups()[rows],
            class_prompts(workspace, rows, prompt),
        )

    def __len__(self) -> int:
        return len(self.groups)

    def where(self, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> EmbeddedPairs:
        """Return the pairs at which a mask is true; without classes if none of them has a label."""
        mask, classes = torch.from_numpy(chosen), None
        if self.classes is not None and bool((self.classes.target[mask] >= 0).any()):
            classes = ClassPrompts(self.classes.embeddings, self.classes.target[mask])
        embeddings = {modality: rows[mask] for modality, rows in self.embeddings.items()}
        return EmbeddedPairs(self.rows[chosen], embeddings, self.groups[chosen], classes)


def space_of(features: FeatureSet) -> str:
    """Where features are removed from: `embeddings`, `reconstruction`, or `features` themselves without a decoder."""
    if isinstance(features, RawFeatures):
        return "embeddings"
    return "reconstruction" if features.decodes else "features"


def removal_bench(
    features: FeatureSet, pairs: EmbeddedPairs, codes: bool, device: str, temperature: float = 0.07
) -> RemovalBench:
    """Return what measures the pairs without some features.

    Args:
        features: the feature set.
        pairs: the pairs.
        codes: whether the pairs are compared by their codes instead of their reconstructions.
        device: where the feature set is.
        temperature: of the contrastive loss.

    Raises:
        DictionaryError: reconstructions are wanted of a feature set without a decoder.
        ValueError: the temperature is below 0.005.
    """

    def composed(embeddings: Tensor, modality: Modality) -> Composition:
        return composition_of(features, embeddings, modality, not codes, device)

    sides = PairedCompositions(*(composed(pairs.embeddings[modality], modality) for modality in MODALITIES))
    zero_shot = None
    if pairs.classes is not None:
        zero_shot = ZeroShot(composed(pairs.classes.embeddings, "text"), pairs.classes.target)
    return RemovalBench(sides, pairs.groups, zero_shot, temperature)
