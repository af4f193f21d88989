"""Measure how active features are, for random sets that are matched to a class in activity."""

from __future__ import annotations

from mmmono.features import MODALITIES, Modality
from mmmono.features.folding import OfBlocks, Together, images, texts
from mmmono.modality.random_sets import Activity, ActivityStream
from mmmono.pipeline.workspace import Workspace


def activity_of(workspace: Workspace, name: str) -> dict[Modality, Activity]:
    """Measure how active each feature of a set is on the images and on the texts of the dataset's split, in one pass."""
    both = Together(OfBlocks(ActivityStream(), images), OfBlocks(ActivityStream(), texts))
    return dict(zip(MODALITIES, workspace.folded(workspace.feature_set(name), both).result(), strict=True))
