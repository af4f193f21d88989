"""Dictionaries of several seeds: features matched on some pairs, scores and classes compared on others."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from mmmono.analyses.consensus import Settings
from mmmono.modality import adjusted_rand_index, rank_correlation
from mmmono.modality.seed_agreement import (
    SeedScores,
    class_shares,
    consensus_features,
    corrected_interval,
    reliability,
)
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.seed_comparison import (
    OtherSeed,
    SeedComparison,
    SeedPairs,
    matching_split,
    mean_agreement,
    trained_sets,
)
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

Row = dict[str, object]


def prepare(workspace: Workspace) -> Study:
    """Compare the dictionaries of the selected feature sets that are trained with those of other seeds."""
    settings = read_settings(workspace.cfg, "consensus", Settings)
    trained = trained_sets(workspace)
    scored = workspace.features(workspace.dataset.split)
    matching = workspace.features(matching_split(workspace))
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
        pairs = SeedPairs(workspace, settings.max_groups)
        compared = [_Seeds(workspace, name, settings, pairs) for name in trained]
        return {
            "summary": [seeds.summary() for seeds in compared],
            "features": [row for seeds in compared for row in seeds.features()],
        }

    return Study(recipe, compute)


class _Seeds:
    """The dictionaries of one feature set, trained with several seeds."""

    def __init__(self, workspace: Workspace, name: str, settings: Settings, pairs: SeedPairs) -> None:
        self.workspace, self.name, self.settings, self.pairs = workspace, name, settings, pairs
        self.comparison = SeedComparison(workspace, pairs, settings.n_halves, settings.n_chance)
        self.reference = self.comparison.scores(workspace.feature_set(name))
        self.others = [self._other(workspace.seed + i) for i in range(1, settings.n_seeds + 1)]
        self.correlations = torch.stack([other.correlation for other in self.others])
        live = torch.stack([of.live for of in self._all()])
        self.consensus = consensus_features(self.correlations, live, settings.threshold)

    def _all(self) -> list[SeedScores]:
        return [self.reference, *(other.scores for other in self.others)]

    def _other(self, seed: int) -> OtherSeed:
        other = self.workspace.feature_set(self.name, seed)
        first = self.workspace.feature_set(self.name), self.reference
        return self.comparison.compare(first, (other, self.comparison.scores(other)), (self.workspace.seed, seed))

    def _halves_ari(self) -> float:
        """Agreement of the classes between halves of the groups, averaged over halvings and seeds."""
        found = []
        for scores in self._all():
            for halves in zip(*scores.halves, strict=True):
                found.append(adjusted_rand_index(*(self.workspace.classify(half, scores.live) for half in halves)))
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
            "chance_match": float(torch.stack([r for other in self.others for r in other.chance_correlations]).mean()),
            "consensus": agreed, "consensus_share": agreed / live if live else float("nan"),
            "consensus_rho": float(np.mean(agreeing)),
        }  # fmt: skip

    def _agreement(self) -> Row:
        mean, found = mean_agreement, [other.agreement for other in self.others]
        by_chance = [agreement for other in self.others for agreement in other.chance]
        within, chance = mean(found, "within"), mean(by_chance, "across")
        corrected = corrected_interval(
            self.reference, self._all()[1:], chance, self.settings.n_bootstrap, self.workspace.seed
        )
        return {
            "live_in_both": mean(found, "features"), "rho": mean(found, "rho"), "chance_rho": mean(by_chance, "rho"),
            **corrected.columns("corrected_rho"), "across_rho": mean(found, "across"), "chance_across_rho": chance,
            "halves_rho": within, "reliability": reliability(within), "ari": mean(found, "ari"),
            "chance_ari": mean(by_chance, "ari"),
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
