"""Find the feature of each label on pairs of the training split, and test it on others; purity of all features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmmono.analyses.concepts import CONTROL, Settings
from mmmono.core.errors import ConfigError
from mmmono.core.statistics import t_mean
from mmmono.dictionaries import DictionaryFeatures
from mmmono.dictionaries.linear import random_directions
from mmmono.features import MODALITIES, FeatureSet
from mmmono.interpretability.activity import ActivityRule
from mmmono.interpretability.label_scores import average_precision, chance_precision, chance_purity, purity
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.held_out import PairSample, chosen_and_held_out
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

Row = dict[str, Any]
Array = np.ndarray[Any, Any]


def prepare(workspace: Workspace) -> Study:
    """Score the selected feature sets by the dataset's label.

    Raises:
        ConfigError: the dataset has no labels, or a setting is invalid.
    """
    settings = read_settings(workspace.cfg, "concepts", Settings)
    label = workspace.dataset.label
    if label is None:
        raise ConfigError(
            f"dataset={workspace.dataset_name} has no labels to score features by: name one with dataset.label=..., or use "
            "dataset=openmoji or coco"
        )
    test = workspace.features(workspace.dataset.split)
    if label not in (columns := list(test.view.metadata().columns)):
        raise ConfigError(f"dataset.label={label} is no label of these pairs: {', '.join(columns)} are their columns")
    choose, held_out = chosen_and_held_out(workspace, settings.max_pairs)
    scored = _Labels.of(choose, held_out, label, settings.min_groups)
    recipe = {
        "features": test.recipe,
        "chosen_on": workspace.features(workspace.settings.training.split).recipe,
        **workspace.partitions_recipe(),
        "concepts": asdict(settings),
        "label": label,
        "seed": workspace.seed,
    }

    def compute(folder: Path) -> Tables:
        tables: dict[str, list[Row]] = {"labels": [], "purity": [], "summary": []}
        sets: list[tuple[FeatureSet, Sequence[str]]] = [
            (workspace.feature_set(name), workspace.partition(name).class_of()) for name in workspace.specs
        ]
        sets.append(_control(workspace, max(features.num_features for features, _ in sets)))
        for features, classes in sets:
            for table, rows in _scored(workspace, settings, scored, features, classes).items():
                tables[table] += rows
        _add_gain(tables)
        left_out = {"labels": len(scored.names), "left_out": ", ".join(scored.left_out)}
        return {**tables, "samples": [{**left_out, "n_left_out": len(scored.left_out)}]}

    return Study(recipe, compute)


@dataclass(frozen=True)
class _Labels:
    """The labels that are scored, and the labeled pairs of either half.

    Attributes:
        names: the labels, in alphabetical order.
        choose, test: the halves.
        rows: of each half, its pairs with a label that is scored, the first of each group and label: an emoji's skin
            tones count once.
        codes: index of their labels.
        left_out: labels of either half that too few groups of one of them have, in alphabetical order.
    """

    names: Sequence[str]
    choose: PairSample
    test: PairSample
    rows: tuple[Int[Array, " choose"], Int[Array, " test"]]
    codes: tuple[Int[Array, " choose"], Int[Array, " test"]]
    left_out: Sequence[str]

    @classmethod
    def of(cls, choose: PairSample, test: PairSample, label: str, min_groups: int) -> _Labels:
        """Select the labels that enough groups of both halves have. Raises ConfigError if there are fewer than two."""
        values = [half.metadata[label].str.strip().to_numpy(dtype=str) for half in (choose, test)]
        named = [np.flatnonzero(of != "") for of in values]
        first = [
            there[~pd.DataFrame({"group": half.groups[there], "label": of[there]}).duplicated().to_numpy()]
            for half, of, there in zip((choose, test), values, named, strict=True)
        ]
        counts = [Counter(of[there].tolist()) for of, there in zip(values, first, strict=True)]
        names = sorted(name for name in counts[0] if min(side[name] for side in counts) >= min_groups)
        if len(names) < 2:
            raise ConfigError(
                f"dataset.label={label} has {len(names)} values with concepts.min_groups={min_groups} groups among the "
                "pairs of the training split and among those of dataset.split: two are needed; lower it"
            )
        rows = [there[np.isin(of[there], names)] for of, there in zip(values, first, strict=True)]
        codes = [np.searchsorted(names, of[there]) for of, there in zip(values, rows, strict=True)]
        left_out = sorted({*counts[0], *counts[1]} - set(names))
        return cls(names, choose, test, (rows[0], rows[1]), (codes[0], codes[1]), left_out)

    def members(self, half: int) -> Bool[Tensor, "pairs labels"]:
        """Which pairs of a half have which label."""
        return torch.from_numpy(self.codes[half])[:, None] == torch.arange(len(self.names))


def _control(workspace: Workspace, most: int) -> tuple[FeatureSet, list[str]]:
    """Random directions, whose features have no class: as many as the largest set has features, so many tries it has."""
    dim = workspace.features(workspace.dataset.split).view.dim
    count = max(dim, most)
    directions = random_directions(dim, count, workspace.seed).eval().to(workspace.device)
    return DictionaryFeatures(CONTROL, directions), [""] * count


def _scored(
    workspace: Workspace, settings: Settings, labels: _Labels, feature_set: FeatureSet, classes: Sequence[str]
) -> dict[str, list[Row]]:
    """Rows of all tables for one feature set."""
    strength = {m: labels.choose.activations(workspace, feature_set, m) for m in MODALITIES}
    sign = ActivityRule.of(strength, 0.5).sign
    found: dict[str, list[Row]] = {"labels": [], "purity": [], "summary": []}
    for modality in MODALITIES:
        place = {"feature_set": feature_set.name, "samples": modality}
        values = labels.test.activations(workspace, feature_set, modality)[labels.rows[1]] * sign
        on_choice = average_precision(strength[modality][labels.rows[0]] * sign, labels.members(0))
        best = on_choice.argmax(0).tolist()
        rows = _label_rows(place, labels, best, values, classes)
        pure = _purity_rows(place, labels, values, classes, settings.k)
        found["labels"] += rows
        found["purity"] += pure
        chance = chance_purity(labels.codes[1], settings.k, np.random.default_rng(workspace.seed))
        found["summary"].append({**place, **_summary(rows, settings.covered), **_mean_purity(pure, chance)})
    return found


def _label_rows(
    place: Row, labels: _Labels, best: Sequence[int], values: Float[Tensor, "pairs features"], classes: Sequence[str]
) -> list[Row]:
    """One row for each label: its feature on held-out pairs."""
    members = labels.members(1)
    on_test = average_precision(values[:, list(best)], members).diagonal()
    counts = members.sum(0)
    return [
        {
            **place, "label": label, "feature": best[i], "class": classes[best[i]], "ap": float(on_test[i]),
            "chance": chance_precision(int(counts[i]), len(members)), "count": int(counts[i]),
        }
        for i, label in enumerate(labels.names)
    ]  # fmt: skip


def _purity_rows(
    place: Row, labels: _Labels, values: Float[Tensor, "pairs features"], classes: Sequence[str], k: int
) -> list[Row]:
    found = purity(values, labels.codes[1], k)
    return [
        {
            **place, "feature": feature, "class": classes[feature], "purity": share,
            "label": labels.names[label] if label >= 0 else "",
        }
        for feature, (share, label) in enumerate(zip(found.share.tolist(), found.label.tolist(), strict=True))
    ]  # fmt: skip


def _summary(rows: list[Row], covered: float) -> Row:
    """Average precision over labels. A label that a random order covers is not one that its feature covers."""
    scores = np.array([row["ap"] for row in rows])
    chance = np.array([row["chance"] for row in rows])
    worst = rows[int(np.argmin((scores - chance) / (1 - chance)))]
    open_to = chance < covered
    return {
        "labels": len(rows), **t_mean(scores).rate_interval(len(scores)).columns("ap"), "chance": float(chance.mean()),
        "worst_label": worst["label"], "worst_ap": worst["ap"], "covered": int((scores >= covered)[open_to].sum()),
        "coverable": int(open_to.sum()),
    }  # fmt: skip


def _add_gain(tables: dict[str, list[Row]]) -> None:
    """Add to each row of the summary by how much its best features are better than the control's, label by label."""
    precision: dict[tuple[str, str], list[float]] = {}
    for row in tables["labels"]:
        precision.setdefault((row["feature_set"], row["samples"]), []).append(row["ap"])
    for row in tables["summary"]:
        mine, control = (np.array(precision[name, row["samples"]]) for name in (row["feature_set"], CONTROL))
        none = dict.fromkeys(("gain", "gain_low", "gain_high"))
        gain = t_mean(mine - control).of_shares(len(mine), limit=1.0)
        row.update(none if row["feature_set"] == CONTROL else gain.interval().columns("gain"))


def _mean_purity(rows: list[Row], chance: float) -> Row:
    known = [row["purity"] for row in rows if row["purity"] == row["purity"]]
    mean = sum(known) / len(known) if known else float("nan")
    return {"purity": mean, "purity_chance": chance, "scored": len(known)}
