"""What each entrypoint does with a workspace: compute unless it is there, save, show."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from hydra.utils import instantiate

from mmmono.core.errors import ConfigError
from mmmono.features import FeatureStore, activations
from mmmono.modality import dominance_scores, modality_gap
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.feature_sets import Trained
from mmmono.pipeline.training import HISTORY_FILE
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.mds_figures import mds_distributions
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, save_table, show_table
from mmmono.reporting.training_figures import training_curves

# Of the summary's columns those that fit a terminal of 80.
TERMINAL_COLUMNS = ("feature set", "features", "ImgD", "TextD", "CrossD", "dead", "mean", "std", "skewness", "gap")


def extract(workspace: Workspace) -> None:
    """Make the feature store of the dataset's split, and describe it."""
    features = workspace.features(workspace.dataset.split)
    store = FeatureStore(features.store.path)
    manifest = store.manifest
    row: dict[str, object] = {
        "model": workspace.model.name,
        "pairs": len(store),
        "dim": store.dim,
        "dtype": str(store.dtype),
    }
    if manifest is not None:
        row |= {"dataset": manifest.dataset, "skipped": manifest.skipped}
    show_table([row], "Feature store")
    console.print(f"{'made' if features.store.built else 'reused'} {features.store.path}")


def train_dictionaries(workspace: Workspace) -> None:
    """Train the dictionary of each chosen feature set, with its curves (Figures 11, 12)."""
    names = [name for name, recipe in workspace.recipes.items() if isinstance(recipe, Trained)]
    if not names:
        raise ConfigError("features=raw has nothing to train: choose features=sae, features=ncl or features=[sae,ncl]")
    rows = []
    for name in names:
        artifact = workspace.dictionary(name)
        history = pd.read_parquet(artifact.path / HISTORY_FILE)
        curves = artifact.path / "training_curves.png"
        if not curves.exists():
            save_figure(training_curves(history, name), artifact.path / "training_curves")
        last = history.iloc[-1]
        metrics = {
            str(name).removeprefix("val/"): float(value) for name, value in last.items() if str(name)[:4] == "val/"
        }
        rows.append({"dictionary": name, "steps": int(last["step"]), **metrics})
        console.print(f"{name}: {'trained' if artifact.built else 'reused'} {artifact.path}")
    for row in rows:
        show_table(
            [{"metric": key, "value": value} for key, value in row.items()],
            f"{row['dictionary']} on the {workspace.dataset.split} split",
        )


def score_modality_dominance(workspace: Workspace) -> None:
    """Eq. 1, partition, Figure 4 and the table of counts and moments, for all chosen feature sets side by side."""
    cfg = workspace.cfg
    split = workspace.dataset.split
    features = workspace.features(split)
    recipe = {
        "features": features.recipe,
        "sets": [workspace.feature_set_recipe(name) for name in workspace.recipes],
        "mds": dict(cfg.mds),
        "partition": dict(cfg.partition),
    }

    def make(directory: Path) -> None:
        sets = [_dominance(workspace, name) for name in workspace.recipes]
        gap = modality_gap((block.image, block.text) for block in features.view.blocks())
        save_table([row for dominance in sets for row in dominance.to_rows()], directory / "scores")
        rows = [{**dominance.to_row(), "gap": gap.centroid_distance} for dominance in sets]
        save_table(rows, directory / "summary")
        (directory / "modality_gap.json").write_text(json.dumps(asdict(gap), indent=2) + "\n")
        save_figure(mds_distributions(sets), directory / "mds")

    artifact = workspace.artifacts.build("results", f"mds-{features.store.path.name}", recipe, make)
    rows = json.loads((artifact.path / "summary.json").read_text())
    compact = [{key: row[key] for key in TERMINAL_COLUMNS} for row in rows]
    show_table(compact, f"Modality dominance: {workspace.model.name} on {workspace.dataset_name} ({split})")
    console.print(f"Figure 4 and scores: {artifact.path}/mds.png, scores.parquet")


def _dominance(workspace: Workspace, name: str) -> FeatureSetDominance:
    cfg = workspace.cfg
    view = workspace.features(workspace.dataset.split).view
    blocks = activations(view, workspace.feature_set(name), normalize=cfg.features.normalize, device=workspace.device)
    scores = dominance_scores(((block.image, block.text) for block in blocks), cfg.mds.undefined)
    live = scores.informative_pairs >= cfg.mds.min_pairs
    try:
        partition = instantiate(cfg.partition)(scores.scores, live=live)
    except Exception as error:
        raise ConfigError(f"partition of feature set {name!r}: {error}") from error
    return FeatureSetDominance(name, scores, partition)
