"""How well names detect their features: all features by both sides, and the best names of each class."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.analyses.names import SHOWN, best_names, side_of
from mmmono.core.modality_names import ModalityNames
from mmmono.reporting.figure_text import shortened
from mmmono.reporting.panels import panel_title, panels
from mmmono.reporting.result import Result, Rows
from mmmono.reporting.style import CLASS_COLORS, STYLE

CLASSES = ("CrossD", "TextD", "ImgD")  # the many below the few
CELLS = 22  # of a name


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw all features by the AUROC of their names on either side, then the best names with intervals."""
    names = result.table("names")
    names = names[names["class"] != "dead"].dropna(subset=["p_value"])
    sets = list(dict.fromkeys(result.table("names")["feature_set"]))
    said = result.modalities.said
    with plt.rc_context(STYLE):
        labels = (f"AUROC of the name on {said('texts')}", f"AUROC of the name on {said('images')}")
        figure, axes = panels(len(sets), 2.9, labels)
        low = min([0.4, *names["auroc_image"].dropna(), *names["auroc_text"].dropna()]) - 0.05
        for axis, name in zip(axes, sets, strict=True):
            _scatter(axis, str(name), names[names["feature_set"] == name], low, result.modalities)
        yield "names", figure
        if names["named"].any():
            figure, axes = panels(len(sets), 3.4, ("AUROC of the name on the side of its class", ""))
            for axis, name in zip(axes, sets, strict=True):
                _best(axis, str(name), [row for row in result.rows("names") if row["feature_set"] == name])
            yield "best_names", figure


def _scatter(axis: Axes, name: str, live: pd.DataFrame, low: float, modalities: ModalityNames) -> None:
    shown = live.fillna({"auroc_image": low, "auroc_text": low})  # too rare on that side: at the edge
    for named, alpha in ((False, 0.2), (True, 0.9)):
        for of in CLASSES:
            rows = shown[(shown["class"] == of) & (shown["named"] == named)]
            axis.plot(
                rows["auroc_text"], rows["auroc_image"], ".", markersize=4, markeredgewidth=0, color=CLASS_COLORS[of],
                alpha=alpha,
            )  # fmt: skip
    axis.plot([low, 1.02], [0.5, 0.5], color="black", linewidth=0.6, linestyle=":")
    axis.plot([0.5, 0.5], [low, 1.02], color="black", linewidth=0.6, linestyle=":")
    for of in reversed(CLASSES):
        mine = live[live["class"] == of]
        label = f"{modalities.said(of)}: {int(mine['named'].sum())} of {len(mine)} named"
        axis.plot([], [], "o", markersize=3, color=CLASS_COLORS[of], label=label)
    axis.set(xlim=(low - 0.02, 1.03), ylim=(low - 0.02, 1.03 + 0.42 * (1.03 - low)))
    ticks = [tick for tick in (0.0, 0.25, 0.5, 0.75, 1.0) if tick >= low]
    axis.set(xticks=ticks, yticks=ticks)
    axis.legend(loc="upper left", handlelength=1, borderpad=0, labelspacing=0.2)
    share = live["named"].mean() if len(live) else float("nan")
    panel_title(axis, name, f"{share:.0%} named")


def _best(axis: Axes, name: str, rows: Rows) -> None:
    """The names of each class that hold best."""
    best = [row for of in reversed(CLASSES) for row in best_names(rows, of)[:SHOWN]]
    lowest = 0.4
    for place, row in enumerate(best):
        side, color = side_of(row), CLASS_COLORS[row["class"]]
        ends = [row[f"auroc_{side}_{end}"] for end in ("low", "high")]
        axis.plot(ends, [place, place], color=color, linewidth=1)
        axis.plot(row[f"auroc_{side}"], place, "o", markersize=3.5, color=color)
        axis.plot(row[f"chance_{side}"], place, "|", markersize=5, color="black")
        lowest = min(lowest, row[f"chance_{side}"])
    axis.set_yticks(range(len(best)), [shortened(row["name"], CELLS) for row in best])
    axis.set(xlim=(max(0.0, lowest - 0.02), 1.02), ylim=(len(best) - 0.4, -0.6), xticks=(0.5, 0.75, 1.0))
    panel_title(axis, name)
