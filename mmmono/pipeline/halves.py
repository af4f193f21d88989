"""Classes of features on half of the groups of pairs, so that what depends on them is measured on the other half.

On the pairs by which a feature was classified, what happens without its class is biased: a feature may be TextD because
these very texts activate it and their images do not, and retrieval among these pairs gets better without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmmono.core.errors import ConfigError
from mmmono.features import FeatureSet
from mmmono.features.folding import OfBlocks
from mmmono.modality import DominanceStream, Partition
from mmmono.modality.groups import group_sizes
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.seed_comparison import Positions, chosen_pairs, numbers_of_chosen
from mmmono.pipeline.workspace import Workspace
from mmmono.pipeline.zero_shot import sample_of_pairs

FEWEST_GROUPS = 2  # to find a pair among


@dataclass(frozen=True)
class Halves:
    """Two halves of the groups of the dataset's split.

    Attributes:
        classified: group of each pair by which features are classified, numbered from 0 without gaps; −1 for the pairs of
            the other half.
    """

    classified: Positions

    @classmethod
    def of(cls, workspace: Workspace) -> Halves:
        """Halve the groups of the dataset's split at random, by the run's seed; an odd one is in the other half."""
        groups = workspace.features(workspace.dataset.split).view.groups()
        order = np.random.default_rng(workspace.seed).permutation(int(groups.max()) + 1)
        return cls(numbers_of_chosen(groups, order[groups] < len(order) // 2))

    @classmethod
    def leaving(cls, workspace: Workspace, setting: str, max_pairs: int) -> Halves:
        """Halve the groups as `of` does, and check that enough of the sampled pairs are left to remove classes on.

        Args:
            workspace: has the dataset.
            setting: name of the setting that says how many pairs are sampled.
            max_pairs: its value.

        Raises:
            ConfigError: sampled pairs of fewer than two groups are left.
        """
        halves, rows = cls.of(workspace), sample_of_pairs(workspace, max_pairs)
        groups = workspace.features(workspace.dataset.split).view.groups()[rows]
        if (left := len(np.unique(groups[halves.left(rows)]))) < FEWEST_GROUPS:
            raise ConfigError(
                f"{setting}={max_pairs} leaves {left} groups of pairs to remove classes on, beside those by which features "
                f"are classified: raise it, so that at least {FEWEST_GROUPS} are left"
            )
        return halves

    def dominance(self, workspace: Workspace, feature_set: FeatureSet) -> FeatureSetDominance:
        """Score and classify features by the pairs for it. Raises ConfigError if settings of the partition are invalid."""
        stream = DominanceStream(workspace.settings.mds.undefined, group_sizes(self.classified[self.classified >= 0]))
        scores = workspace.folded(feature_set, OfBlocks(stream, chosen_pairs), self.classified).result()
        return FeatureSetDominance(feature_set.name, scores, workspace.classify(scores.scores, workspace.live(scores)))

    def partition(self, workspace: Workspace, feature_set: FeatureSet) -> Partition:
        """Classify features as `dominance` does."""
        return self.dominance(workspace, feature_set).partition

    def left(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mask of the pairs, given by their positions in the split, that no feature is classified by."""
        mask: np.ndarray[Any, np.dtype[np.bool_]] = self.classified[rows] < 0
        return mask
