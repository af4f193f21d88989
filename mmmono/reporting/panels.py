"""Figures with one panel for each feature set."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.reporting.style import fitting

COLUMNS = 4  # panels in a row


def panels(count: int, height: float, labels: tuple[str, str]) -> tuple[Figure, Sequence[Axes]]:
    """Make a figure with `count` panels, four in a row; call it within `plt.rc_context(STYLE)`.

    Args:
        count: number of panels.
        height: height of a row, in inches.
        labels: label below the figure, and label at the left of each row.
    """
    columns = min(count, COLUMNS)
    rows = math.ceil(count / columns)
    size = (fitting(2.7 * columns), height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    for row in axes:
        row[0].set_ylabel(labels[1])
    figure.supxlabel(labels[0])
    return figure, list(axes.flat[:count])
