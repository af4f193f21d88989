"""Scores of all features by Eq. 1, their partition, and the modality gap."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from mmmono.modality import modality_gap
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.sharedness import score_rows, sharedness_counts
from mmmono.pipeline.workspace import Workspace


def prepare(workspace: Workspace) -> Study:
    """Score the selected feature sets on the dataset's split."""
    features = workspace.features(workspace.dataset.split)

    def compute(folder: Path) -> Tables:
        sets = [workspace.dominance(name) for name in workspace.recipes]
        gap = modality_gap((block.image, block.text) for block in features.view.blocks())
        return {
            "scores": [row for scored in sets for row in score_rows(workspace, scored)],
            "summary": [
                {**scored.to_row(), "gap": gap.centroid_distance, **sharedness_counts(workspace, scored.name)}
                for scored in sets
            ],
            "modality_gap": [asdict(gap)],
        }

    return Study({"features": features.recipe, **workspace.partitions_recipe()}, compute)
