"""Dictionaries of several seeds: features matched on some pairs, scores and classes compared on others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmmono.analyses.consensus import Settings
from mmmono.core.errors import ConfigError
from mmmono.features import MODALITIES, Modality
from mmmono.features.feature_set import ActivationBlock, FeatureSet
from mmmono.features.folding import OfBlocks, Together
from mmmono.features.selection import Split
from mmmono.modality import DominanceStream, adjusted_rand_index, match_features, rank_correlation
from mmmono.modality.groups import group_sizes
from mmmono.modality.seed_agreement import (
    HalvesStream,
    SeedAgreement,
    SeedScores,
    class_shares,
    consensus_features,
    corrected_interval,
    reliability,
    seed_agreement,
)
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

Row = dict[str, object]
Positions = np.ndarray[Any, np.dtype[np.int64]]
CHUNK = 2048  # pairs whose activations are held at a time
FEWEST_GROUPS = 8  # two to halve, on either side, and some to correlate


def prepare(workspace: Workspace) -> Study:
    """Compare the dictionaries of the selected feature sets that are trained with those of other seeds."""
    settings = read_settings(workspace.cfg, "consensus", Settings)
    trained = [name for name, recipe in workspace.recipes.items() if recipe.trained]
    if not trained:
        raise ConfigError(
            f"features=[{','.join(workspace.recipes)}] has no trained feature set, and only those depend on a seed: "
            "choose features=sae or features=[sae,ncl]"
        )
    scored = workspace.features(workspace.dataset.split)
    matching = workspace.features(_matching_split(workspace))
    recipe = {
        "features": scored.recipe,
        "matched_on": matching.recipe,
        "sets": [workspace.feature_set_recipe(name) for name in trained],
        **workspace.partition_settings(),
        "partitions": workspace.partition_digests(trained),
        "consensus": asdict(settings),
        "seed": workspace.seed,
    }

    def compute(folder: Path) -> Tables:
        pairs = _Pairs(workspace, settings.max_groups)
        compared = [_Seeds(workspace, name, settings, pairs) for name in trained]
        return {
            "summary": [seeds.summary() for seeds in compared],
            "features": [row for seeds in compared for row in seeds.features()],
        }

    return Study(recipe, compute)


def _matching_split(workspace: Workspace) -> Split:
    """Split that features are matched on: the training split, or the scored split if the two share pairs."""
    training: Split = workspace.settings.training.split
    shared = training == workspace.dataset.split or "all" in (training, workspace.dataset.split)
    return workspace.dataset.split if shared else training


class _Pairs:
    """Pairs that features are matched on, and pairs that R(d) is scored on; no group has pairs in both.

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
        self.split = _matching_split(workspace)
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
class _Other:
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


class _Seeds:
    """The dictionaries of one feature set, trained with several seeds."""

    def __init__(self, workspace: Workspace, name: str, settings: Settings, pairs: _Pairs) -> None:
        self.workspace, self.name, self.settings, self.pairs = workspace, name, settings, pairs
        reference = workspace.feature_set(name)
        self.reference = self._scores(reference)
        self.others = [self._other(reference, workspace.seed + i) for i in range(1, settings.n_seeds + 1)]
        self.correlations = torch.stack([other.correlation for other in self.others])
        live = torch.stack([of.live for of in self._all()])
        self.consensus = consensus_features(self.correlations, live, settings.threshold)

    def _all(self) -> list[SeedScores]:
        return [self.reference, *(other.scores for other in self.others)]

    def _scores(self, feature_set: FeatureSet) -> SeedScores:
        """Score a dictionary on the pairs that are for scoring, and on random halves of their groups."""
        undefined = self.workspace.settings.mds.undefined
        scores = DominanceStream(undefined, group_sizes(self.pairs.scored_groups[self.pairs.scored]))
        halves = HalvesStream(self.pairs.n_groups, self.settings.n_halves, self.workspace.seed, undefined)
        both = Together(OfBlocks(scores, _scored_pairs), OfBlocks(halves, _scored_pairs))
        self.workspace.folded(feature_set, both, self.pairs.scored_groups)
        result = scores.result()
        partition = self.workspace.classify(result.scores, self.workspace.live(result))
        return SeedScores(result.scores, partition, halves.result())

    def _other(self, reference: FeatureSet, seed: int) -> _Other:
        other = self.workspace.feature_set(self.name, seed)
        scores = self._scores(other)
        partners, correlation = match_features(self._activations(reference, other, {}))
        matched = scores.reordered(partners)
        rng = np.random.default_rng((self.workspace.seed, seed))
        chance, alike = [], []
        for _ in range(self.settings.n_chance):
            shuffled = {modality: rng.permutation(self.pairs.matched) for modality in MODALITIES}
            by_chance, correlations = match_features(self._activations(reference, other, shuffled))
            chance.append(seed_agreement(self.reference, scores.reordered(by_chance)))
            alike.append(float(correlations.mean()))
        return _Other(matched, correlation, seed_agreement(self.reference, matched), chance, alike)

    def _activations(
        self, reference: FeatureSet, other: FeatureSet, orders: Mapping[Modality, Positions]
    ) -> Iterator[tuple[Tensor, Tensor, str]]:
        """Activations of both dictionaries on the pairs for matching; `orders` gives the second one other pairs."""
        workspace, split = self.workspace, self.pairs.split
        device = workspace.device if workspace.device.startswith("cuda") else "cpu"
        for modality in MODALITIES:
            order = orders.get(modality, self.pairs.matched)
            for start in range(0, len(order), CHUNK):
                at, rows = (positions[start : start + CHUNK] for positions in (self.pairs.matched, order))
                a = workspace.encode_rows(reference, modality, at, split)
                b = workspace.encode_rows(other, modality, rows, split)
                yield a.to(device), b.to(device), modality

    def _halves_ari(self) -> float:
        """Agreement of the classes between halves of the groups, averaged over halvings and seeds."""
        found = []
        for scores in self._all():
            for ends in zip(*scores.halves, strict=True):
                found.append(adjusted_rand_index(*(self.workspace.classify(end, scores.live) for end in ends)))
        return float(np.mean(found))

    def summary(self) -> Row:
        """Row of the summary: means over the other seeds."""
        pairs = self.pairs
        live = int(self.reference.live.sum())
        agreed = int(self.consensus.sum())
        mine = self.reference.scores[self.consensus]
        agreeing = [rank_correlation(mine, other.scores.scores[self.consensus]) for other in self.others]
        return {
            "feature_set": self.name, "seeds": 1 + len(self.others), "pairs": int(pairs.scored.sum()),
            "groups": pairs.n_groups, "matched_groups": len(pairs.matched), "live": live, **self._agreement(),
            "halves_ari": self._halves_ari(), "match": float(self.correlations.mean()),
            "chance_match": float(np.mean([other.chance_correlations for other in self.others])),
            "consensus": agreed, "consensus_share": agreed / live if live else float("nan"),
            "consensus_rho": float(np.mean(agreeing)),
        }  # fmt: skip

    def _agreement(self) -> Row:
        found = [other.agreement for other in self.others]
        by_chance = [agreement for other in self.others for agreement in other.chance]
        within, chance = _mean(found, "within"), _mean(by_chance, "across")
        corrected = corrected_interval(
            self.reference, self._all()[1:], chance, self.settings.n_bootstrap, self.workspace.seed
        )
        return {
            "live_in_both": _mean(found, "features"), "rho": _mean(found, "rho"), "chance_rho": _mean(by_chance, "rho"),
            **corrected.columns("corrected_rho"), "across_rho": _mean(found, "across"), "chance_across_rho": chance,
            "halves_rho": within, "reliability": reliability(within), "ari": _mean(found, "ari"),
            "chance_ari": _mean(by_chance, "ari"),
        }  # fmt: skip

    def features(self) -> list[Row]:
        """One row for each feature of the reference."""
        matched = [other.scores for other in self.others]
        shares = class_shares([scores.partition for scores in self._all()])
        others = torch.stack([scores.scores for scores in matched])
        columns = {
            "match": self.correlations.amin(0), "consensus": self.consensus, **shares, "mds": self.reference.scores,
            "others_mds": others.nanmean(0), "mean_mds": torch.cat([self.reference.scores[None], others]).nanmean(0),
        }  # fmt: skip
        values = {name: column.tolist() for name, column in columns.items()}
        return [
            {"feature_set": self.name, "feature": i, "class": of, **{key: column[i] for key, column in values.items()}}
            for i, of in enumerate(self.reference.partition.class_of())
        ]


def _scored_pairs(block: ActivationBlock) -> tuple[Any, ...]:
    """Activations of the pairs that are scored, and their groups."""
    assert block.groups is not None
    scored = torch.from_numpy(block.groups >= 0)
    return block.image[scored], block.text[scored], block.groups[scored.numpy()]


def _mean(agreements: Sequence[SeedAgreement], of: str) -> float:
    return float(np.mean([getattr(agreement, of) for agreement in agreements]))
