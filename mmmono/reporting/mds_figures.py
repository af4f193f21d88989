"""Figure 4: distributions of the modality dominance score, by class, for several feature sets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.modality import FeatureClass
from mmmono.modality.report import FeatureSetDominance
from mmmono.reporting.style import CLASS_COLORS, STYLE

BINS = 48


def mds_distributions(sets: Sequence[FeatureSetDominance]) -> Figure:
    """Plot histograms of the scores, one panel per feature set, colored by class; lines mark μ and 0.5.

    Each panel has its own range around 0.5, because scores of raw dimensions vary ten times less than those of sparse
    features.
    """
    with plt.rc_context(STYLE):
        columns = min(len(sets), 4)
        rows = math.ceil(len(sets) / columns)
        figure, axes = plt.subplots(
            rows, columns, figsize=(max(3.4, 2.7 * columns), 2.5 * rows), squeeze=False, layout="constrained"
        )
        for axis in axes.flat[len(sets) :]:
            axis.set_axis_off()
        for axis, dominance in zip(axes.flat, sets, strict=False):
            _draw(axis, dominance)
        for row in axes:
            row[0].set_ylabel("features")
        figure.supxlabel("modality dominance score (0 text, 1 image)", fontsize=STYLE["axes.labelsize"])
        return figure


def _draw(axis: Axes, dominance: FeatureSetDominance) -> None:
    scores, summary = dominance.scores.scores.numpy(), dominance.summary
    classes: tuple[FeatureClass, ...] = ("TextD", "CrossD", "ImgD")
    members = [scores[dominance.partition[name].numpy()] for name in classes]
    reach = max([0.01, *(float(np.abs(values - 0.5).max()) for values in members if len(values))])
    axis.hist(
        members,
        bins=np.linspace(0.5 - reach, 0.5 + reach, BINS + 1).tolist(),
        stacked=True,
        color=[CLASS_COLORS[name] for name in classes],
        label=[f"{name} {len(values)}" for name, values in zip(classes, members, strict=True)],
    )
    axis.axvline(summary.mean, color="black", linewidth=0.8)
    axis.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    dead = f", {summary.dead} dead" if summary.dead else ""
    axis.set_title(f"{dominance.name}\nμ = {summary.mean:.3f}, σ = {summary.std:.3f}{dead}", loc="left")
    axis.locator_params(axis="x", nbins=5)
    axis.legend(loc="upper left", handlelength=1, borderpad=0, labelspacing=0.2)
    axis.set_ylim(top=axis.get_ylim()[1] * 1.4)  # room for the legend above the tails
