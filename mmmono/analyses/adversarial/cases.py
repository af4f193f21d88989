"""What the study tries: benign images to attack, each with a request, and features to defend with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from mmmono.analyses.adversarial import Settings
from mmmono.case_studies.adversarial.outcomes import ALL, Condition, defending_features
from mmmono.case_studies.adversarial.requests import Request
from mmmono.case_studies.pictures import Picture
from mmmono.core.errors import ConfigError
from mmmono.features import FeatureSet
from mmmono.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Case:
    """A benign image that is attacked with a request.

    Attributes:
        run: number of the run.
        request_number: number of the request.
        request: the request.
        benign: the benign image with its caption.
        contrast: image that the benign one is attacked with; None for the request's text.
    """

    run: int
    request_number: int
    request: Request
    benign: Picture
    contrast: Image | None

    def to_row(self, number: int) -> dict[str, object]:
        """Return the case as a table row; `number` is that of its image."""
        return {
            "image": number,
            "run": self.run,
            "request": self.request.text,
            "concept": self.request.concept,
            "benign": self.benign.caption,
        }


@dataclass(frozen=True)
class Defense:
    """An alignment of attacked images with benign ones on some features.

    Attributes:
        condition: class, feature set and number of the features.
        feature_set: encodes embeddings as features.
        chosen: indices of the aligned features, one tensor per run.
    """

    condition: Condition
    feature_set: FeatureSet
    chosen: Sequence[Tensor]


def draw_cases(
    requests: Sequence[Request], contrasts: Sequence[Image | None], benign: Sequence[Picture], runs: int, seed: int
) -> list[Case]:
    """Pair every request with one benign image in each run, ordered by run and request.

    Args:
        requests: the requests.
        contrasts: contrast image of each request; None for its text.
        benign: the benign images.
        runs: number of runs.
        seed: seed of the pairing.
    """
    order = np.random.default_rng(seed).permutation(len(benign))
    return [
        Case(run, number, request, benign[order[(number + run) % len(order)]], contrasts[number])
        for run in range(runs)
        for number, request in enumerate(requests)
    ]


def draw_defenses(workspace: Workspace, settings: Settings) -> list[Defense]:
    """Draw the features that each defense aligns, anew in every run.

    Raises:
        ConfigError: a class has no feature.
    """
    return [defense for name in workspace.recipes for defense in _of_feature_set(workspace, settings, name)]


def _of_feature_set(workspace: Workspace, settings: Settings, name: str) -> list[Defense]:
    feature_set, partition = workspace.feature_set(name), workspace.partition(name)
    chosen: dict[Condition, list[Tensor]] = {}
    for run in range(settings.runs):
        rng = np.random.default_rng([workspace.seed, run])
        try:
            features = defending_features(partition, settings.sizes, rng)
        except ValueError as error:
            raise ConfigError(f"feature set {name!r}: {error}; see adversarial.sizes and partition") from error
        if settings.all_features:
            features[ALL, feature_set.num_features] = torch.arange(feature_set.num_features)
        for (target, size), indices in features.items():
            chosen.setdefault(Condition(target, name, size), []).append(indices)
    return [Defense(condition, feature_set, by_run) for condition, by_run in chosen.items()]
