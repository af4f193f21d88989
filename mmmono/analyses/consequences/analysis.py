"""Retrieval, zero-shot accuracy, gap, loss and effective rank without classes of features, and without single ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch

from mmmono.analyses.consequences import MEASURES, Settings
from mmmono.core.errors import DataError
from mmmono.core.progress import progress_bar
from mmmono.core.statistics import Estimate, Interval, effective_groups, holm
from mmmono.modality.consequences import (
    Removal,
    RemovalPlan,
    difference,
    held_out_change,
    interval_of,
    number_of_sets,
    removals,
    single_removals,
)
from mmmono.modality.removal_outcomes import KS, Outcome, RemovalBench
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.halves import FEWEST_GROUPS, Halves
from mmmono.pipeline.removal_benches import EmbeddedPairs, removal_bench, space_of
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.pipeline.zero_shot import labels_recipe

Row = dict[str, object]
OF_CURVES = ("r1", "zero_shot", "gap", "contrastive_loss")
ONE_WAY = tuple(f"{way}_r{k}" for way in ("i2t", "t2i") for k in KS)
RANDOM = "random"


def prepare(workspace: Workspace) -> Study:
    """Remove the classes of the selected feature sets, and each feature alone, on pairs of the dataset's split.

    Features are classified on half of the groups of pairs, and removed on the other half.

    Raises:
        ConfigError: a setting is invalid, or leaves too few pairs to remove classes on.
        DataError: the split has fewer than three groups of pairs.
    """
    settings = read_settings(workspace.cfg, "consequences", Settings)
    features = workspace.features(workspace.dataset.split)
    if (count := len(np.unique(features.view.groups()))) < FEWEST_GROUPS + 1:
        raise DataError(
            f"{workspace.title} has {count} groups of pairs: at least {FEWEST_GROUPS + 1} are needed, one to classify "
            f"features by and {FEWEST_GROUPS} to retrieve among"
        )
    halves = Halves.leaving(workspace, "consequences.max_pairs", settings.max_pairs)
    recipe = {
        "features": features.recipe,
        **labels_recipe(workspace),  # first, since what follows trains
        **workspace.partitions_recipe(),
        "consequences": asdict(settings),
        "random_sets": workspace.settings.random_sets,
        "seed": workspace.seed,
    }
    return Study(recipe, lambda folder: _compute(workspace, settings, halves))


def _compute(workspace: Workspace, settings: Settings, halves: Halves) -> Tables:
    sample = EmbeddedPairs.of(workspace, settings.max_pairs, settings.prompt)
    pairs = sample.where(halves.left(sample.rows))
    plan = RemovalPlan(settings.shares, settings.n_random, workspace.settings.random_sets, workspace.seed)
    about = {**_counts(pairs, halves), "label": workspace.dataset.label if pairs.classes is not None else None}
    tables: dict[str, list[Row]] = {name: [] for name in ("effects", "curves", "features", "samples")}
    for name in workspace.specs:
        features = workspace.feature_set(name)
        space, scored = space_of(features), halves.dominance(workspace, features)
        bench = removal_bench(features, pairs, space != "reconstruction", workspace.device, settings.temperature)
        of: Row = {"feature_set": name}
        chance = bench.retrieval.chance(1)
        for table, found in _measured(bench, scored, plan, settings.top).items():
            shared = {**of, "space": space, **about, "chance_r1": chance} if table == "samples" else of
            tables[table] += [{**shared, **row} for row in found]
    return tables


def _counts(pairs: EmbeddedPairs, halves: Halves) -> Row:
    """Numbers of pairs and groups that classes are removed on, and of those by which features are classified."""
    classified = halves.classified[halves.classified >= 0]
    return {
        "pairs": len(pairs), "groups": len(np.unique(pairs.groups)), "effective_groups": effective_groups(pairs.groups),
        "classified_pairs": len(classified), "classified_groups": len(np.unique(classified)),
        "labels": len(pairs.classes.embeddings) if pairs.classes is not None else 0,
    }  # fmt: skip


def _measured(bench: RemovalBench, scored: FeatureSetDominance, plan: RemovalPlan, top: int) -> dict[str, list[Row]]:
    """Rows of each table for one feature set."""
    activity = bench.activity()
    full = bench.outcome(torch.empty(0, dtype=torch.int64))
    live = scored.partition.live
    total = number_of_sets(scored.partition, plan) + len(live)
    with progress_bar() as bar:
        task = bar.add_task(f"consequences, {scored.name}", total=total)
        advance = partial(bar.advance, task)
        found = list(removals(bench, scored.partition, activity, plan, advance))
        singles = single_removals(bench, live, plan.seed, advance)
    everything = torch.arange(bench.features)
    place: Row = {"change": "", "of": "", "like": "", "features": bench.features, "energy": 1.0}
    effects = [_row(place, name, [full]) for name in _measures(full)]
    effects += [row for change in ("drop", "keep") for row in _effects([r for r in found if r.change == change], full)]
    starts = {"drop": full, "keep": bench.outcome(everything, whole=False)}
    curves = [row for removal in [*_starts(found, starts), *found] for row in _curve(removal, full)]
    classes = scored.partition.class_of()
    most = {at: rank for rank, at in enumerate(singles.most(top))}
    features: list[Row] = []
    for at, feature in enumerate(live.tolist()):
        row: Row = {
            "feature": feature, "class": classes[feature], "mds": float(scored.scores.scores[feature]),
            "energy": float(activity.energy[feature]), "change": float(singles.everything[at]),
            "selecting": float(singles.selecting[at]), "held_out": float(singles.held_out[at]), "place": most.get(at),
        }  # fmt: skip
        if at in most:
            mrr, recall = held_out_change(bench, singles, feature)
            row |= {**mrr.interval().columns("held_out"), "recall": recall.value}
        features.append(row)
    return {"effects": effects, "curves": curves, "features": features, "samples": [{"agreement": singles.agreement}]}


def _measures(full: Outcome) -> list[str]:
    return [measure for measure in (*MEASURES, *ONE_WAY) if full.number(measure) is not None]


def _place(removal: Removal, like: str) -> Row:
    """Cells that say which features were dropped or kept: those of the class, or random ones like it."""
    energy = removal.random_energy if like else removal.energy
    return {
        "change": removal.change, "of": removal.of, "like": like, "features": removal.features, "energy": energy,
    }  # fmt: skip


def _row(place: Row, measure: str, outcomes: Sequence[Outcome]) -> Row:
    return {**place, "measure": measure, **interval_of(outcomes, measure).columns("value")}


def _columns(name: str, estimate: Estimate | None) -> Row:
    """Cells of an estimate and its interval."""
    return dict((estimate.interval() if estimate is not None else Interval(float("nan"))).columns(name))


def _effects(found: Sequence[Removal], full: Outcome) -> Iterator[Row]:
    """Rows of whole classes, and of random sets like them, for all measures; p-values are adjusted over the classes."""
    whole = [removal for removal in found if removal.share == 1]
    adjusted = {}
    for measure in _measures(full):
        beyond = [difference(removal.own, removal.random, measure) if removal.random else None for removal in whole]
        p_values = [float("nan") if estimate is None else estimate.p_value for estimate in beyond]
        adjusted[measure] = list(zip(beyond, p_values, holm(p_values), strict=True))
    for number, removal in enumerate(whole):
        for measure in _measures(full):
            estimate, p_value, p_holm = adjusted[measure][number]
            yield {
                **_row(_place(removal, ""), measure, removal.own),
                **_columns("delta_none", difference(removal.own, [full], measure)),
                **_columns("delta_random", estimate),
                "p": p_value, "p_holm": p_holm,
            }  # fmt: skip
        for measure in _measures(full) if removal.random else ():
            yield {
                **_row(_place(removal, RANDOM), measure, removal.random),
                **_columns("delta_none", difference(removal.random, [full], measure)),
                "mismatch": removal.mismatch,
            }


def _starts(found: Sequence[Removal], outcomes: Mapping[str, Outcome]) -> Iterator[Removal]:
    """Where the curves of each class begin, at a share of 0."""
    for removal in found:
        if removal.share == 1:
            start = [outcomes[removal.change]]
            random = start if removal.random else []
            yield Removal(
                removal.change, removal.of, 0.0, 0, start, random, energy=0.0, random_energy=0.0, mismatch=0.0
            )


def _curve(removal: Removal, full: Outcome) -> Iterator[Row]:
    """Rows of one share of a class, and of random sets like it; what drops no feature has a change of 0 for certain."""
    certain = {"delta": 0.0, "delta_low": 0.0, "delta_high": 0.0}
    for like, outcomes in (("", removal.own), (RANDOM, removal.random)):
        for measure in OF_CURVES:
            deltas = [
                number - all_features
                for outcome in outcomes
                if (number := outcome.number(measure)) is not None
                and (all_features := full.number(measure)) is not None
            ]
            if deltas:
                low, high = np.percentile(deltas, (5, 95))
                yield {
                    **_row(_place(removal, like), measure, outcomes),
                    **(certain if outcomes[0] is full else _columns("delta", difference(outcomes, [full], measure))),
                    "share": removal.share, "band_low": float(low), "band_high": float(high),
                }  # fmt: skip
