"""`experiments/extract.py`: extract the features of a dataset's split into a feature store."""

from __future__ import annotations

from mmmono.core.artifacts import Artifact
from mmmono.core.errors import ConfigError
from mmmono.features import FeatureStore
from mmmono.features.selection import Split
from mmmono.features.shares import Share, read_share
from mmmono.pipeline.engines import Engine, Local
from mmmono.pipeline.maker import embeddings_given
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.tables import console, show_table


def extract(workspace: Workspace) -> None:
    """Make the feature store of the dataset's split and print its size.

    With `extraction.part_of` this process does a share of it, with `engine=ray` a cluster does it all.

    Raises:
        ConfigError: features are to be shared that are not extracted, or whose extraction cannot be shared.
    """
    split = workspace.dataset.whole_split()  # a few pairs may leave one side of a split empty
    engine, part_of = workspace.engine, workspace.cfg.extraction.part_of
    made: Artifact | None = None
    if part_of is not None or not isinstance(engine, Local):
        share = None if part_of is None else read_share(str(part_of))
        made = _made_together(workspace, split, engine, share)
        if made is None:
            shards = len(workspace.dataset.source(split).parts())
            did = "done" if share is None or share.parts(shards) else f"share {share} has none of the {shards} shards"
            console.print(
                f"{did}; the features are not complete yet: the process that does the last shards finishes them"
            )
            _tell_others(workspace, split)
            return
    made = made or workspace.features(split).store
    store = FeatureStore(made.path)
    manifest = store.manifest
    row: dict[str, object] = {
        "model": workspace.model.name,
        "pairs": len(store),
        "dim": store.dim,
        "dtype": str(store.dtype),
    }
    if manifest is not None:
        row |= {"dataset": manifest.dataset, "skipped": manifest.skipped, "full captions": manifest.full}
    show_table([row], "Feature store")
    console.print(f"{'made' if made.built else 'reused'} {made.path}")


def _tell_others(workspace: Workspace, split: Split) -> None:
    """Say it if shares may have begun different stores: of those, none is ever complete."""
    extraction = workspace.extraction(split, workspace.engine.device_type(workspace.device))
    if others := extraction.others_unfinished(workspace.dataset.limit):
        console.print(
            f"{others[0]} is not complete either: if another share made it, its settings differ (such as "
            "extraction.precision, which a GPU changes, or extraction.dtype): give all shares the same",
            markup=False, highlight=False,
        )  # fmt: skip


def _made_together(workspace: Workspace, split: Split, engine: Engine, share: Share | None) -> Artifact | None:
    """Work beside other processes; return the store if it is complete then."""
    asked = "engine=ray" if share is None else f"extraction.part_of={share}"
    if share is not None and not isinstance(engine, Local):
        raise ConfigError(
            f"{asked} with engine=ray: the cluster shares out the shards by itself; leave one of them out"
        )
    if share is not None and workspace.settings.extraction.devices != 1:
        raise ConfigError(
            f"{asked} with extraction.devices: give each device a share of its own; leave one of them out"
        )
    workspace.dataset.check(split)
    if embeddings_given(workspace):
        raise ConfigError(
            f"{asked} with dataset={workspace.dataset_name}: its features are not extracted from pairs, so there is nothing "
            "to share; leave it out"
        )
    extraction = workspace.extraction(split, engine.device_type(workspace.device))
    limit = workspace.dataset.limit
    made = engine.extract(extraction, limit) if share is None else extraction.share(share, limit)
    if made is not None and (manifest := FeatureStore(made.path).manifest) is not None:
        extraction.settings.allowance.check(manifest)
    return made
