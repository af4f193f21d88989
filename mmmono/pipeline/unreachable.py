"""Say which classes of a result's feature sets no feature can be in: beyond all possible scores, or all if none is live."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmmono.modality import Partition
from mmmono.modality.partition_file import load_partition
from mmmono.pipeline.workspace import Workspace


def unreachable_classes(workspace: Workspace, recipe: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each class that cannot have a feature, of the feature sets that a result classified.

    Args:
        workspace: has the partitions; none is made.
        recipe: of a result.
    """
    for name, digest in recipe.get("partitions", {}).items():
        for found in workspace.artifacts.find("partitions", f"*-{digest}"):  # the one, or none if it was deleted
            partition = load_partition(found.path, name).partition
            if not len(partition.live):
                yield (
                    f"{name}: no feature is in a class, since none is activated by pairs of "
                    f"{recipe['mds']['min_pairs']} groups: give more pairs, or lower mds.min_pairs"
                )
            yield from _told(name, partition, workspace.modalities.said)


def _told(name: str, partition: Partition, said: Callable[[str], str]) -> Iterator[str]:
    for of in partition.unreachable:
        border = partition.low if of == "TextD" else partition.high
        other = said("ImgD" if of == "TextD" else "TextD")
        yield (
            f"{name}: no feature can be {said(of)}, whose border lies at {border:.2f}, and {said('CrossD')} has all that "
            f"are not {other}: most scores lie at one end. The borders of partition=margin do not depend on the scores"
        )
