"""`experiments/extract.py`: extract the features of a dataset's split into a feature store."""

from __future__ import annotations

from mmmono.features import FeatureStore
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.tables import console, show_table


def extract(workspace: Workspace) -> None:
    """Make the feature store of the dataset's split and print its size."""
    features = workspace.features(workspace.whole_split("auto"))  # a few pairs may leave one side of a split empty
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
