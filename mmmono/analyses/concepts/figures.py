"""How well the best feature of each label detects it: one row for each label, one dot for each feature set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mmmono.analyses.concepts import CONTROL
from mmmono.reporting.figure_text import shortened
from mmmono.reporting.panels import panels
from mmmono.reporting.result import Result
from mmmono.reporting.style import RANDOM_COLOR, SERIES_COLORS, STYLE

SHOWN = 30  # labels; of more, the best and the worst
CELLS = 24


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw images and texts side by side."""
    table = result.table("labels")
    sets = list(dict.fromkeys(table["feature_set"]))
    first = table[table["feature_set"] == sets[0]].groupby("label")["ap"].mean().sort_values()
    order = list(first.index)
    if len(order) > SHOWN:
        order = order[: SHOWN // 2] + order[-SHOWN // 2 :]
    with plt.rc_context(STYLE):
        figure, axes = panels(2, 0.9 + 0.17 * len(order), ("average precision", ""))
        for axis, samples in zip(axes, ("image", "text"), strict=True):
            for number, name in enumerate(sets):
                mine = (
                    table[(table["samples"] == samples) & (table["feature_set"] == name)].set_index("label").loc[order]
                )
                hollow: dict[str, Any] = {"color": RANDOM_COLOR, "markerfacecolor": "none"}
                style = hollow if name == CONTROL else {"color": SERIES_COLORS[number % len(SERIES_COLORS)]}
                axis.plot(mine["ap"], range(len(order)), "o", markersize=3.5, label=name, **style)
            axis.plot(mine["chance"], range(len(order)), "|", color="black", markersize=5, label="chance")
            axis.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(order) - 0.4))
            axis.set_title(result.modalities.said(f"{samples}s"), loc="left")
            axis.grid(axis="y", linewidth=0.3)
        axes[0].set_yticks(range(len(order)), [shortened(str(label), CELLS) for label in order])
        axes[1].set_yticks(range(len(order)), [""] * len(order))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(5, len(sets) + 1))
        yield "concepts", figure
