"""`experiments/mds.py`: Eq. 1, the partition and Figure 4 (Section 2.1)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from mmmono.core.errors import ConfigError
from mmmono.features import ActivationBlock, FeatureSet
from mmmono.modality import dominance_scores, modality_gap
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.mds_figures import mds_distributions
from mmmono.reporting.rows import dominance_rows
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, save_table, show_table


def score_modality_dominance(workspace: Workspace) -> None:
    """Compute Eq. 1, the partition, Figure 4 and the table of counts and moments for all selected feature sets."""
    features = workspace.features(workspace.dataset.split)
    recipe = {"features": features.recipe, **workspace.partitions_recipe()}

    def make(directory: Path) -> None:
        sets = [dominance(workspace, name) for name in workspace.recipes]
        gap = modality_gap((block.image, block.text) for block in features.view.blocks())
        save_table([row for scored in sets for row in scored.to_rows()], directory / "scores")
        rows = [{**scored.to_row(), "gap": gap.centroid_distance} for scored in sets]
        save_table(rows, directory / "summary")
        (directory / "modality_gap.json").write_text(json.dumps(asdict(gap), indent=2) + "\n")
        save_figure(mds_distributions(sets), directory / "mds")

    artifact = workspace.results("mds", recipe, make)
    rows = json.loads((artifact.path / "summary.json").read_text())
    show_table(dominance_rows(rows), f"Modality dominance: {workspace.title}")
    console.print(f"Figure 4 and scores: {artifact.path}/mds.png, scores.parquet")


def dominance(
    workspace: Workspace,
    name: str,
    feature_set: FeatureSet | None = None,
    blocks: Iterable[ActivationBlock] | None = None,
) -> FeatureSetDominance:
    """Score and partition a feature set on the dataset's split.

    Args:
        workspace: the features and the settings of score and partition.
        name: name of the feature set.
        feature_set: the feature set, if not the configured one, e.g. a dictionary trained with another seed.
        blocks: its activations, if the caller uses them in the same pass; by default they are computed.

    Raises:
        ConfigError: settings of the score or the partition are invalid.
    """
    settings = workspace.cfg.mds
    if settings.undefined not in ("skip", "half"):
        raise ConfigError(f"mds.undefined={settings.undefined} is none of skip, half")
    if blocks is None:
        blocks = workspace.activations(feature_set or workspace.feature_set(name))
    scores = dominance_scores(((block.image_rows, block.text_rows) for block in blocks), settings.undefined)
    live = scores.informative_pairs >= settings.min_pairs
    return FeatureSetDominance(name, scores, workspace.partition(scores.scores, live))
