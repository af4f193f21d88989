"""Figure 4: distributions of the modality dominance score, by class, for several feature sets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.formats import with_effective
from mmmono.reporting.headings import dominance_axis
from mmmono.reporting.panels import panel_title, panels
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, STYLE

BINS = 48
CLASSES = ("TextD", "CrossD", "ImgD")  # from left to right, as in the figure


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw Figure 4."""
    yield "mds", distributions(result.table("scores"), result.table("summary"), result.modalities)


def distributions(scores: pd.DataFrame, summary: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Plot histograms of the scores, one panel per feature set, colored by class; lines mark μ and 0.5.

    Each panel has its own range around 0.5, because scores of raw dimensions vary ten times less than those of sparse
    features.

    Args:
        scores: one row per feature, with the columns `feature_set`, `class` and `mds`.
        summary: one row per feature set, with the columns `feature_set`, `null_std`, `groups`
            and `effective_groups`.
        modalities: what the modalities are called.
    """
    by_set = summary.set_index("feature_set")
    names = scores["feature_set"].unique()
    with plt.rc_context(STYLE):
        figure, axes = panels(len(names), 2.5, (dominance_axis(modalities), "features"))
        for axis, name in zip(axes, names, strict=True):
            _draw(axis, str(name), scores[scores["feature_set"] == name], by_set.loc[name], modalities)
        return figure


def _draw(axis: Axes, name: str, scores: pd.DataFrame, summary: pd.Series, modalities: ModalityNames) -> None:
    members = [scores.loc[scores["class"] == of, "mds"].to_numpy() for of in CLASSES]
    live = np.concatenate(members)
    reach = max([0.01, *(float(np.abs(values - 0.5).max()) for values in members if len(values))])
    axis.hist(
        members,
        bins=np.linspace(0.5 - reach, 0.5 + reach, BINS + 1).tolist(),
        stacked=True,
        color=[CLASS_COLORS[of] for of in CLASSES],
        label=[f"{modalities.said(of)} {len(values)}" for of, values in zip(CLASSES, members, strict=True)],
    )
    mean, std = (live.mean(), live.std()) if len(live) else (np.nan, np.nan)
    axis.axvline(mean, color="black", linewidth=0.8)
    axis.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    dead = int((scores["class"] == "dead").sum())
    groups = with_effective(summary["groups"], summary["effective_groups"])
    numbers = f"μ = {mean:.3f}, σ = {std:.3f}, σ₀ = {summary['null_std']:.3f}"
    panel_title(axis, f"{name}{f', {dead} dead' if dead else ''}", groups, numbers)
    axis.locator_params(axis="x", nbins=5)
    axis.legend(loc="upper left", handlelength=1, borderpad=0, labelspacing=0.2)
    axis.set_ylim(top=axis.get_ylim()[1] * 1.4)  # room for the legend above the tails
