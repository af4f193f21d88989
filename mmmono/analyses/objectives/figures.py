"""Objectives for pairs on a model's embeddings: main measures, and R@1 without each class, with intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmmono.analyses.objectives import CLASSES
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.core.statistics import Interval
from mmmono.reporting.panels import interval_line, name_lines
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, PAGE, STYLE

PANELS = {
    "fvu": "FVU",
    "dead": "dead latents",
    "shared": "shared latents",
    "spread": "σ of R(d)",
    "codes_r1": "R@1 by codes",
    "r1": "R@1, reconstructed",
    "match": "match with other seeds",
    "stability": "stability of R(d)",
}
CHANCE = {"spread": "chance_spread", "match": "chance_match"}  # what is drawn as a tick
COLOR = "#0072B2"


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw the main measures, and retrieval without each class."""
    summary = result.table("summary")
    values = {"seeds": result.table("seeds"), "agreement": result.table("agreement")}
    yield "objectives", measures_by_objective(summary, values)
    if len(removals := result.table("removals")):
        yield "objectives-classes", changes_without_classes(summary, removals, result.modalities)


def measures_by_objective(summary: pd.DataFrame, values: dict[str, pd.DataFrame]) -> Figure:
    """One panel for each main measure, one line for each objective.

    Args:
        summary: the table `summary`.
        values: the tables `seeds` and `agreement`, whose values are drawn as points.
    """
    objectives = list(dict.fromkeys(summary.feature_set))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2, 4, figsize=(PAGE, 2 * (0.17 * len(objectives) + 0.55)), sharey=True, layout="constrained"
        )
        for axis, (measure, title) in zip(axes.flat, PANELS.items(), strict=True):
            rows = values["agreement" if measure in values["agreement"] else "seeds"]
            for line, name in enumerate(objectives):
                own = rows[rows.feature_set == name]
                single = own[measure].astype(float).dropna().tolist() if measure in own else []
                _estimate(axis, line, single, _found(summary, name, measure), color=COLOR)
                if (chance := _found(summary, name, CHANCE.get(measure, ""))) is not None:
                    axis.plot(chance.value, line, "|", color="black", markersize=6)
            axis.set_title(title, loc="left")
            axis.locator_params(axis="x", nbins=4)
        for row in axes:
            name_lines(row[0], objectives)
        return figure


def changes_without_classes(
    summary: pd.DataFrame, removals: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT
) -> Figure:
    """One panel for each class: change of R@1 without its latents, and without random latents like them.

    Args:
        summary: the table `summary`.
        removals: the table `removals`, whose values are drawn as points.
        modalities: what the classes are called.
    """
    objectives = list(dict.fromkeys(summary.feature_set))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            len(CLASSES),
            figsize=(PAGE, 0.24 * len(objectives) + 0.9),
            sharey=True,
            sharex=True,
            layout="constrained",
        )
        for axis, of in zip(axes, CLASSES, strict=True):
            axis.axvline(0, color="black", linewidth=0.6)
            for line, name in enumerate(objectives):
                own = removals[(removals.feature_set == name) & (removals.of == of)]
                for measure, shift in (("change_r1", -0.15), ("random_change_r1", 0.15)):
                    face = CLASS_COLORS[of] if measure == "change_r1" else "white"
                    found = _found(summary, name, measure, of)
                    single = own[measure].astype(float).tolist()
                    _estimate(axis, line + shift, single, found, color=CLASS_COLORS[of], markerfacecolor=face)
            axis.set_title(f"without {modalities.said(of)}", loc="left")
            axis.set_xlabel("change of R@1")
        name_lines(axes[0], objectives)
        handles = [
            Line2D([], [], color="black", marker="o", markersize=3.5, linestyle="", label="latents of the class removed"),
            Line2D([], [], color="black", marker="o", markersize=3.5, linestyle="", markerfacecolor="white",
                   label="random latents like them removed"),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        return figure


def _found(summary: pd.DataFrame, name: str, measure: str, of: str = "") -> Interval | None:
    """A measure of a feature set with its interval; None if there is none."""
    rows = summary[(summary.feature_set == name) & (summary.measure == measure) & (summary.of == of)]
    if not len(rows):
        return None
    value, low, high = (float(rows[column].iloc[0]) for column in ("mean", "mean_low", "mean_high"))
    return None if math.isnan(value) else Interval(value, low, high)


def _estimate(axis: Axes, at: float, values: Sequence[float], found: Interval | None, **look: str) -> None:
    if found is not None:
        interval_line(axis, at, values, found, **look)
