"""Compare dictionaries of different seeds: features matched on some pairs of a dataset, scores compared on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.core.memory import usable_memory
from mmmono.core.progress import progress_bar
from mmmono.features import MODALITIES, Modality
from mmmono.features.feature_set import ActivationBlock, FeatureSet
from mmmono.features.folding import WORTH_A_BAR, OfBlocks, Together, ignored
from mmmono.features.selection import Split
from mmmono.modality import CorrelationStream, DominanceStream, match_features
from mmmono.modality.groups import group_sizes
from mmmono.modality.seed_agreement import HalvesStream, SeedAgreement, SeedScores, seed_agreement
from mmmono.pipeline.workspace import Workspace

Positions = np.ndarray[Any, np.dtype[np.int64]]
CHUNK = 2048  # pairs whose activations are held at a time
MATRICES = 3  # of features × features in float64: products, correlations, and the copy that features are matched by
FEWEST_GROUPS = 8  # two to halve, on either side, and some to correlate


def trained_sets(workspace: Workspace) -> list[str]:
    """Names of the selected feature sets that are trained. Raises ConfigError if there are none."""
    found = [name for name, spec in workspace.specs.items() if spec.trained]
    if not found:
        raise ConfigError(
            f"features=[{','.join(workspace.specs)}] has no trained feature set, and only trainings are compared: "
            "choose features=sae or features=[sae,ncl]"
        )
    return found


def matching_split(workspace: Workspace) -> Split:
    """Split that features are matched on: the training split, or the scored split if the two share pairs."""
    training: Split = workspace.settings.training.split
    shared = training == workspace.dataset.split or "all" in (training, workspace.dataset.split)
    return workspace.dataset.split if shared else training


def numbers_of_chosen(groups: Positions, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> Positions:
    """Return the group of each chosen pair, numbered from 0 without gaps; −1 for other pairs."""
    numbers = np.full(len(groups), -1)
    numbers[chosen] = np.unique(groups[chosen], return_inverse=True)[1]
    return numbers


def check_width(features: int) -> None:
    """Raise ConfigError if correlations of all features of one dictionary with all of another do not fit into memory."""
    needed, there = MATRICES * 8 * features**2, usable_memory()
    if needed > there:
        raise ConfigError(
            f"to match {features:,} features with those of another seed takes {needed / 1e9:.0f} GB, for correlations of "
            f"all with all, but this process may use {there / 1e9:.0f} GB of memory: compare narrower dictionaries "
            "(features.expansion=)"
        )


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
        self._seed, self._max_groups = workspace.seed, max_groups
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
        return numbers_of_chosen(self.groups, self.scored)

    @cached_property
    def held_out(self) -> Positions:
        """Positions of scored pairs in the dataset's split, one of each group, of at most `max_groups` groups."""
        rng = np.random.default_rng(self._seed)
        order = rng.permutation(np.flatnonzero(self.scored))
        one = order[np.unique(self.groups[order], return_index=True)[1]]
        return np.sort(one if len(one) <= self._max_groups else rng.choice(one, self._max_groups, replace=False))


@dataclass(frozen=True)
class OtherSeed:
    """A dictionary of another seed, compared with the reference.

    Attributes:
        scores: its scores, features renumbered as the reference's.
        partners: index of each match in the dictionary.
        correlation: correlation of each feature of the reference with its match, on scored pairs, not those of matching.
        agreement: agreement with the reference.
        chance: agreements after matching on shuffled pairs.
        chance_partners: indices of these matches.
        chance_correlations: correlations with these matches, on the same scored pairs.
    """

    scores: SeedScores
    partners: Tensor
    correlation: Tensor
    agreement: SeedAgreement
    chance: Sequence[SeedAgreement]
    chance_partners: Sequence[Tensor]
    chance_correlations: Sequence[Tensor]


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
        """Score a dictionary on the pairs that are for scoring, and on random halves of their groups.

        Raises:
            ConfigError: its features are too many to be matched.
        """
        check_width(feature_set.num_features)  # the first one, before others are trained
        workspace, groups = self.workspace, self.pairs.scored_groups
        undefined = workspace.settings.mds.undefined
        scores = DominanceStream(undefined, group_sizes(groups[self.pairs.scored]))
        halves = HalvesStream(self.pairs.n_groups, self.n_halves, workspace.seed, undefined)
        both = Together(OfBlocks(scores, chosen_pairs), OfBlocks(halves, chosen_pairs))
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
        sets, own = (first[0], second[0]), (self.pairs.split, self.pairs.matched)
        samples = len(MODALITIES) * ((1 + self.n_chance) * len(self.pairs.matched) + len(self.pairs.held_out))
        with progress_bar() if samples * first[0].num_features >= WORTH_A_BAR else nullcontext() as bar:
            name = f"{first[0].name} matched with seed {seeds[-1]}"
            advance = ignored if bar is None else partial(bar.advance, bar.add_task(name, total=samples))
            partners, _ = match_features(self._activations(*sets, *own, advance))
            matched = second[1].reordered(partners)
            rng = np.random.default_rng(seeds)
            chance, places = [], []
            for _ in range(self.n_chance):
                shuffled = {modality: rng.permutation(self.pairs.matched) for modality in MODALITIES}
                by_chance, _ = match_features(self._activations(*sets, *own, advance, shuffled))
                places.append(by_chance)
                chance.append(seed_agreement(first[1], second[1].reordered(by_chance)))
            correlations = self._held_out_correlations(*sets, advance)
        correlation, *alike = (correlations[torch.arange(len(of)), of] for of in (partners, *places))
        agreement = seed_agreement(first[1], matched)
        return OtherSeed(matched, partners, correlation, agreement, chance, places, alike)

    def _held_out_correlations(
        self, first: FeatureSet, second: FeatureSet, advance: Callable[[int], None]
    ) -> Float64[Tensor, "features features"]:
        """Correlate all features of two dictionaries, within modalities, on scored pairs; 0 where one never varies."""
        stream = CorrelationStream()
        for block in self._activations(first, second, self.workspace.dataset.split, self.pairs.held_out, advance):
            stream.add(*block)
        return stream.result()

    def _activations(
        self,
        first: FeatureSet,
        second: FeatureSet,
        split: Split,
        positions: Positions,
        advance: Callable[[int], None],
        orders: Mapping[Modality, Positions] = MappingProxyType({}),
    ) -> Iterator[tuple[Tensor, Tensor, str]]:
        """Activations of both dictionaries on some pairs of a split; `orders` gives the second one other pairs."""
        workspace = self.workspace
        device = workspace.device if workspace.device.startswith("cuda") else "cpu"
        for modality in MODALITIES:
            order = orders.get(modality, positions)
            for start in range(0, len(order), CHUNK):
                at, rows = (of[start : start + CHUNK] for of in (positions, order))
                a = workspace.encode_rows(first, modality, at, split)
                b = workspace.encode_rows(second, modality, rows, split)
                yield a.to(device), b.to(device), modality
                advance(len(at))


def chosen_pairs(block: ActivationBlock) -> tuple[Any, ...]:
    """Activations of the pairs with a group from 0 on, and their groups; see `numbers_of_chosen`."""
    assert block.groups is not None
    chosen = torch.from_numpy(block.groups >= 0)
    return block.image[chosen], block.text[chosen], block.groups[chosen.numpy()]


def mean_agreement(agreements: Sequence[SeedAgreement], of: str) -> float:
    """Mean of a number of several agreements, such as `rho`."""
    return float(np.mean([getattr(agreement, of) for agreement in agreements]))
