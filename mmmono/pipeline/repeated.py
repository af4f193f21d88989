"""Say that pairs of different groups have the same image: they are counted as independent, and may straddle the splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmmono.features.grouping import repeated_images
from mmmono.features.selection import Split
from mmmono.pipeline.workspace import Workspace

LEAST = 0.01  # share of a split's images from which on they are told


def repeated_pairs(workspace: Workspace, split: Split) -> Iterator[str]:
    """Yield a sentence if a share of the images of a split is in another group, too; see `repeated_images`.

    Stores on another machine are not read for it.

    Args:
        workspace: has the features.
        split: the split.
    """
    view, grouping = workspace.features(split).view, workspace.dataset.grouping
    if not isinstance(view.store.path, Path) or grouping.near_duplicates is not None:
        return
    repeated = repeated_images(view.store, grouping.codes(view.store), view.rows)
    if not repeated.found or repeated.share < LEAST:
        return
    images = workspace.modalities.fields["images"]
    sample = "" if repeated.among == len(view) else " in a sample"
    yield (
        f"{repeated.found:,} of {repeated.among:,} {images}{sample}: another group has the same one, by all bits of its "
        "embedding. They are counted as independent, and may be both in training and in held-out pairs; "
        "dataset.near_duplicates=0.999 makes them one group"
    )
