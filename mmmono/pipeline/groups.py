"""Groups of pairs that are found by comparing all images of a store, kept as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.statistics import effective_groups
from mmmono.features import FeatureStore
from mmmono.features.grouping import Grouping, GroupNumbers, near_duplicates
from mmmono.features.metadata import METADATA_VERSION
from mmmono.reporting.formats import with_effective

GROUPS = "groups.npy"


def store_identity(store: Artifact, found: FeatureStore) -> dict[str, Any]:
    """Recipe entries that identify the features of a store.

    Its address says what it was made from; what it holds may differ, where pairs were lost on the way or remote files were
    replaced before it was made again (`+force=true`).

    Args:
        store: the feature store.
        found: the same, opened.
    """
    manifest = found.manifest
    return {"store": store.digest, **({} if manifest is None else {"content": manifest.content})}


def compared_groups(
    artifacts: Artifacts, store: Artifact, found: FeatureStore, grouping: Grouping, device: str
) -> GroupNumbers | None:
    """Return the number of each pair's group after near-duplicates were joined, found first if not known.

    Args:
        artifacts: the artifacts root.
        store: the feature store.
        found: the same, opened.
        grouping: which pairs are one group.
        device: of the comparison.

    Returns:
        Numbers from 0 on, `[pairs]`; None if images are not compared.
    """
    threshold = grouping.near_duplicates
    if threshold is None:
        return None

    def make(directory: Path) -> None:
        codes = grouping.codes(found)
        codes = np.arange(len(found)) if codes is None else codes
        np.save(directory / GROUPS, near_duplicates(found, threshold, codes, device))

    recipe = {**store_identity(store, found), **grouping.recipe(), "metadata": METADATA_VERSION}
    artifact = artifacts.build("groups", store.path.name, recipe, make)
    return np.asarray(np.load(artifact.path / GROUPS))


def counted(groups: GroupNumbers) -> str:
    """Numbers of pairs and of their groups, for titles: `885 pairs, 351 groups (45 effective)`.

    Args:
        groups: group of each pair, as whole numbers from 0 on.
    """
    count = int(groups.max()) + 1
    if count == len(groups):
        return f"{count:,} pairs"
    return f"{len(groups):,} pairs, {with_effective(count, effective_groups(groups))}"
