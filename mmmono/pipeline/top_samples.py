"""Top samples of a feature set on the dataset's split, for the analyses that need them (Sections 2.3 and 3.2)."""

from __future__ import annotations

import pandas as pd

from mmmono.core.errors import ConfigError
from mmmono.features import FeatureSet, Modality
from mmmono.interpretability import TopSamples, TopSampleSearch
from mmmono.pipeline.workspace import Workspace


def check_m(m: int, pairs: int) -> None:
    """Raise ConfigError unless 1 ≤ m ≤ pairs."""
    if not 1 <= m <= pairs:
        raise ConfigError(f"m={m} top samples asked for, but the split has {pairs} pairs: give 1 to {pairs}")


def top_samples_of(
    workspace: Workspace, feature_set: FeatureSet, m: int, deduplicate: bool, metadata: pd.DataFrame
) -> dict[Modality, TopSamples]:
    """Find the m most activating samples of every feature by modality, in one pass over the split.

    Args:
        workspace: provides the pairs.
        feature_set: the feature set.
        m: number of samples per feature and modality.
        deduplicate: keep one sample per group, such as an emoji's skin tones, and among texts one per caption.
        metadata: metadata of the split.
    """
    search = TopSampleSearch(m, deduplicate, metadata)
    for block in workspace.activations(feature_set):
        search.add(block)
    return search.result()
