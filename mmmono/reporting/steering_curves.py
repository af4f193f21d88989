"""Curves of steering: what moves, and what stays, against the strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.panels import columns, panel_title
from mmmono.reporting.style import CLASS_COLORS, STYLE

CLASSES = ("ImgD", "TextD", "CrossD")
HEIGHT = 2.2  # inches of a panel


@dataclass(frozen=True)
class Panel:
    """A row of panels.

    Attributes:
        column: what is drawn, mean over features with the half of the features in the middle.
        control: what is drawn dotted beside it, with a line at 0; empty for neither.
        label: of the axis.
        top: upper end of the axis; None: where the values end.
    """

    column: str
    control: str
    label: str
    top: float | None = None


def steering_curves(
    features: pd.DataFrame,
    panels: Sequence[Panel],
    modalities: ModalityNames = IMAGE_AND_TEXT,
    dotted: str = "other features steered",
) -> Figure:
    """Draw panels below each other, one column for each feature set.

    Args:
        features: a row for each feature and strength, with `feature_set`, `class`, `strength` and the panels' columns.
        panels: what is drawn, from top to bottom.
        modalities: what the modalities are called.
        dotted: what the controls are, for the legend.
    """
    names = list(dict.fromkeys(features["feature_set"]))
    with plt.rc_context(STYLE):
        labels = [panel.label for panel in panels]
        figure, axes = columns(len(names), HEIGHT, labels, sharex=True, sharey=True)
        for column, name in zip(axes.T, names, strict=True):
            here = features[features["feature_set"] == name]
            for axis, panel in zip(column, panels, strict=True):
                _draw(axis, here, panel)
            panel_title(column[0], name)
            strengths = sorted(here["strength"].unique())
            column[-1].set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
            column[-1].set_xlabel("strength")
        for axis, panel in zip(axes[:, 0], panels, strict=True):
            if panel.top is not None:
                axis.set_ylim(top=panel.top)
        lines = [
            Line2D([], [], color=CLASS_COLORS[of], marker="o", markersize=3, label=modalities.said(of))
            for of in CLASSES
        ]
        lines.append(Line2D([], [], color="black", linestyle=":", label=dotted))
        figure.legend(handles=lines, loc="outside upper center", ncols=2 if len(names) == 1 else 4)
        return figure


def _draw(axis: Axes, features: pd.DataFrame, panel: Panel) -> None:
    for of in CLASSES:
        rows = features[features["class"] == of].groupby("strength")
        if not len(rows):
            continue
        _band(axis, rows[panel.column], of)
        if panel.control:
            control = rows[panel.control].mean()
            axis.plot(range(len(control)), control, ":", color=CLASS_COLORS[of], linewidth=1.4)
    if panel.control:
        axis.axhline(0, color="#BBBBBB", linewidth=0.6, zorder=0)


def _band(axis: Axes, values: Any, of: str) -> None:
    """Draw the mean over features, and the half of the features in the middle."""
    mean, low, high = values.mean(), values.quantile(0.25), values.quantile(0.75)
    places = range(len(mean))  # strengths stand at equal distances
    axis.fill_between(places, low, high, color=CLASS_COLORS[of], alpha=0.15, linewidth=0)
    axis.plot(places, mean, "o-", color=CLASS_COLORS[of], markersize=3, linewidth=1.4)
