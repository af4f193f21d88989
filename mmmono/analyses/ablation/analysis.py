"""Classification of images and texts with classes of features removed, for several feature sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmono.analyses.ablation import Settings
from mmmono.core.errors import ConfigError
from mmmono.core.progress import progress_bar
from mmmono.core.statistics import Interval, holm
from mmmono.features import MODALITIES, Modality
from mmmono.features.grouping import GroupNumbers
from mmmono.features.selection import Split
from mmmono.features.sparse_rows import compact_rows
from mmmono.modality import Ablation, AblationSettings, removal_ablation
from mmmono.modality.ablation import SPLITS, number_of_fits
from mmmono.modality.random_sets import Match
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

FEW_PAIRS = 5000  # with fewer, one 80/20 split has too few test samples to resolve a change of one percent


@dataclass(frozen=True)
class Samples:
    """The pairs that are classified.

    Attributes:
        positions: their positions in the split, one per group.
        labels: their labels.
        left_out: labels with fewer than `SPLITS` pairs, which cannot have one pair in each test fold.
    """

    positions: np.ndarray[Any, Any]
    labels: Sequence[str]
    left_out: Sequence[str]


def prepare(workspace: Workspace) -> Study:
    """Classify images and texts with classes of features removed, for all selected feature sets (Table 1).

    Raises:
        ConfigError: the dataset has no usable labels, or a setting is invalid.
    """
    settings = read_settings(workspace.cfg, "ablation", Settings)
    split = workspace.dataset.whole_split(settings.split)
    label = workspace.dataset.label
    if label is None:
        raise ConfigError(
            f"dataset={workspace.dataset_name} has no labels to classify by: name one with dataset.label=... (and, for "
            "webdataset, the JSON fields that hold labels with dataset.label_keys=[...]), or use dataset=openmoji or coco"
        )
    features = workspace.features(split)
    match = workspace.settings.random_sets
    samples = _labeled(features.view.metadata(), features.view.groups(), label, settings.max_pairs, workspace.seed)
    recipe = {
        "features": features.recipe,
        "scored_on": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "ablation": asdict(settings),
        "random_sets": match,
        "label": label,
        "seed": workspace.seed,
    }

    def compute(folder: Path) -> Tables:
        of_samples = {
            "pairs": len(samples.positions), "labels": len(set(samples.labels)), "label": label,
            "left_out": ", ".join(samples.left_out),
        }  # fmt: skip
        return {"table1": list(_table1(workspace, settings, match, split, samples)), "samples": [of_samples]}

    return Study(recipe, compute)


def _table1(
    workspace: Workspace, settings: Settings, match: Match, split: Split, samples: Samples
) -> Iterator[dict[str, object]]:
    how = AblationSettings(
        folds=settings.folds or (SPLITS if len(samples.positions) < FEW_PAIRS else 1),
        n_random=settings.n_random,
        keep=settings.keep,
        refit=settings.refit,
        random_sets=match,
        seed=workspace.seed,
    )
    for name in workspace.specs:
        feature_set, partition = workspace.feature_set(name), workspace.partition(name)
        for modality in MODALITIES:
            activations = compact_rows(workspace.encoded(feature_set, modality, samples.positions, split))
            with progress_bar() as bar:
                task = bar.add_task(
                    f"ablation, {name}, {workspace.modalities.said(modality)}", total=number_of_fits(partition, how)
                )
                advance = partial(bar.advance, task)
                ablations = removal_ablation(activations, samples.labels, partition, how, advance=advance)
            adjusted = iter(holm([a.delta_random.p_value for a in ablations if a.delta_random]))
            for ablation in ablations:
                yield _row(name, modality, ablation, next(adjusted) if ablation.delta_random else None)


def _row(name: str, modality: Modality, ablation: Ablation, p_holm: float | None) -> dict[str, object]:
    beyond = ablation.delta_random
    intervals = {
        "accuracy": ablation.accuracy, "delta_none": ablation.delta_none,
        "delta_random": beyond.interval() if beyond else None,
    }  # fmt: skip
    empty = Interval(float("nan"))
    return {
        "feature_set": name, "task": modality, "deletion": ablation.deletion, "size_of": ablation.size_of,
        "neurons": ablation.neurons, "energy": ablation.energy, "mismatch": ablation.mismatch, "spread": ablation.spread,
        **{cell: value for key, found in intervals.items() for cell, value in (found or empty).columns(key).items()},
        "p": beyond.p_value if beyond else None, "p_holm": p_holm,
        "equivalence": beyond.equivalence_bound() if beyond else None,
    }  # fmt: skip


def _labeled(metadata: pd.DataFrame, groups: GroupNumbers, label: str, max_pairs: int, seed: int) -> Samples:
    """Select the labeled pairs, one per group, and at most about `max_pairs` of them, stratified by label.

    With one pair of a group, no group is in the training and in the test samples of a fold.

    Raises:
        ConfigError: there is no such label, or it does not have two values with enough pairs.
    """
    if label not in metadata:
        known = [c for c in metadata if c not in ("key", "caption", "locator", "group")]
        raise ConfigError(
            f"dataset.label={label} is no label of these pairs: "
            + (
                f"choose one of {', '.join(map(str, known))}"
                if known
                else "they have none, so nothing can be classified"
            )
        )
    named = metadata[label].fillna("").astype(str).str.strip() != ""
    first = ~pd.Series(groups, index=metadata.index)[named].duplicated()
    chosen = metadata.loc[named][first][label].astype(str)
    counts = chosen.map(chosen.value_counts())
    rare = chosen[counts < SPLITS]
    chosen = chosen[counts >= SPLITS]
    if chosen.nunique() < 2:
        raise ConfigError(
            f"dataset.label={label}: {chosen.nunique()} labels have at least {SPLITS} pairs, a classification needs two: "
            "use more pairs (dataset.limit) or another label"
        )
    if len(chosen) > max_pairs:
        # Sample the same share of every label, but at least SPLITS pairs.
        share = max_pairs / len(chosen)
        chosen = pd.concat(
            [
                part.sample(max(SPLITS, round(share * len(part))), random_state=seed)
                for _, part in chosen.groupby(chosen)
            ]
        ).sort_index()
    return Samples(chosen.index.to_numpy(), chosen.tolist(), sorted(set(rare)))
