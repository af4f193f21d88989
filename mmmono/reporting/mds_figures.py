"""Figure 4: distributions of the modality dominance score, by class, for several feature sets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mmmono.modality import FeatureClass
from mmmono.modality.report import FeatureSetDominance
from mmmono.reporting.style import CLASS_COLORS, STYLE

BINS = 60


def mds_distributions(sets: Sequence[FeatureSetDominance]) -> Figure:
    """One panel a feature set on a common axis: scores binned, colored by class, with μ and the borders marked."""
    with plt.rc_context(STYLE):
        columns = min(len(sets), 4)
        rows = math.ceil(len(sets) / columns)
        figure, axes = plt.subplots(
            rows, columns, figsize=(max(3.4, 2.6 * columns), 2.5 * rows), squeeze=False, sharex=True
        )
        for axis in axes.flat[len(sets) :]:
            axis.set_axis_off()
        edges = np.linspace(0, 1, BINS + 1)
        for axis, dominance in zip(axes.flat, sets, strict=False):
            scores = dominance.scores.scores.numpy()
            classes: tuple[FeatureClass, ...] = ("TextD", "CrossD", "ImgD")
            members = {name: scores[dominance.partition[name].numpy()] for name in classes}
            axis.hist(
                list(members.values()),
                bins=edges,
                stacked=True,
                color=[CLASS_COLORS[name] for name in classes],
                label=[f"{name} ({len(values)})" for name, values in members.items()],
            )
            summary = dominance.summary
            axis.axvline(summary.mean, color="black", linewidth=0.8)
            axis.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
            dead = f", {summary.dead} dead" if summary.dead else ""
            axis.set_title(
                f"{dominance.name}   $\\mu$ = {summary.mean:.3f}, $\\sigma$ = {summary.std:.3f}{dead}", loc="left"
            )
            axis.set_xlim(0, 1)
            axis.legend(loc="upper left", handlelength=1, borderpad=0, labelspacing=0.2)
            # The legend sits over the tails; leave it room above the tallest bar.
            axis.set_ylim(top=axis.get_ylim()[1] * 1.35)
        for axis in axes[-1]:
            axis.set_xlabel("modality dominance score  (text 0 – 1 image)")
        for row in axes:
            row[0].set_ylabel("features")
        return figure
