"""What is measured of one dictionary: reconstruction, shared latents, R(d), and retrieval with and without each class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from mmmono.analyses.objectives import OUTCOMES
from mmmono.dictionaries import SparsityMoments, fraction_of_variance_unexplained
from mmmono.features import MODALITIES, FeatureSet
from mmmono.modality import LIVE_CLASSES
from mmmono.modality.consequences import Removal, RemovalPlan, removals
from mmmono.modality.removal_outcomes import Outcome, RemovalBench
from mmmono.pipeline.halves import Halves
from mmmono.pipeline.removal_benches import EmbeddedPairs, removal_bench, space_of
from mmmono.pipeline.sharedness import feature_sharedness
from mmmono.pipeline.workspace import Workspace

Row = dict[str, object]
NOTHING = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class Bench:
    """Measures dictionaries on the same pairs.

    Attributes:
        workspace: makes the dictionaries; its dataset's split is what they are measured on.
        pairs: the pairs that are reconstructed and retrieved.
        halves: on which of the split's pairs classes are chosen, and on which of `pairs` they are removed.
        plan: which latents are removed.
        fdr: false discovery rate at which a latent counts as shared.
    """

    workspace: Workspace
    pairs: EmbeddedPairs
    halves: Halves
    plan: RemovalPlan
    fdr: float

    def measured(self, name: str, seed: int) -> tuple[Row, list[Row]]:
        """Measure a feature set under a seed, whose dictionary is trained first if it does not exist.

        Returns:
            Its row of the table `seeds`, and those of the table `removals`.
        """
        features, device = self.workspace.feature_set(name, seed), self.workspace.device
        space = space_of(features)
        by_codes = removal_bench(features, self.pairs, True, device)
        bench = by_codes if space != "reconstruction" else removal_bench(features, self.pairs, False, device)
        codes, full = (of.outcome(NOTHING, whole=False) for of in (by_codes, bench))
        place: Row = {"feature_set": name, "seed": seed}
        row: Row = {
            **place, "space": space, **self._reconstruction(bench, space), **self._latents(name, seed),
            "codes_r1": codes.number("r1"), "codes_r10": codes.number("r10"), "codes_zero_shot": codes.number("zero_shot"),
            **{measure: full.number(measure) for measure in OUTCOMES},
        }  # fmt: skip
        return row, [{**place, **removal} for removal in self._removals(features, space)]

    @cached_property
    def removal_pairs(self) -> EmbeddedPairs:
        """Pairs without classes' latents: those of `pairs` by which no latent is classified."""
        return self.pairs.where(self.halves.left(self.pairs.rows))

    def _reconstruction(self, bench: RemovalBench, space: str) -> Row:
        sides = dict(zip(MODALITIES, (bench.pairs.image, bench.pairs.text), strict=True))
        sparsity = SparsityMoments(bench.features)
        for side in sides.values():
            sparsity.add(side.codes)
        fvu = None
        if space != "features":
            z = self.pairs.embeddings
            fvu = np.mean([float(fraction_of_variance_unexplained(z[m], side.vectors)) for m, side in sides.items()])
        return {"fvu": fvu, "l0": sparsity.result().l0}

    def _latents(self, name: str, seed: int) -> Row:
        """Dead and shared latents, spread of R(d) and shares of the classes, on all pairs of the split."""
        scored = self.workspace.dominance(name, seed)
        live = self.workspace.live(scored.scores)
        count = int(live.sum())
        q_values = feature_sharedness(self.workspace, name, seed).q_value(live)
        fired = scored.scores.image_active + scored.scores.text_active
        return {
            "dead": float((fired == 0).double().mean()), "live": count,
            "shared": int((q_values <= self.fdr).sum()), "spread": scored.summary.std,
            "chance_spread": scored.null_std,
            **{f"{of}_share": len(scored.partition[of]) / count if count else None for of in LIVE_CLASSES},
        }  # fmt: skip

    def _removals(self, features: FeatureSet, space: str) -> Iterator[Row]:
        """What is retrieved without each class, on the pairs by which no latent was classified."""
        bench = removal_bench(features, self.removal_pairs, space != "reconstruction", self.workspace.device)
        full, partition = bench.outcome(NOTHING, whole=False), self.halves.partition(self.workspace, features)
        for removal in removals(bench, partition, bench.activity(), self.plan):
            row: Row = {
                "of": removal.of, "features": removal.features, "energy": removal.energy,
                "random_energy": removal.random_energy, "mismatch": removal.mismatch,
            }  # fmt: skip
            for measure in OUTCOMES:
                row |= _changes(removal, full, measure)
            yield row


def _changes(removal: Removal, full: Outcome, measure: str) -> Row:
    """Cells of a measure without a class; empty ones if it is not measured."""
    [own] = removal.own
    before = value = change = by_chance = beyond = None
    if measure in full.samples:
        before, value = full.samples[measure].mean, own.samples[measure].mean
        change = value - before
        if removal.random:  # none if the class holds all live latents
            by_chance = float(np.mean([outcome.samples[measure].mean for outcome in removal.random])) - before
            beyond = change - by_chance
    return {
        f"before_{measure}": before, measure: value, f"change_{measure}": change,
        f"random_change_{measure}": by_chance, f"beyond_{measure}": beyond,
    }  # fmt: skip
