"""Compare scores and classes before and after the activations are scaled, centered or paired at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mmmono.analyses.robustness import AS_IS, BROKEN, PER_MODALITY, POOLED, SCALED, Settings
from mmmono.features import ActivationBlock
from mmmono.features.folding import OfBlocks, Together, pairs, pairs_and_groups, stored_pairs_and_groups
from mmmono.features.gathered import GatheredView
from mmmono.modality import DominanceStream, sign_flip_p_values
from mmmono.modality.groups import group_sizes
from mmmono.modality.report import FeatureSetDominance
from mmmono.modality.robustness import MeanStream, can_be_broken, other_partners, score_agreement
from mmmono.modality.scale import ScaleStream
from mmmono.modality.scores import DominanceScores
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

Row = dict[str, object]

# Share of zero activations, of the features that are ever active, from which on a set is sparse: without means, none is 0.
SILENT = 0.01


def prepare(workspace: Workspace) -> Study:
    """Score all feature sets on the dataset's split as they are, and after each change."""
    settings = read_settings(workspace.cfg, "robustness", Settings)
    recipe = {
        "features": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "robustness": asdict(settings),
        "seed": workspace.seed,
    }

    def compute(folder: Path) -> Tables:
        return {"robustness": [row for name in workspace.specs for row in _rows(workspace, name, settings)]}

    return Study(recipe, compute)


def _rows(workspace: Workspace, name: str, settings: Settings) -> Iterator[Row]:
    """One row for each change, that of no change first."""
    before = workspace.dominance(name)
    for change, scores in _changed(workspace, name, before.scores, settings):
        classes = workspace.classify(scores.scores, workspace.live(scores))
        after = before if change == AS_IS else FeatureSetDominance(name, scores, classes)
        summary = after.summary
        yield {
            "feature_set": name,
            "change": change,
            "live": len(after.partition.live),
            **{key: getattr(summary, key) for key in ("ImgD", "TextD", "CrossD", "mean", "std")},
            "significant": _significant(after, settings.fdr),
            **asdict(score_agreement(before, after)),
        }


def _changed(
    workspace: Workspace, name: str, before: DominanceScores, settings: Settings
) -> Iterator[tuple[str, DominanceScores]]:
    """Yield the scores of the activations as they are, and after each change that these pairs allow."""
    feature_set, undefined = workspace.feature_set(name), workspace.settings.mds.undefined
    yield AS_IS, before
    groups = workspace.features(workspace.dataset.split).view.groups()
    sizes = group_sizes(groups)
    scaled, means = ScaleStream(settings.factors, undefined, sizes), MeanStream()
    workspace.folded(feature_set, Together(OfBlocks(scaled, pairs_and_groups), OfBlocks(means, pairs)), groups)
    for factor, scores in scaled.result().items():
        yield f"{SCALED}{factor:g}", scores
    active = (before.image_active + before.text_active).double() / (2 * before.num_pairs)
    if active[active > 0].mean() > 1 - SILENT:
        own = means.result().float()
        pooled = own.mean(0, keepdim=True).expand_as(own)
        centered = [OfBlocks(DominanceStream(undefined, sizes), Centered(*sides)) for sides in (own, pooled)]
        found = workspace.folded(feature_set, Together(*centered), groups).result()
        yield from zip((PER_MODALITY, POOLED), found, strict=True)
    if not can_be_broken(groups):
        return
    partners = other_partners(groups, workspace.seed)
    broken = GatheredView(workspace.features(workspace.dataset.split).view, np.arange(len(groups)), partners)
    stream = OfBlocks(DominanceStream(undefined, sizes), stored_pairs_and_groups)
    yield BROKEN, workspace.folded(feature_set, stream, groups, broken).result()


@dataclass(frozen=True)
class Centered:
    """Gives a stream the activations of a block minus the features' means on either side, and the groups."""

    image: Float[Tensor, " features"]
    text: Float[Tensor, " features"]

    def __call__(self, block: ActivationBlock) -> tuple[Any, ...]:
        """Return both sides, centered, and the groups of the pairs."""
        device = block.image.device
        return block.image - self.image.to(device), block.text - self.text.to(device), block.groups


def _significant(scored: FeatureSetDominance, fdr: float) -> int:
    """Number of live features that one modality dominates significantly, by the normal approximation of the null."""
    live = scored.partition.is_live
    _, q_value = sign_flip_p_values(scored.scores, live)
    return int((live & (q_value <= fdr)).sum())
