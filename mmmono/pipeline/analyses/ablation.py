"""`experiments/ablation.py`: classification with features removed (Section 2.2, Table 1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mmmono.core.errors import ConfigError
from mmmono.features import MODALITIES, Modality
from mmmono.modality import Ablation, removal_ablation
from mmmono.modality.ablation import SPLITS, check_ablation
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.ablation_figures import removal_effects
from mmmono.reporting.published import published
from mmmono.reporting.rows import ablation_rows
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, save_table, show_table

FEW_PAIRS = 5000  # with fewer, one 80/20 split has too few test samples to resolve a change of one percent


def ablate(workspace: Workspace) -> None:
    """Classify images and texts with classes of features removed, for all selected feature sets (Table 1).

    Raises:
        ConfigError: the dataset has no usable labels, or a setting is invalid.
    """
    settings = workspace.cfg.ablation
    split = workspace.whole_split(settings.split)
    label = workspace.dataset.label
    if label is None:
        raise ConfigError(
            f"dataset={workspace.dataset_name} has no labels to classify by: name one with dataset.label=... (and, for "
            "webdataset, the JSON fields that hold labels with dataset.label_keys=[...]), or use dataset=openmoji or coco"
        )
    features = workspace.features(split)
    rows, labels, dropped = _labeled(features.view.metadata(), label, settings.max_pairs, workspace.seed)
    folds = settings.folds or (SPLITS if len(rows) < FEW_PAIRS else 1)
    try:
        check_ablation(labels, folds, settings.n_random, settings.n_bootstrap)
    except ValueError as error:
        raise ConfigError(f"ablation by dataset.label={label}: {error}") from error
    recipe = {
        "features": features.recipe,
        "scored_on": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "ablation": dict(settings),
        "label": label,
        "seed": workspace.seed,
    }

    def make(directory: Path) -> None:
        results: dict[str, dict[Modality, list[Ablation]]] = {}
        for name in workspace.recipes:
            feature_set = workspace.feature_set(name)
            partition = workspace.partition(name)
            results[name] = {}
            for modality in MODALITIES:
                activations = workspace.encode_rows(feature_set, modality, rows, split).numpy()
                results[name][modality] = removal_ablation(
                    activations,
                    labels,
                    partition,
                    folds=folds,
                    n_random=settings.n_random,
                    keep=settings.keep,
                    refit=settings.refit,
                    n_bootstrap=settings.n_bootstrap,
                    seed=workspace.seed,
                )
        table = [
            _row(name, modality, row)
            for name, tasks in results.items()
            for modality in tasks
            for row in tasks[modality]
        ]
        save_table(table, directory / "table1")
        save_figure(removal_effects(results, settings.keep), directory / "table1")

    artifact = workspace.results("ablation", recipe, make)
    _show(workspace, json.loads((artifact.path / "table1.json").read_text()), keep=settings.keep)
    classes = len(set(labels))
    console.print(f"{len(rows)} pairs, {classes} labels ({label}){dropped}; 95 % intervals over test samples")
    console.print(f"Table 1 and its plot: {artifact.path}/table1.png, table1.parquet")


def _labeled(metadata: pd.DataFrame, label: str, max_pairs: int, seed: int) -> tuple[np.ndarray, Sequence[str], str]:
    """Positions of the labeled pairs, one per group; their labels; and the excluded labels, in words.

    Labels with fewer than `SPLITS` pairs are excluded: they cannot have one pair in each test fold.
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
    first = ~metadata["group"].duplicated() if "group" in metadata else pd.Series(True, index=metadata.index)
    chosen = metadata.loc[named & first, label].astype(str)
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
    left_out = f", left out: {', '.join(sorted(set(rare)))} (fewer than {SPLITS} pairs)" if len(rare) else ""
    return chosen.index.to_numpy(), chosen.tolist(), left_out


def _row(name: str, modality: Modality, row: Ablation) -> dict[str, object]:
    flat: dict[str, object] = {
        "feature_set": name, "task": modality, "deletion": row.deletion, "size_of": row.size_of,
        "neurons": row.neurons, "spread": row.spread,
    }  # fmt: skip
    for key in ("accuracy", "delta_none", "delta_random"):
        interval = getattr(row, key)
        flat |= {
            key: interval.value if interval else None,
            f"{key}_low": interval.low if interval else None,
            f"{key}_high": interval.high if interval else None,
        }
    return flat


def _show(workspace: Workspace, rows: list[dict[str, object]], keep: bool) -> None:
    for name in workspace.recipes:
        show_table(ablation_rows(rows, name, keep), f"Table 1, {name}: {workspace.title}")
    if difference := published("table1").difference(workspace.model.name, workspace.dataset_name):
        console.print(difference)
