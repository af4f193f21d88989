"""Top samples of a feature set on the dataset's split, for the analyses that need them (Sections 2.3 and 3.2)."""

from __future__ import annotations

import pandas as pd

from mmmono.core.errors import ConfigError
from mmmono.features import FeatureSet, Modality
from mmmono.interpretability import TopSamples, TopSampleSearch
from mmmono.interpretability.sides import SIDES, Side
from mmmono.pipeline.workspace import Workspace


def check_m(m: int, pairs: int) -> None:
    """Raise ConfigError unless 1 ≤ m ≤ pairs."""
    if not 1 <= m <= pairs:
        raise ConfigError(f"m={m} top samples asked for, but the split has {pairs} pairs: give 1 to {pairs}")


def check_side(side: str) -> None:
    """Raise ValueError unless the side of signed features is one that `TopSampleSearch` knows."""
    if side not in SIDES:
        raise ValueError(f"side={side} is none of {', '.join(SIDES)}")


def search_of(workspace: Workspace, m: int, deduplicate: bool, side: Side) -> TopSampleSearch:
    """Make a search over the dataset's split, whose groups are those of all statistics (`FeatureView.groups`)."""
    return TopSampleSearch(m, deduplicate, grouped_metadata(workspace), side)


def grouped_metadata(workspace: Workspace) -> pd.DataFrame:
    """Return the metadata of the dataset's split, with the group of each pair by `FeatureView.groups` as `group`."""
    view = workspace.features(workspace.dataset.split).view
    return view.metadata().assign(group=view.groups())


def top_samples_of(
    workspace: Workspace, feature_set: FeatureSet, m: int, deduplicate: bool, side: Side
) -> dict[Modality, TopSamples]:
    """Find the m most activating samples of every feature by modality, in one pass over the split.

    Features whose candidates repeat one another too often take further passes.

    Args:
        workspace: provides the pairs.
        feature_set: the feature set.
        m: number of samples per feature and modality.
        deduplicate: keep one sample per group, such as an emoji's skin tones, and among texts one per caption.
        side: side of 0 that the samples of signed features are taken from, see `TopSampleSearch`.
    """
    search = search_of(workspace, m, deduplicate, side)
    return deepened(workspace, feature_set, workspace.folded(feature_set, search))


def deepened(workspace: Workspace, feature_set: FeatureSet, search: TopSampleSearch) -> dict[Modality, TopSamples]:
    """Return the top samples of a search after its first pass, deeper where needed; tell what could not be found."""
    from mmmono.reporting.tables import console

    top = search.deepened(lambda deeper: workspace.folded(feature_set, deeper).result())
    for modality, features in search.cut.items():
        if features:
            console.print(
                f"{feature_set.name}: {features} features have fewer top {modality}s than asked for, since thousands of "
                "pairs repeat one another: remove repeated pairs, or set deduplicate=false"
            )
    return top
