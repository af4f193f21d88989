"""The setting `random_sets`, which all analyses share that compare a class with random features."""

from __future__ import annotations

from typing import cast

from omegaconf import DictConfig

from mmmono.core.errors import ConfigError
from mmmono.features import MODALITIES, Modality
from mmmono.modality.random_sets import Activity, ActivityStream, Match, check_match
from mmmono.pipeline.workspace import Workspace


def random_match(cfg: DictConfig) -> Match:
    """What random sets have in common with the class that they are compared with, besides their size.

    Raises:
        ConfigError: `random_sets` is none of the known ways.
    """
    match = str(cfg.random_sets)
    try:
        check_match(match)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return cast(Match, match)


def activity_of(workspace: Workspace, name: str) -> dict[Modality, Activity]:
    """Measure how active each feature of a set is on the images and on the texts of the dataset's split, in one pass."""
    streams = {modality: ActivityStream() for modality in MODALITIES}
    for block in workspace.activations(workspace.feature_set(name)):
        streams["image"].add(block.image)
        streams["text"].add(block.text)
    return {modality: stream.result() for modality, stream in streams.items()}
