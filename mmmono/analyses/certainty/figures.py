"""Certainty of R(d) (Eq. 1): intervals by group, and the features confirmed beyond a border of the classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.reporting.panels import panel_title, panels
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, STYLE

CLASSES = ("ImgD", "TextD", "CrossD")


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw the scores with their intervals."""
    yield "certainty", score_intervals(result.table("scores"), result.recipe["certainty"]["fdr"])


def score_intervals(scores: pd.DataFrame, fdr: float) -> Figure:
    """Plot features sorted by score with 95 % intervals, one panel per feature set; pale unless confirmed.

    A feature is confirmed if it lies beyond a border of the classes at the false discovery rate.

    Args:
        scores: one row per feature, with the columns `feature_set`, `class`, `mds`, `low`, `high` and
            `border_q_value`.
        fdr: false discovery rate.
    """
    names = scores["feature_set"].unique()
    with plt.rc_context(STYLE):
        figure, axes = panels(len(names), 2.6, ("features, by score", "modality dominance score"))
        for axis, name in zip(axes, names, strict=True):
            _draw(axis, str(name), scores[scores["feature_set"] == name], fdr)
        return figure


def _draw(axis: Axes, name: str, scores: pd.DataFrame, fdr: float) -> None:
    live = scores[scores["class"] != "dead"].sort_values("mds", kind="stable")
    position = np.arange(len(live))
    beyond = (live["border_q_value"] <= fdr).to_numpy()
    for of in CLASSES:
        for confirmed, alpha in ((False, 0.25), (True, 1.0)):
            members = (live["class"] == of).to_numpy() & (beyond == confirmed)
            rows, at, color = live[members], position[members], CLASS_COLORS[of]
            axis.vlines(at, rows["low"], rows["high"], color=color, linewidth=0.5, alpha=0.35 * alpha)
            axis.plot(at, rows["mds"], ".", markersize=1.6, color=color, alpha=alpha)
    axis.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    share = beyond.mean() if len(live) else float("nan")
    panel_title(axis, name, f"{share:.0%} confirmed")
