"""Compare dictionaries of different seeds: features matched on some pairs of a dataset, scores compared on others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.features import MODALITIES, Modality
from mmmono.features.feature_set import ActivationBlock, FeatureSet
from mmmono.features.folding import OfBlocks, Together
from mmmono.features.selection import Split
from mmmono.modality import DominanceStream, match_features
from mmmono.modality.groups import group_sizes
from mmmono.modality.seed_agreement import HalvesStream, SeedAgreement, SeedScores, seed_agreement
from mmmono.pipeline.workspace import Workspace

Positions = np.ndarray[Any, np.dtype[np.int64]]
CHUNK = 2048  # pairs whose activations are held at a time
FEWEST_GROUPS = 8  # two to halve, on either side, and some to correlate


def seeded_sets(workspace: Workspace) -> list[str]:
    """Names of the selected feature sets that depend on a seed. Raises ConfigError if there are none."""
    found = [name for name, recipe in workspace.recipes.items() if recipe.trained]
    if not found:
        raise ConfigError(
            f"features=[{','.join(workspace.recipes)}] has no trained feature set, and only those depend on a seed: "
            "choose features=sae or features=[sae,ncl]"
        )
    return found


def matching_split(workspace: Workspace) -> Split:
    """Split that features are matched on: the training split, or the scored split if the two share pairs."""
    training: Split = workspace.settings.training.split
    shared = training == workspace.dataset.split or "all" in (training, workspace.dataset.split)
    return workspace.dataset.split if shared else training


class SeedPairs:
    """Pairs that features are matched on, and pairs that R(d) is scored on; no group has pairs in both.

    Args:
        workspace: has the dataset and its splits.
        max_groups: number of groups, at most, of which features are matched on one pair each.

    Attributes:
        split: split of the pairs that features are matched on.
        matched: positions of these pairs in the split, one of each group.
        groups: group of each pair of the dataset's split, from 0 on.
        scored: whether each pair of the dataset's split is scored.

    Raises:
        ConfigError: there are too few groups.
    """

    def __init__(self, workspace: Workspace, max_groups: int) -> None:
        rng = np.random.default_rng(workspace.seed)
        view = workspace.features(workspace.dataset.split).view
        self.groups = view.groups()
        self.scored = np.ones(len(view), dtype=bool)
        self.split = matching_split(workspace)
        groups = workspace.features(self.split).view.groups()
        order = rng.permutation(len(groups))
        matched = order[np.unique(groups[order], return_index=True)[1]]  # a random pair of each group
        if self.split == workspace.dataset.split:  # one half of the groups for matching, the other one for scoring
            matched = rng.permutation(matched)[: len(matched) // 2]
            self.scored = ~np.isin(groups, groups[matched])
        if len(matched) > max_groups:
            matched = rng.choice(matched, max_groups, replace=False)
        self.matched: Positions = np.sort(matched)
        for count, where in ((len(self.matched), self.split), (self.n_groups, workspace.dataset.split)):
            if count < FEWEST_GROUPS:
                raise ConfigError(
                    f"only {count} groups of pairs of the split {where} are left to match or to score features on: "
                    f"give at least {FEWEST_GROUPS}"
                )

    @cached_property
    def n_groups(self) -> int:
        """Number of groups that are scored."""
        return len(np.unique(self.groups[self.scored]))

    @cached_property
    def scored_groups(self) -> Positions:
        """Group of each pair that is scored, numbered from 0 without gaps; −1 for other pairs."""
        numbers = np.full(len(self.groups), -1)
        numbers[self.scored] = np.unique(self.groups[self.scored], return_inverse=True)[1]
        return numbers


@dataclass(frozen=True)
class OtherSeed:
    """A dictionary of another seed, compared with the reference.

    Attributes:
        scores: its scores, features renumbered as the reference's.
        correlation: correlation of each feature of the reference with its match.
        agreement: agreement with the reference.
        chance: agreements after matching on shuffled pairs.
        chance_correlations: mean correlations of these matches.
    """

    scores: SeedScores
    correlation: Tensor
    agreement: SeedAgreement
    chance: Sequence[SeedAgreement]
    chance_correlations: Sequence[float]


@dataclass(frozen=True)
class SeedComparison:
    """Compares dictionaries of one feature set that were trained with different seeds.

    Attributes:
        workspace: has the features, and says how they are scored and partitioned.
        pairs: pairs to match and to score on.
        n_halves: random halvings of the groups, for the noise of R(d).
        n_chance: matchings of shuffled pairs, for the agreement by chance.
    """

    workspace: Workspace
    pairs: SeedPairs
    n_halves: int
    n_chance: int

    def scores(self, feature_set: FeatureSet) -> SeedScores:
        """Score a dictionary on the pairs that are for scoring, and on random halves of their groups."""
        workspace, groups = self.workspace, self.pairs.scored_groups
        undefined = workspace.settings.mds.undefined
        scores = DominanceStream(undefined, group_sizes(groups[self.pairs.scored]))
        halves = HalvesStream(self.pairs.n_groups, self.n_halves, workspace.seed, undefined)
        both = Together(OfBlocks(scores, _scored_pairs), OfBlocks(halves, _scored_pairs))
        workspace.folded(feature_set, both, groups)
        result = scores.result()
        partition = workspace.classify(result.scores, workspace.live(result))
        return SeedScores(result.scores, partition, halves.result())

    def compare(
        self, first: tuple[FeatureSet, SeedScores], second: tuple[FeatureSet, SeedScores], seeds: tuple[int, ...]
    ) -> OtherSeed:
        """Match the features of a second dictionary with those of the first, and compare their scores and classes.

        Args:
            first, second: the dictionaries with their `scores`.
            seeds: seeds of the shuffled pairs.
        """
        partners, correlation = match_features(self._activations(first[0], second[0], {}))
        matched = second[1].reordered(partners)
        rng = np.random.default_rng(seeds)
        chance, alike = [], []
        for _ in range(self.n_chance):
            shuffled = {modality: rng.permutation(self.pairs.matched) for modality in MODALITIES}
            by_chance, correlations = match_features(self._activations(first[0], second[0], shuffled))
            chance.append(seed_agreement(first[1], second[1].reordered(by_chance)))
            alike.append(float(correlations.mean()))
        return OtherSeed(matched, correlation, seed_agreement(first[1], matched), chance, alike)

    def _activations(
        self, first: FeatureSet, second: FeatureSet, orders: Mapping[Modality, Positions]
    ) -> Iterator[tuple[Tensor, Tensor, str]]:
        """Activations of both dictionaries on the pairs for matching; `orders` gives the second one other pairs."""
        workspace, split = self.workspace, self.pairs.split
        device = workspace.device if workspace.device.startswith("cuda") else "cpu"
        for modality in MODALITIES:
            order = orders.get(modality, self.pairs.matched)
            for start in range(0, len(order), CHUNK):
                at, rows = (positions[start : start + CHUNK] for positions in (self.pairs.matched, order))
                a = workspace.encode_rows(first, modality, at, split)
                b = workspace.encode_rows(second, modality, rows, split)
                yield a.to(device), b.to(device), modality


def _scored_pairs(block: ActivationBlock) -> tuple[Any, ...]:
    """Activations of the pairs that are scored, and their groups."""
    assert block.groups is not None
    scored = torch.from_numpy(block.groups >= 0)
    return block.image[scored], block.text[scored], block.groups[scored.numpy()]


def mean_agreement(agreements: Sequence[SeedAgreement], of: str) -> float:
    """Mean of a number of several agreements, such as `rho`."""
    return float(np.mean([getattr(agreement, of) for agreement in agreements]))
