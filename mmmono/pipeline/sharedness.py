"""Sharedness of a feature set, computed once and kept as an artifact, so that all analyses show the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from mmmono.features.folding import OfBlocks, stored_pairs_and_groups
from mmmono.modality import LIVE_CLASSES, Sharedness, SharednessStream, load_sharedness, save_sharedness
from mmmono.modality.groups import shared_groups
from mmmono.modality.report import FeatureSetDominance, median
from mmmono.pipeline.workspace import Workspace

FDR = 0.05  # false discovery rate at which tables of other analyses count a feature as shared


def feature_sharedness(workspace: Workspace, name: str, seed: int | None = None) -> Sharedness:
    """Return the sharedness of a feature set on the dataset's split, measured first if it is not stored.

    Groups of pairs are the units; see `mmmono.modality.sharedness`. `seed` replaces the run's seed, for a dictionary that
    was trained with another one.
    """
    features = workspace.features(workspace.dataset.split)

    def make(directory: Path) -> None:
        groups = shared_groups(features.view.groups())
        stream = OfBlocks(SharednessStream(groups), stored_pairs_and_groups)
        save_sharedness(workspace.folded(workspace.feature_set(name, seed), stream, groups).result(), directory)

    recipe = {"features": features.recipe, "set": workspace.feature_set_recipe(name, seed)}
    artifact = workspace.artifacts.build("sharedness", f"{name}-{features.store.path.name}", recipe, make)
    return load_sharedness(artifact.path)


def score_rows(
    scored: FeatureSetDominance, found: Sharedness, live: Bool[Tensor, " features"]
) -> list[dict[str, object]]:
    """One table row per feature on both axes: modality dominance, and sharedness with its q-value among live features."""
    q_values = found.q_value(live).tolist()
    return [
        {**row, "sharedness": score, "sharedness_q_value": q}
        for row, score, q in zip(scored.to_rows(), found.score.tolist(), q_values, strict=True)
    ]


def sharedness_counts(
    scored: FeatureSetDominance, found: Sharedness, live: Bool[Tensor, " features"]
) -> dict[str, Any]:
    """Cells of a summary: for each class the number of shared features, and the median of the class's sharedness."""
    shared = found.q_value(live) <= FDR
    cells: dict[str, Any] = {}
    for of in LIVE_CLASSES:
        members = scored.partition[of]
        cells[f"{of}_shared"] = int(shared[members].sum())
        cells[f"{of}_sharedness"] = median(found.score[members])
    return cells
