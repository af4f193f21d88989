"""Results of a sweep: reconstruction against sparsity, and monosemanticity against reconstruction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, ScalarFormatter

from mmmono.reporting.result import Result
from mmmono.reporting.style import STYLE, fitting

MARKERS = "osD^vP*X"


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw the dictionaries; nothing is drawn if none has a decoder, and therefore an FVU."""
    runs = result.table("runs")
    if runs["fvu"].notna().any():
        yield "sweep", trade_offs(runs, result.recipe["embedder"])


def trade_offs(runs: pd.DataFrame, embedder: str | None) -> Figure:
    """Plot FVU against L0 with the Pareto front, and Mono minus chance against FVU if it was measured.

    Args:
        runs: one row per dictionary, with `dictionary`, `expansion`, `fvu`, `l0`, `mono_corrected` and `front`; rows without
            FVU are not drawn.
        embedder: the embedder that Mono was measured with; None if it was not measured.
    """
    reconstructing = runs[runs["fvu"].notna()]
    expansions = sorted(reconstructing["expansion"].unique())
    kinds = sorted(reconstructing["dictionary"].unique())
    colors = dict(zip(expansions, plt.cm.viridis(np.linspace(0, 0.85, max(1, len(expansions)))), strict=True))
    markers = {kind: MARKERS[i % len(MARKERS)] for i, kind in enumerate(kinds)}

    def draw(axis: Axes, x: str, y: str) -> None:
        for (kind, expansion), part in reconstructing.groupby(["dictionary", "expansion"]):
            axis.scatter(part[x], part[y], s=22, color=colors[expansion], marker=markers[kind], linewidths=0, zorder=3)

    with plt.rc_context(STYLE):
        panels = 1 if embedder is None else 2
        figure, axes = plt.subplots(1, panels, figsize=(fitting(3.4 * panels), 2.8), squeeze=False)
        pareto = axes[0, 0]
        draw(pareto, "l0", "fvu")
        front = reconstructing[reconstructing["front"]].sort_values("l0")
        pareto.plot(front["l0"], front["fvu"], color="black", linewidth=0.8, zorder=2)
        pareto.set_xscale("log", base=2)
        pareto.xaxis.set_major_formatter(ScalarFormatter())
        pareto.xaxis.set_minor_formatter(NullFormatter())
        pareto.set_xlabel("L0 (active latents a sample)")
        pareto.set_ylabel("FVU")
        pareto.set_ylim(bottom=0)
        if embedder is not None:
            draw(axes[0, 1], "fvu", "mono_corrected")
            axes[0, 1].set_xlabel("FVU")
            axes[0, 1].set_ylabel(f"Mono − chance ({embedder})")
        handles = [
            Line2D([], [], color=colors[e], marker="o", linestyle="", markersize=4, label=f"×{e:g}") for e in expansions
        ]
        if len(kinds) > 1:
            handles += [
                Line2D([], [], color="gray", marker=markers[k], linestyle="", markersize=4, label=k) for k in kinds
            ]
        handles.append(Line2D([], [], color="black", linewidth=0.8, label="Pareto front"))
        pareto.legend(handles=handles, title="expansion")
        return figure
