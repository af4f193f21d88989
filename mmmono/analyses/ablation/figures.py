"""Table 1 as a plot: change of accuracy when a class of features is removed, or as many random features."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.formats import names
from mmmono.reporting.panels import SHORT, columns, name_ticks, panel_title
from mmmono.reporting.result import Result, Rows
from mmmono.reporting.style import CLASS_COLORS, RANDOM_COLOR, STYLE

CLASSES = ("ImgD", "TextD", "CrossD")
TASKS = ("image", "text")


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw Table 1."""
    yield (
        "table1",
        removal_effects(
            result.rows("table1"), keep=bool(result.recipe["ablation"]["keep"]), modalities=result.modalities
        ),
    )


def removal_effects(table1: Rows, keep: bool = False, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Plot Table 1 with one column per feature set, one row per task and 95 % intervals over test samples.

    Args:
        table1: rows of the table `table1`.
        keep: whether the classes were kept (all other features removed) instead of removed.
        modalities: what the modalities are called.
    """
    feature_sets = names(table1)
    with plt.rc_context(STYLE):
        labels = []
        for called in (modalities.said(task) for task in TASKS):
            between = " " if len(called) <= SHORT else "\n"
            labels.append(f"{called}{between}classification\nΔ accuracy (points)")
        figure, axes = columns(len(feature_sets), 2.1, labels, sharey=True)
        for column, name in enumerate(feature_sets):
            for row, task in enumerate(TASKS):
                shown = [r for r in table1 if (r["feature_set"], r["task"]) == (name, task)]
                _draw(axes[row, column], shown, modalities)
            panel_title(axes[0, column], name)
            axes[-1, column].set_xlabel("kept" if keep else "removed")
        class_, random = (
            Line2D([], [], color=color, marker=marker, linestyle="", markersize=4.5, label=label)
            for color, marker, label in (("#000000", "o", "class"), (RANDOM_COLOR, "s", "as many random"))
        )
        axes[0, 0].legend(handles=[class_, random], loc="lower left", handletextpad=0.2, borderpad=0)
        return figure


def _draw(axis: Axes, rows: Rows, modalities: ModalityNames) -> None:
    axis.axhline(0, color="black", linewidth=0.8)
    sizes = {row["size_of"]: row["neurons"] for row in rows}
    for place, name in enumerate(CLASSES):
        of_class = {row["deletion"]: row for row in rows if row["size_of"] == name and row["delta_none"] is not None}
        if "Random" in of_class:
            _point(axis, place - 0.12, of_class["Random"], RANDOM_COLOR, "s")
        if name in of_class:
            _point(axis, place + 0.12, of_class[name], CLASS_COLORS[name], "o")
        else:
            axis.text(place, 0, "none", ha="center", va="bottom", style="italic")
    name_ticks(axis, [f"{modalities.said(name)}\n{sizes.get(name, 0)}" for name in CLASSES])
    axis.set_xlim(-0.5, len(CLASSES) - 0.5)


def _point(axis: Axes, x: float, row: dict[str, float], color: str, marker: str) -> None:
    value, low, high = (100 * row[f"delta_none{end}"] for end in ("", "_low", "_high"))
    axis.errorbar(
        x, value, yerr=[[max(0, value - low)], [max(0, high - value)]], fmt=marker, markersize=4.5, color=color,
        elinewidth=1, capsize=2,
    )  # fmt: skip
