"""Concept scores: which features detect the dataset's labels, and how purely? (beyond Section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.reporting.headings import headed
from mmmono.reporting.result import Fields, Result, Rows

CONTROL = "random directions"  # beside the selected feature sets
SHOWN = 80  # characters of a list of labels


@dataclass(frozen=True)
class Settings:
    """Settings of the section `concepts`.

    Attributes:
        k: most activating samples of a feature whose labels are compared.
        min_groups: groups with a label that either half of the pairs must have, for the label to be scored.
        covered: average precision from which on a label counts as covered by a feature.
        max_pairs: pairs that the feature of a label is chosen by, and pairs that it is tested on, at most.
    """

    k: int
    min_groups: int
    covered: float
    max_pairs: int

    def __post_init__(self) -> None:
        for name, least in (("k", 2), ("min_groups", 1), ("max_pairs", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if not 0 < self.covered <= 1:
            raise ValueError(f"covered={self.covered} is an average precision: give more than 0 and at most 1")


def summary_rows(result: Result) -> Rows:
    """Scores of each feature set on images and on texts, with intervals over labels."""
    return headed(
        [
            {
                "feature_set": row["feature_set"], "samples": row["samples"], "labels": row["labels"],
                "average precision": _with_bounds(row, "ap"), "chance": f"{row['chance']:.3f}",
                "above random directions": "" if row["gain"] is None else _with_bounds(row, "gain"),
                "worst label": f"{row['worst_ap']:.3f} {row['worst_label']}",
                "covered": f"{row['covered']} of {row['coverable']}",
                "purity": ""
                if row["purity"] is None
                else f"{row['purity']:.3f} of {row['scored']} features (chance {row['purity_chance']:.3f})",
            }
            for row in result.rows("summary")
        ],
        result.modalities,
    )  # fmt: skip


def label_rows(result: Result) -> Rows:
    """Best feature of each label in each feature set: its average precision on images and on texts."""
    rows = result.rows("labels")
    sets = list(dict.fromkeys(row["feature_set"] for row in rows))
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        cell = cells.setdefault((row["samples"], row["label"]), {"chance": f"{row['chance']:.3f}"})
        best = f"{row['feature']} {result.modalities.said(row['class'])}".strip()
        cell[row["feature_set"]] = f"{row['ap']:.3f} ({best})"
    return [
        {
            "samples": result.modalities.said(samples),
            "label": label,
            "chance": cell["chance"],
            **{name: cell.get(name, "") for name in sets},
        }
        for (samples, label), cell in cells.items()
    ]


def _with_bounds(row: dict[str, Any], key: str) -> str:
    if row[f"{key}_low"] is None:
        return f"{row[key]:.3f}"
    return f"{row[key]:.3f} [{row[f'{key}_low']:.3f}, {row[f'{key}_high']:.3f}]"


def _fields(result: Result) -> Fields:
    settings = result.recipe["concepts"]
    return {"k": str(settings["k"]), "covered": f"{settings['covered']:g}", "label": str(result.recipe["label"])}


def _shown(labels: str) -> str:
    return shorten(labels, SHOWN, placeholder=" …")


def _remarks(result: Result) -> Iterator[str]:
    [samples], settings = result.rows("samples"), result.recipe["concepts"]
    if samples["left_out"]:
        yield (
            f"left out: {samples['n_left_out']} of {samples['labels'] + samples['n_left_out']} labels, with fewer than "
            f"{settings['min_groups']} groups in one of the two halves of the pairs: {_shown(samples['left_out'])}"
        )
    chance = {row["label"]: row["chance"] for row in result.rows("labels")}
    if too_frequent := [label for label, precision in chance.items() if precision >= settings["covered"]]:
        yield (
            f"not counted as covered or not, since a random order has average precision ≥ {settings['covered']:g}: "
            f"{_shown(', '.join(too_frequent))}"
        )


CONCEPTS = Analysis(
    name="concepts",
    section="+",
    title="Features and labels",
    question=(
        "Which feature detects each of the dataset's labels, how well on pairs that it was not chosen by, and are the "
        "samples that activate a feature of one label? Beside random directions, as many as the largest set has features, "
        "which have no meaning. Not in the paper."
    ),
    paper="beyond 3.2",
    targets=("concepts",),
    version=7,
    settings=Settings,
    columns={
        "labels": {
            "feature_set": "name of the feature set, or random directions for the control",
            "samples": "image or text",
            "label": "value of the dataset's label",
            "feature": "feature with the highest average precision on the pairs of the training split",
            "class": "its class: ImgD, TextD, CrossD or dead; none in the control",
            "ap": "its average precision on held-out pairs",
            "chance": "average precision that is expected of a random order of the held-out pairs, one a group",
            "count": "number of held-out pairs with the label",
        },
        "purity": {
            "feature_set": "name of the feature set, or random directions for the control",
            "samples": "image or text",
            "feature": "index of the feature",
            "class": "ImgD, TextD, CrossD or dead; none in the control",
            "purity": "share of its concepts.k most activating held-out samples with their commonest label; none if it is "
            "active on fewer",
            "label": "that label",
        },
        "summary": {
            "feature_set": "name of the feature set, or random directions for the control",
            "samples": "image or text",
            "labels": "number of labels",
            "ap": "mean over labels of the average precision of their best feature",
            "ap_low": "lower end of its 95 % interval, over labels",
            "ap_high": "upper end of its 95 % interval, over labels",
            "chance": "mean over labels of the average precision that is expected of a random order",
            "gain": "mean over labels of ap minus that of the control; none for the control",
            "gain_low": "lower end of its 95 % interval, over labels",
            "gain_high": "upper end of its 95 % interval, over labels",
            "worst_label": "label that is detected worst, relative to chance",
            "worst_ap": "its average precision",
            "covered": "coverable labels whose best feature has an average precision of at least concepts.covered",
            "coverable": "labels for which a random order is expected to have less than concepts.covered",
            "purity": "mean purity of features that are active on enough samples",
            "purity_chance": "mean purity of as many random samples",
            "scored": "number of these features",
        },
        "samples": {
            "labels": "number of labels that are scored",
            "left_out": "labels that are not, with fewer than concepts.min_groups groups in either half, joined by commas",
            "n_left_out": "their number",
        },
    },
    tables=[
        TableView(
            "concepts",
            "How well the best features detect {label}, chosen on other pairs; worst: beside chance; covered: average "
            "precision ≥ {covered}; purity of {k} top samples",
            summary_rows,
        ),
        TableView(
            "concepts-labels", "Average precision of the best feature of each {label}, and its class", label_rows
        ),
    ],
    figures=[
        FigureView(
            "concepts",
            "Average precision of the best features of labels on held-out pairs; black: chance, a random order of "
            "them. Labels are in the order of the first feature set; of more than 30, its best and its worst ones.",
        )
    ],
    fields=_fields,
    remarks=_remarks,
    covers_all=True,
)
