"""Certainty of R(d) (Eq. 1): bootstrap intervals, and significance against the permutation null."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.modality import CLASSES, DominanceResamples
from mmmono.modality.report import FeatureSetDominance
from mmmono.reporting.style import CLASS_COLORS, STYLE


def score_intervals(sets: Sequence[tuple[FeatureSetDominance, DominanceResamples]], fdr: float) -> Figure:
    """Plot features sorted by score with 95 % intervals, one panel per feature set; pale if q > `fdr`."""
    with plt.rc_context(STYLE):
        columns = min(len(sets), 4)
        rows = math.ceil(len(sets) / columns)
        figure, axes = plt.subplots(
            rows, columns, figsize=(max(3.4, 2.7 * columns), 2.6 * rows), squeeze=False, layout="constrained"
        )
        for axis in axes.flat[len(sets) :]:
            axis.set_axis_off()
        for axis, (dominance, resamples) in zip(axes.flat, sets, strict=False):
            _draw(axis, dominance, resamples, fdr)
        for row in axes:
            row[0].set_ylabel("modality dominance score")
        figure.supxlabel("features, by score", fontsize=STYLE["axes.labelsize"])
        return figure


def _draw(axis: Axes, dominance: FeatureSetDominance, resamples: DominanceResamples, fdr: float) -> None:
    scores = dominance.scores.scores.numpy()
    low, high = resamples.interval().numpy()
    beyond = resamples.q_value.numpy() <= fdr
    classes = np.array(dominance.partition.class_of())
    order = [i for i in np.argsort(scores) if classes[i] != "dead"]
    position = np.full(len(scores), -1)
    position[order] = np.arange(len(order))
    for name in CLASSES[:3]:
        for confirmed, alpha in ((False, 0.25), (True, 1.0)):
            members = np.flatnonzero((classes == name) & (beyond == confirmed))
            axis.vlines(
                position[members],
                low[members],
                high[members],
                color=CLASS_COLORS[name],
                linewidth=0.5,
                alpha=0.35 * alpha,
            )
            axis.plot(position[members], scores[members], ".", markersize=1.6, color=CLASS_COLORS[name], alpha=alpha)
    axis.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    share = beyond[order].mean() if order else float("nan")
    axis.set_title(f"{dominance.name}\n{share:.0%} beyond chance", loc="left")
