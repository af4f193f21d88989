"""Two samples of pairs that share none: one to choose something by, the other to test the choice on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.features import FeatureSet, Modality
from mmmono.features.rows import prepare
from mmmono.features.selection import Split
from mmmono.pipeline.workspace import Workspace

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PairSample:
    """Some pairs of a split.

    Attributes:
        split: the split.
        positions: their positions in the split, ascending.
        groups: group of each of them, as numbers from 0 on.
        metadata: their rows, all values as text.
    """

    split: Split
    positions: Int[Array, " pairs"]
    groups: Int[Array, " pairs"]
    metadata: pd.DataFrame

    def __len__(self) -> int:
        return len(self.positions)

    def embeddings(self, workspace: Workspace, modality: Modality) -> Float[Tensor, "pairs dim"]:
        """Embeddings of one modality as feature sets take them: normalized if `features.normalize` says so."""
        view = workspace.features(self.split).view
        rows, origin = view.gather(modality, self.positions), view.origin(modality, self.positions)
        return prepare(rows, workspace.settings.features.normalize, "cpu", origin)

    def activations(
        self, workspace: Workspace, feature_set: FeatureSet, modality: Modality
    ) -> Float[Tensor, "pairs features"]:
        """Activations of a feature set on one modality."""
        return workspace.encode_rows(feature_set, modality, self.positions, self.split)


def chosen_and_held_out(workspace: Workspace, max_pairs: int) -> tuple[PairSample, PairSample]:
    """Sample pairs of the training split, and others of the dataset's split that the first has none of.

    A hash split divides no group, so the two samples share no group either. Whole groups are not sampled: of a split with
    more pairs than `max_pairs`, single pairs are drawn.

    Args:
        workspace: provides the splits; `training.split` is the one to choose by.
        max_pairs: pairs of each sample, at most.

    Raises:
        ConfigError: every pair of the dataset's split is in the training split.
    """
    choose, test = workspace.settings.training.split, workspace.dataset.split
    first, second = workspace.features(choose).view, workspace.features(test).view
    held = np.arange(len(second))
    if first.store.path == second.store.path:
        taken = np.arange(len(first.store)) if first.rows is None else first.rows
        own = held if second.rows is None else second.rows
        held = held[~np.isin(own, taken)]
    if not len(held):
        raise ConfigError(
            f"training.split={choose} holds every pair of dataset.split={test}: choose another, so that there are pairs to "
            "test on that nothing was chosen by"
        )
    rng = np.random.default_rng(workspace.seed)
    return (
        _sample(workspace, choose, np.arange(len(first)), max_pairs, rng),
        _sample(workspace, test, held, max_pairs, rng),
    )


def _sample(
    workspace: Workspace, split: Split, positions: Array, max_pairs: int, rng: np.random.Generator
) -> PairSample:
    view = workspace.features(split).view
    if len(positions) > max_pairs:
        positions = np.sort(rng.choice(positions, max_pairs, replace=False))
    groups = pd.factorize(view.groups()[positions])[0].astype(np.int64)
    return PairSample(split, positions, groups, view.metadata().iloc[positions].reset_index(drop=True))
