"""Figures of several panels: one for each feature set, a column for each, or one line for each in every panel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.core.statistics import Interval
from mmmono.reporting.figure_text import CELLS_AN_INCH, wrapped
from mmmono.reporting.style import fitting

COLUMNS = 4  # small panels in a row
WIDE = 3  # panels in a row that have a legend or a line of numbers
BETWEEN = 0.4  # inches between panels, for the labels of the next one's axis
SHORT = 8  # characters of a name that stands below an axis beside others


def name_ticks(axis: Axes, names: Sequence[str], **style: Any) -> None:
    """Write names below an axis, one at each whole number; long ones at an angle, so that they do not overlap."""
    longest = max((len(line) for name in names for line in name.splitlines()), default=0)
    long = longest > min(SHORT, _cells(axis) / max(1, len(names)))
    angle: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axis.set_xticks(range(len(names)), names, **angle, **style)


def panels(count: int, height: float, labels: tuple[str, str]) -> tuple[Figure, Sequence[Axes]]:
    """Make a figure with `count` panels, three in a row, of four two; call it within `plt.rc_context(STYLE)`.

    Args:
        count: number of panels.
        height: height of a row, in inches.
        labels: label below the figure, and label at the left of each row.
    """
    columns = 2 if count == WIDE + 1 else min(count, WIDE)
    rows = math.ceil(count / columns)
    size = (fitting(2.7 * columns), height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    for row in axes:
        row[0].set_ylabel(labels[1])
    figure.supxlabel(labels[0])
    return figure, list(axes.flat[:count])


def columns(
    count: int, height: float, labels: Sequence[str], *, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, np.ndarray]:
    """Make a figure with `count` columns of panels, four beside one another; call it within `plt.rc_context(STYLE)`.

    Args:
        count: number of columns.
        height: height of a panel, in inches.
        labels: label at the left of each panel of a column, from top to bottom.
        sharex: whether all panels have one horizontal axis.
        sharey: whether panels with one label have one vertical axis.

    Returns:
        The figure and its panels, [label, column].
    """
    beside, kinds = min(count, COLUMNS), len(labels)
    runs = math.ceil(count / beside)
    size = (fitting(2.4 * beside), height * kinds * runs)
    figure, drawn = plt.subplots(kinds * runs, beside, figsize=size, squeeze=False, layout="constrained")
    axes = drawn.reshape(runs, kinds, beside).swapaxes(0, 1).reshape(kinds, -1)
    for axis in axes[:, count:].flat:
        axis.set_axis_off()
    axes = axes[:, :count]
    for (kind, column), axis in np.ndenumerate(axes):
        if column % beside == 0:
            axis.set_ylabel(labels[kind])
        if sharey and column:
            axis.sharey(axes[kind, 0])
            axis.tick_params(labelleft=column % beside == 0)
        if sharex and (kind or column):
            axis.sharex(axes[0, 0])
        if sharex:
            axis.tick_params(labelbottom=kind == kinds - 1)
    return figure, axes


def panel_title(axis: Axes, name: str, *lines: str) -> None:
    """Write the title of a panel among others: a name, wrapped so that it ends before the next panel, and lines below."""
    axis.set_title("\n".join([*wrapped(name, int(_cells(axis))), *lines]), loc="left")


def _cells(axis: Axes) -> float:
    """Letters that fit beside one another into a panel, or above it."""
    spec = axis.get_subplotspec()
    columns = 1 if spec is None else spec.get_gridspec().ncols
    return CELLS_AN_INCH * (axis.figure.get_figwidth() / columns - BETWEEN)  # type: ignore[union-attr]


def interval_line(axis: Axes, at: float, values: Sequence[float], interval: Interval, **mean: Any) -> None:
    """Plot an estimate with its interval, and the values that it is of, on a horizontal line of a panel.

    Args:
        axis: the panel.
        at: height of the line.
        values: the single values, such as one for each seed.
        interval: the estimate; no bounds, no interval.
        **mean: `color`, and further properties of the estimate's marker.
    """
    color = mean["color"]
    axis.plot(values, [at] * len(values), ".", color=color, markersize=2, alpha=0.4)
    axis.plot(interval.value, at, "o", **{"markersize": 3.5, "label": "_", **mean})
    if interval.bounded:
        axis.hlines(at, interval.low, interval.high, color=color, linewidth=0.9, alpha=0.8)


def name_lines(axis: Axes, names: Sequence[str], title: str = "") -> None:
    """Write the names of a panel's lines, which are at the whole numbers from 0 on, the first one at the top."""
    axis.set_yticks(range(len(names)), list(names))
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_ylabel(title)
