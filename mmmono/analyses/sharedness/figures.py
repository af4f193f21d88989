"""The companion of Figure 4: sharedness against the modality dominance score, one dot for each feature."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.headings import dominance_axis
from mmmono.reporting.panels import panel_title, panels
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, STYLE

CLASSES = ("CrossD", "TextD", "ImgD")  # the many below the few


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw all features by their two scores."""
    yield "sharedness", two_axes(result.table("scores"), result.recipe["sharedness"]["fdr"], result.modalities)


def two_axes(scores: pd.DataFrame, fdr: float, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Plot sharedness against the modality dominance score, one panel for each feature set; pale if q > `fdr`.

    Args:
        scores: one row per feature, with the columns `feature_set`, `class`, `mds`, `sharedness` and `q_value`.
        fdr: false discovery rate.
        modalities: what the modalities are called.
    """
    names = scores["feature_set"].unique()
    with plt.rc_context(STYLE):
        figure, axes = panels(len(names), 2.6, (dominance_axis(modalities), "sharedness"))
        for axis, name in zip(axes, names, strict=True):
            _draw(axis, str(name), scores[scores["feature_set"] == name], fdr, modalities)
        return figure


def _draw(axis: Axes, name: str, scores: pd.DataFrame, fdr: float, modalities: ModalityNames) -> None:
    live = scores[scores["class"] != "dead"]
    shared = live["q_value"] <= fdr
    for confirmed, alpha in ((False, 0.25), (True, 0.9)):
        for of in CLASSES:
            rows = live[(live["class"] == of) & (shared == confirmed)]
            axis.plot(
                rows["mds"],
                rows["sharedness"],
                ".",
                markersize=3.5,
                markeredgewidth=0,
                color=CLASS_COLORS[of],
                alpha=alpha,
            )
    axis.axhline(0, color="black", linewidth=0.6)
    axis.axvline(0.5, ymax=0.68, color="black", linewidth=0.8, linestyle=":")  # below the legend
    for of in reversed(CLASSES):
        members = live["class"] == of
        axis.plot(
            [],
            [],
            "o",
            markersize=3,
            color=CLASS_COLORS[of],
            label=f"{modalities.said(of)}: {int((members & shared).sum())} of {int(members.sum())} shared",
        )
    reach = max([0.01, *(live["mds"] - 0.5).abs()])
    axis.set_xlim(0.5 - 1.05 * reach, 0.5 + 1.05 * reach)
    low, high = (min([0.0, *live["sharedness"]]), max([0.05, *live["sharedness"]])) if len(live) else (0.0, 1.0)
    axis.set_ylim(low - 0.05 * (high - low), high + 0.45 * (high - low))  # room for the legend
    axis.locator_params(axis="x", nbins=5)
    axis.legend(loc="upper left", handlelength=1, borderpad=0, labelspacing=0.2)
    share = shared.mean() if len(live) else float("nan")
    panel_title(axis, name, f"{share:.0%} shared")
