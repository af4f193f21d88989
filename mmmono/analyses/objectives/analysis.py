"""Train dictionaries of several objectives with several seeds, and compare them on held-out pairs of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mmmono.analyses.objectives import CLASSES, OUTCOMES, Settings
from mmmono.analyses.objectives.measuring import Bench
from mmmono.core.statistics import Interval, jackknife
from mmmono.core.versions import version_of
from mmmono.modality.consequences import RemovalPlan
from mmmono.modality.seed_agreement import corrected_correlation
from mmmono.modality.validation import mean_interval
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.halves import Halves
from mmmono.pipeline.removal_benches import EmbeddedPairs
from mmmono.pipeline.results import OWN_SETS, PARTITIONS_VERSION
from mmmono.pipeline.seed_comparison import SeedComparison, SeedPairs, matching_split, mean_agreement, trained_sets
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.pipeline.zero_shot import labels_recipe
from mmmono.reporting.tables import console

Row = dict[str, object]
OF_SEEDS = (
    "fvu", "l0", "dead", "live", "shared", "spread", "chance_spread", *(f"{of}_share" for of in CLASSES),
    "codes_r1", "codes_r10", "codes_zero_shot", "r1", "r10", "zero_shot",
)  # fmt: skip
OF_REMOVALS = ("features", "energy", *(f"{way}{measure}" for measure in OUTCOMES
                                       for way in ("", "before_", "change_", "random_change_", "beyond_")))  # fmt: skip
OF_AGREEMENT = ("match", "chance_match", "rho", "chance_rho", "ari", "chance_ari")


def prepare(workspace: Workspace) -> Study:
    """Train every selected feature set with every seed, and measure it on pairs of the dataset's split.

    Raises:
        ConfigError: a setting is invalid, no selected feature set is trained, or there are too few groups of pairs; raised
            before any training.
    """
    settings = read_settings(workspace.cfg, "objectives", Settings)
    trained = trained_sets(workspace)
    matched = SeedPairs(workspace, settings.max_groups)
    halves = Halves.leaving(workspace, "objectives.max_pairs", settings.max_pairs)
    recipe = {
        "features": workspace.features(workspace.dataset.split).recipe,
        **labels_recipe(workspace),  # first, since what follows trains
        "matched_on": workspace.features(matching_split(workspace)).recipe,
        OWN_SETS: workspace.partitions_recipe(),
        PARTITIONS_VERSION: version_of("partitions"),
        "mds": asdict(workspace.settings.mds),
        "objectives": asdict(settings),
        "random_sets": workspace.settings.random_sets,
        "seed": workspace.seed,
    }
    return Study(recipe, lambda folder: _compute(workspace, settings, trained, matched, halves))


def _compute(
    workspace: Workspace, settings: Settings, trained: Sequence[str], matched: SeedPairs, halves: Halves
) -> Tables:
    pairs = EmbeddedPairs.of(workspace, settings.max_pairs, settings.prompt)
    plan = RemovalPlan((1.0,), settings.n_random, workspace.settings.random_sets, workspace.seed, ("drop",), ranked=0)
    bench = Bench(workspace, pairs, halves, plan, settings.fdr)
    comparison = SeedComparison(workspace, matched, settings.n_halves, settings.n_chance)
    seeds = [workspace.seed + i for i in range(1 + settings.n_seeds)]
    rows: dict[str, list[Row]] = {name: [] for name in ("seeds", "removals", "agreement")}
    for name in workspace.specs:
        for seed in seeds if name in trained else seeds[:1]:
            console.print(f"{name}, seed {seed}")
            row, removed = bench.measured(name, seed)
            rows["seeds"].append(row)
            rows["removals"] += removed
        if name in trained:
            rows["agreement"] += _agreement(comparison, name, seeds)
    samples = {"": pairs, "removal_": bench.removal_pairs}
    labels = len(pairs.classes.embeddings) if pairs.classes is not None else 0
    about: Row = {
        **{f"{of}pairs": len(sample) for of, sample in samples.items()},
        **{f"{of}groups": len(np.unique(sample.groups)) for of, sample in samples.items()},
        "labels": labels,
    }
    frames = [pd.DataFrame(rows[name]) for name in rows]
    return {
        **rows, "summary": list(_summary(*frames)),
        "samples": [{**about, "label": workspace.dataset.label if labels else None}],
    }  # fmt: skip


def _agreement(comparison: SeedComparison, name: str, seeds: Sequence[int]) -> Iterator[Row]:
    """Compare the dictionaries of each two seeds."""
    made = {seed: comparison.workspace.feature_set(name, seed) for seed in seeds}
    scored = {seed: (features, comparison.scores(features)) for seed, features in made.items()}
    for seed, other in combinations(seeds, 2):
        found = comparison.compare(scored[seed], scored[other], (seed, other))
        agreed = found.agreement
        live = scored[seed][1].live, scored[other][1].live
        of_chance = zip(found.chance_correlations, found.chance_partners, strict=True)
        by_chance = [mean_match(*of, *live) for of in of_chance]
        yield {
            "feature_set": name, "seed": seed, "other_seed": other, "features": agreed.features,
            "match": mean_match(found.correlation, found.partners, *live), "chance_match": float(np.mean(by_chance)),
            "rho": agreed.rho, "chance_rho": mean_agreement(found.chance, "rho"), "ari": agreed.ari,
            "chance_ari": mean_agreement(found.chance, "ari"), "across": agreed.across,
            "chance_across": mean_agreement(found.chance, "across"), "within": agreed.within,
        }  # fmt: skip


def mean_match(
    correlation: Float64[Tensor, " features"],
    partners: Int64[Tensor, " features"],
    live: Bool[Tensor, " features"],
    other_live: Bool[Tensor, " features"],
) -> float:
    """Mean correlation of the live latents of two dictionaries with their matches; NaN if none is live.

    Args:
        correlation: of each latent of the first dictionary with its match, 0 where one never varies.
        partners: for each latent of the first dictionary, the index of its match in the second one.
        live, other_live: which latents of the first, and of the second dictionary are live.
    """
    return float(torch.cat([correlation[live], correlation[other_live[partners]]]).mean())


def _summary(seeds: pd.DataFrame, removals: pd.DataFrame, agreement: pd.DataFrame) -> Iterator[Row]:
    """Mean and interval over seeds of each measure of each feature set that has it."""
    for name, own in seeds.groupby("feature_set", sort=False):
        for measure in OF_SEEDS:
            yield from _row(str(name), measure, "", own)
        if len(removals):
            for of, without in removals[removals.feature_set == name].groupby("of", sort=False):
                for measure in OF_REMOVALS:
                    yield from _row(str(name), measure, str(of), without)
        between = agreement[agreement.feature_set == name] if len(agreement) else agreement
        if len(between):
            count = len(set(between.seed) | set(between.other_seed))
            for measure, interval in between_seeds(between).items():
                yield {
                    "feature_set": name, "measure": measure, "of": "", **interval.columns("mean"), "seeds": count,
                }  # fmt: skip


def _row(name: str, measure: str, of: str, rows: pd.DataFrame) -> Iterator[Row]:
    values = rows[measure].astype(float).dropna().tolist() if measure in rows else []
    if values:
        place: Row = {"feature_set": name, "measure": measure, "of": of}
        yield {**place, **mean_interval(values).columns("mean"), "seeds": len(values)}


def between_seeds(rows: pd.DataFrame) -> dict[str, Interval]:
    """Agreement of seeds, with intervals by jackknife over seeds: pairs of seeds that share one are not independent.

    Args:
        rows: of the table `agreement`, of one feature set; one for each two seeds.

    Returns:
        Intervals of the means of `OF_AGREEMENT` over pairs of seeds, and of `stability`: the rank correlation of R(d) from
        the means over pairs of seeds, corrected for noise and chance (`corrected_correlation`). Without bounds with fewer
        than three seeds.
    """

    def mean(of: pd.DataFrame, measure: str) -> float:
        return float(of[measure].mean(skipna=False))

    def stability(of: pd.DataFrame) -> float:
        return corrected_correlation(*(mean(of, column) for column in ("across", "within", "chance_across")))

    seeds = sorted({*rows.seed, *rows.other_seed})
    parts = [rows[(rows.seed != seed) & (rows.other_seed != seed)] for seed in seeds] if len(seeds) > 2 else []
    found = {
        measure: jackknife(mean(rows, measure), np.array([mean(part, measure) for part in parts]))
        for measure in OF_AGREEMENT
    }
    found["stability"] = jackknife(stability(rows), np.array([stability(part) for part in parts]))
    return {measure: estimate.interval() for measure, estimate in found.items()}
