"""Generate images as the features of each class move toward those of a reference, and measure what that changes.

Each image is saved as soon as it is generated, so an interrupted run draws only what is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate

from mmmono.analyses.text_to_image import Settings
from mmmono.analyses.text_to_image.generating import GeneratedImages
from mmmono.analyses.text_to_image.intervening import Encoded, intervened
from mmmono.analyses.text_to_image.measuring import Judge, measure
from mmmono.analyses.text_to_image.real_images import nearest_pairs, prompt_images
from mmmono.case_studies.control_effects import ALL, Effect, effects
from mmmono.case_studies.generators import Generator
from mmmono.case_studies.references import Reference, read_reference
from mmmono.case_studies.text_to_image import class_sizes
from mmmono.core.errors import ConfigError
from mmmono.features import MODALITIES
from mmmono.features.removal import all_atoms
from mmmono.modality.random_sets import Activity
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.generators import GeneratorOption
from mmmono.pipeline.image_judges import image_judge
from mmmono.pipeline.images import SplitImages, image_source, known_locators
from mmmono.pipeline.maker import encoder_of_pairs
from mmmono.pipeline.random_matching import activity_of
from mmmono.pipeline.steering import check_decoders
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace


def prepare(workspace: Workspace) -> Study:
    """Control generation by classes of features, for all selected feature sets and references (Figures 10 and 14).

    Raises:
        ConfigError: a setting is invalid, or a feature set has no decoder.
        DataError: a reference is missing or unreadable.
        ModelError: the generator's weights are missing or do not fit the model.
    """
    study = ControlStudy(workspace)
    return Study(study.recipe(), study.compute, resumable=True)


class ControlStudy:
    """The study; the constructor checks settings and inputs before any heavy computation.

    Args:
        workspace: model, dataset and feature sets.

    Raises:
        ConfigError: a setting is invalid, or a feature set has no decoder.
        DataError: a reference is missing or unreadable.
        ModelError: the generator's weights are missing or do not fit the model.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.settings = read_settings(workspace.cfg, "", Settings)
        self.prompt, self.intervention = self.settings.prompt, self.settings.intervention
        self.random_sets = workspace.settings.random_sets  # read here: a wrong one is refused before anything is loaded
        self.option: GeneratorOption = instantiate(workspace.cfg.generator)
        self.option.check(workspace)
        workspace.dataset.check_images(workspace.dataset.whole_split())
        check_decoders(workspace)
        self.references = _references(workspace, self.settings.references)
        self.embedder = image_judge(workspace)

    def recipe(self) -> dict[str, Any]:
        """Return everything that determines the results."""
        workspace = self.workspace
        return {
            "features": workspace.features(workspace.dataset.split).recipe,
            **self.option.training_recipe(workspace),
            **workspace.partitions_recipe(),
            "model": workspace.model.identity,
            "generator": self.option.recipe(),
            "prompt": self.prompt,
            "references": [
                {"name": r.name, "image": hashlib.sha256(r.image.tobytes()).hexdigest()} for r in self.references
            ],
            "intervention": asdict(self.intervention),
            "random_sets": self.random_sets,
            "measures": asdict(self.settings.measures),
            "embedder": self.embedder.fingerprint,
            "seed": workspace.seed,
        }

    def _activity(self, name: str) -> Activity:
        """Mean activity of a set's features over both modalities; their energy is that of what they add to embeddings."""
        features, sides = self.workspace.feature_set(name), activity_of(self.workspace, name)
        image, text = (sides[m].through(all_atoms(features, m, self.workspace.device)) for m in MODALITIES)
        return image + text

    def compute(self, folder: Path) -> Tables:
        """Generate the images that are missing in the folder, and measure all."""
        workspace = self.workspace
        self._check_classes()
        encoder = encoder_of_pairs(workspace, "a generator")
        generator = self.option.load(workspace, encoder)
        encoded = [Encoded(r, *generator.encode(self.prompt, r.image)) for r in self.references]
        activity = {name: self._activity(name) for name in workspace.specs}
        cells = [
            cell for one in encoded for name in workspace.specs
            for cell in intervened(workspace, name, one, self.intervention, activity[name])
        ]  # fmt: skip
        images = GeneratedImages(folder, self.intervention.seeds)
        images.generate(generator, self.prompt, encoded, cells)
        real = SplitImages(workspace, workspace.dataset.whole_split())
        left_out = {reference.key for reference in self.references}
        of_prompt = prompt_images(workspace, self.settings, self.embedder, real, left_out)
        judge = Judge(self.embedder, self.references, of_prompt)
        near = None
        if generator.joint:  # nearest real images are found for the first seed only
            near = nearest_pairs(workspace, torch.stack([cell.embeddings[0, 0] for cell in cells]), real, folder)
        measured, plain = measure(images, judge, cells, self.references, near)
        real.report(folder)
        found = self._effects(pd.DataFrame([asdict(cell) for cell in measured]), plain)
        return {
            "cells": [asdict(cell) for cell in measured],
            "effects": [effect.to_row() for effect in found],
            "references": self._save_references(images, generator),
        }

    def _check_classes(self) -> None:
        """Raise ConfigError if a class is empty."""
        for name in self.workspace.specs:
            try:
                class_sizes(self.workspace.partition(name), self.intervention.sizes)
            except ValueError as error:
                raise ConfigError(f"feature set {name!r}: {error}; lower partition.n_sigma or mds.min_pairs") from error

    def _effects(self, cells: pd.DataFrame, plain: pd.DataFrame) -> list[Effect]:
        return [
            effect for name in self.workspace.specs
            for effect in effects(cells[cells["feature_set"] == name], plain)
        ]  # fmt: skip

    def _save_references(self, images: GeneratedImages, generator: Generator) -> list[dict[str, object]]:
        """Save the reference images; return a row for each."""
        return [
            {"reference": r.name, "image": images.save_reference(r), "generator": generator.name}
            for r in self.references
        ]


def _references(workspace: Workspace, entries: Sequence[str]) -> list[Reference]:
    split = workspace.dataset.whole_split()
    source, locators = image_source(workspace, split), known_locators(workspace, split)
    references = [read_reference(entry, source, locators) for entry in entries]
    names = [reference.name for reference in references]
    if len(set(names)) < len(names):
        raise ConfigError(f"references: {', '.join(names)}: two of them have one name")
    if ALL in names:
        raise ConfigError(f"references: {ALL} is what the mean over all references is called: rename the file")
    return references
