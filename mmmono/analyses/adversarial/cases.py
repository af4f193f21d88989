"""Cases of the study: the benign images to attack, each with a request, and the features to defend with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from mmmono.analyses.adversarial import Settings
from mmmono.case_studies.adversarial.outcomes import ALL, Carried, Condition, defending_features, shares_of_sizes
from mmmono.case_studies.adversarial.requests import Request
from mmmono.case_studies.images import CaptionedImage
from mmmono.core.errors import ConfigError
from mmmono.features import FeatureSet
from mmmono.modality.random_sets import RANDOM, RandomSet
from mmmono.pipeline.random_matching import activity_of
from mmmono.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Case:
    """A benign image that is attacked with a request.

    Attributes:
        run: number of the run.
        request_number: number of the request.
        request: the request.
        benign_number: number of the benign image.
        benign: the benign image with its caption.
        contrast: image that the benign one is attacked with; None for the request's text.
    """

    run: int
    request_number: int
    request: Request
    benign_number: int
    benign: CaptionedImage
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
        carried: what these features carry.
    """

    condition: Condition
    feature_set: FeatureSet
    chosen: Sequence[Tensor]
    carried: Carried


def draw_cases(
    requests: Sequence[Request],
    contrasts: Sequence[Image | None],
    benign: Sequence[CaptionedImage],
    runs: int,
    seed: int,
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
        Case(run, number, request, shown, benign[shown], contrasts[number])
        for run in range(runs)
        for number, request in enumerate(requests)
        for shown in [int(order[(number + run) % len(order)])]
    ]


def draw_defenses(workspace: Workspace, settings: Settings) -> list[Defense]:
    """Draw the features that each defense aligns, anew in every run.

    Raises:
        ConfigError: a class has no feature.
    """
    return [defense for name in workspace.specs for defense in _of_feature_set(workspace, settings, name)]


def _of_feature_set(workspace: Workspace, settings: Settings, name: str) -> list[Defense]:
    feature_set, partition = workspace.feature_set(name), workspace.partition(name)
    match, activity = workspace.settings.random_sets, activity_of(workspace, name)["image"]
    everything = np.arange(feature_set.num_features)
    chosen: dict[Condition, list[RandomSet]] = {}
    for run in range(settings.runs):
        rng = np.random.default_rng([workspace.seed, run])
        try:
            features = defending_features(partition, settings.sizes, rng, activity, match)
        except ValueError as error:
            raise ConfigError(f"feature set {name!r}: {error}; see adversarial.sizes and partition") from error
        if settings.all_features:
            features[ALL, len(everything)] = RandomSet(everything, 0.0)
        for (target, size), drawn in features.items():
            chosen.setdefault(Condition(target, name, size), []).append(drawn)
    shares = shares_of_sizes(partition, settings.sizes)
    return [
        Defense(
            condition, feature_set, [torch.from_numpy(drawn.members) for drawn in by_run],
            Carried(
                float(np.mean([activity.share(drawn.members) for drawn in by_run])),
                max(drawn.mismatch for drawn in by_run) if condition.aligned.startswith(RANDOM) else None,
                None if condition.aligned == ALL else shares[condition.features],
            ),
        )
        for condition, by_run in chosen.items()
    ]  # fmt: skip
