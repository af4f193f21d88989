"""Table 1 as a plot: change of accuracy after removing a class of features, or as many random features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmmono.features.store import MODALITIES, Modality
from mmmono.modality import Ablation
from mmmono.modality.ablation import REMOVED, Interval
from mmmono.reporting.style import CLASS_COLORS, RANDOM_COLOR, STYLE


def removal_effects(results: Mapping[str, Mapping[Modality, Sequence[Ablation]]], keep: bool = False) -> Figure:
    """Plot Table 1 with one column per feature set, one row per task and 95 % intervals over test samples.

    Args:
        results: rows of Table 1 by feature set and task.
        keep: whether the classes were kept (all other features removed) instead of removed.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2,
            len(results),
            figsize=(max(3.4, 2.4 * len(results)), 4.2),
            squeeze=False,
            sharey="row",
            layout="constrained",
        )
        for column, (name, tasks) in enumerate(results.items()):
            for row, modality in enumerate(MODALITIES):
                _draw(axes[row, column], tasks[modality])
            axes[0, column].set_title(name, loc="left")
            axes[1, column].set_xlabel("kept" if keep else "removed")
        for row, modality in enumerate(MODALITIES):
            axes[row, 0].set_ylabel(f"{modality} classification\nΔ accuracy (points)")
        class_, random = (
            Line2D([], [], color=color, marker=marker, linestyle="", markersize=4.5, label=label)
            for color, marker, label in (("#000000", "o", "class"), (RANDOM_COLOR, "s", "as many random"))
        )
        axes[0, 0].legend(handles=[class_, random], loc="lower left", handletextpad=0.2, borderpad=0)
        return figure


def _draw(axis: Axes, rows: Sequence[Ablation]) -> None:
    axis.axhline(0, color="black", linewidth=0.8)
    sizes = {row.size_of: row.neurons for row in rows}
    for place, name in enumerate(REMOVED):
        deltas = {row.deletion: row.delta_none for row in rows if row.size_of == name}
        random, own = deltas.get("Random"), deltas.get(name)
        if random is not None:
            _point(axis, place - 0.12, random, RANDOM_COLOR, "s")
        if own is not None:
            _point(axis, place + 0.12, own, CLASS_COLORS[name], "o")
        else:
            axis.text(place, 0, "none", ha="center", va="bottom", fontsize=8, style="italic")
    axis.set_xticks(range(len(REMOVED)), [f"{name}\n{sizes.get(name, 0)}" for name in REMOVED])
    axis.set_xlim(-0.5, len(REMOVED) - 0.5)


def _point(axis: Axes, x: float, delta: Interval, color: str, marker: str) -> None:
    value, low, high = 100 * delta.value, 100 * delta.low, 100 * delta.high
    axis.errorbar(
        x, value, yerr=[[max(0, value - low)], [max(0, high - value)]], fmt=marker, markersize=4.5, color=color,
        elinewidth=1, capsize=2,
    )  # fmt: skip
