"""Objectives for pairs: what becomes of known concepts, and retrieval by codes, over settings of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.modality.validation import mean_interval
from mmmono.reporting.panels import interval_line, name_lines
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, STYLE

PANELS = {
    "one": "one latent",
    "merged": "merged",
    "fvu": "FVU",
    "recall_at_1": "R@1 by codes",
}
DROPPED = {
    "without_none": "all latents",
    "without_image_dominant": "without ImgD",
    "without_text_dominant": "without TextD",
    "without_cross_modal": "without CrossD",
}
TO_ONE = ("one", "merged")  # measures that are shares: their axes end at 1


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw all main measures, and retrieval without each class."""
    rows = result.table("objectives")
    yield "objectives_synthetic", measures_by_objective(rows)
    yield "objectives_synthetic-classes", recall_without_classes(rows)


def measures_by_objective(rows: pd.DataFrame) -> Figure:
    """One row of panels for each setting of the data, one column for each measure, one line for each objective.

    Args:
        rows: columns `data`, `feature_set`, `seed` and those of `PANELS`.
    """
    settings, objectives = (list(dict.fromkeys(rows[column])) for column in ("data", "feature_set"))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(settings), len(PANELS), figsize=(7.2, (0.16 * len(objectives) + 0.35) * len(settings) + 0.3),
            squeeze=False, sharey=True, sharex="col", layout="constrained",
        )  # fmt: skip
        for line, setting in enumerate(settings):
            part = rows[rows.data == setting]
            for axis, (measure, title) in zip(axes[line], PANELS.items(), strict=True):
                _points(axis, _values(part, objectives, measure), "#0072B2")
                found = float(rows[measure].astype(float).max())  # NaN if no set has it: FVU without a decoder
                highest = 1.0 if measure in TO_ONE or not found > 0 else 1.1 * found
                axis.set_xlim(-0.05 * highest, 1.05 * highest)
                if line == 0:
                    axis.set_title(title, loc="left")
            name_lines(axes[line, 0], objectives, setting)
        return figure


def recall_without_classes(rows: pd.DataFrame) -> Figure:
    """One panel for each setting of the data: R@1 of all latents, and without the latents of each class.

    Args:
        rows: columns `data`, `feature_set`, `seed` and those of `DROPPED`.
    """
    settings, objectives = (list(dict.fromkeys(rows[column])) for column in ("data", "feature_set"))
    colors = ("black", *(CLASS_COLORS[name] for name in ("ImgD", "TextD", "CrossD")))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(settings), figsize=(7.2, 0.3 * len(objectives) + 0.8), squeeze=False, sharey=True, sharex=True,
            layout="constrained",
        )  # fmt: skip
        for axis, setting in zip(axes[0], settings, strict=True):
            part = rows[rows.data == setting]
            for place, ((measure, title), color) in enumerate(zip(DROPPED.items(), colors, strict=True)):
                _points(axis, _values(part, objectives, measure), color, 0.18 * (place - 1.5), title)
            axis.set_title(setting, loc="left")
            axis.set_xlabel("R@1 by codes")
        name_lines(axes[0, 0], objectives)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(DROPPED))
        return figure


def _values(rows: pd.DataFrame, objectives: Sequence[str], measure: str) -> list[list[float]]:
    """Values of a measure with all seeds, for each objective."""
    return [rows[rows.feature_set == name][measure].astype(float).dropna().tolist() for name in objectives]


def _points(axis: Axes, values: Sequence[Sequence[float]], color: str, shift: float = 0.0, label: str = "_") -> None:
    """Plot mean, t interval and single seeds, one line for each objective; intervals end at 0 and 1."""
    for line, of in enumerate(values):
        if not of:
            continue
        found = mean_interval(of)
        low, high = np.clip((found.low, found.high), 0, max(1, *of))
        interval = replace(found, low=float(low), high=float(high))
        interval_line(axis, line + shift, of, interval, color=color, label=label if line == 0 else "_")
