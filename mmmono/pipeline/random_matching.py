"""Measure how active features are, for random sets that are matched to a class in activity."""

from __future__ import annotations

from mmmono.features import MODALITIES, Modality
from mmmono.modality.random_sets import Activity, ActivityStream
from mmmono.pipeline.workspace import Workspace


def activity_of(workspace: Workspace, name: str) -> dict[Modality, Activity]:
    """Measure how active each feature of a set is on the images and on the texts of the dataset's split, in one pass."""
    streams = {modality: ActivityStream() for modality in MODALITIES}
    for block in workspace.activations(workspace.feature_set(name)):
        streams["image"].add(block.image)
        streams["text"].add(block.text)
    return {modality: stream.result() for modality, stream in streams.items()}
