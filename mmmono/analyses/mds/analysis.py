"""Scores of all features by Eq. 1, their partition, and the modality gap."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from mmmono.core.statistics import effective_groups
from mmmono.features.folding import OfBlocks, pairs
from mmmono.modality import GapStream
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.sharedness import feature_sharedness, score_rows, sharedness_counts
from mmmono.pipeline.workspace import Workspace


def prepare(workspace: Workspace) -> Study:
    """Score the selected feature sets on the dataset's split."""
    features = workspace.features(workspace.dataset.split)

    def compute(folder: Path) -> Tables:
        sets = [workspace.dominance(name) for name in workspace.specs]
        axes = [(scored, feature_sharedness(workspace, scored.name), workspace.live(scored.scores)) for scored in sets]
        gap = workspace.folded(None, OfBlocks(GapStream(), pairs)).result()
        about = {"effective_groups": effective_groups(features.view.groups()), "gap": gap.centroid_distance}
        return {
            "scores": [row for axis in axes for row in score_rows(*axis)],
            "summary": [{**axis[0].to_row(), **about, **sharedness_counts(*axis)} for axis in axes],
            "modality_gap": [asdict(gap)],
        }

    return Study({"features": features.recipe, **workspace.partitions_recipe()}, compute)
