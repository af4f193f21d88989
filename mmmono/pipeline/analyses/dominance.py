"""`experiments/mds.py`: Eq. 1, the partition and Figure 4 (Section 2.1)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mmmono.modality import modality_gap
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
        sets = [workspace.dominance(name) for name in workspace.recipes]
        gap = modality_gap((block.image, block.text) for block in features.view.blocks())
        save_table([row for scored in sets for row in scored.to_rows()], directory / "scores")
        rows = [{**scored.to_row(), "gap": gap.centroid_distance} for scored in sets]
        save_table(rows, directory / "summary")
        (directory / "modality_gap.json").write_text(json.dumps(asdict(gap), indent=2) + "\n")
        save_figure(mds_distributions(sets), directory / "mds")

    artifact = workspace.results("mds", recipe, make)
    rows = json.loads((artifact.path / "summary.json").read_text())
    show_table(dominance_rows(rows), f"Modality dominance: {workspace.title}, {rows[0]['pairs']:,} pairs")
    console.print(f"Figure 4 and scores: {artifact.path}/mds.png, scores.parquet")
