"""Each contrast with the values of the trainings, and their mean with its interval."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.analyses.trainings import PANELS, in_words, title_in_words
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.core.statistics import Interval
from mmmono.pipeline.contrasts import LEVEL, NULL, SCALES
from mmmono.reporting.panels import interval_line, name_lines
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, PAGE, RANDOM_COLOR, STYLE

COLUMNS = 3  # panels in a row
BELOW = 0.3  # a mean, the trainings, in lines
LINE, REST = 0.19, 0.62  # inches: height of a line, and of what a panel has beside its lines
PLACE = ["contrast", "family", "row"]


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw a figure for each feature set that has contrasts."""
    contrasts, values = result.table("contrasts"), result.table("values")
    for name in dict.fromkeys(contrasts["feature_set"]):
        own = contrasts[contrasts["feature_set"] == name]
        yield f"{name}-trainings", over_trainings(own, values[values["feature_set"] == name], result.modalities)


def over_trainings(contrasts: pd.DataFrame, values: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """One panel for each family, one line for each contrast.

    Args:
        contrasts: the table `contrasts`, of one feature set.
        values: the table `values`, of the same feature set.
        modalities: what the classes are called.
    """
    families = [part for _, part in contrasts.groupby(PLACE[:2], sort=False)]
    if len(families) > PANELS:
        least = sorted(families, key=lambda part: part["p"].astype(float).fillna(1).min())[:PANELS]
        families = [part for part in families if any(part is one for one in least)]
    single = {tuple(map(str, place)): own["value"].tolist() for place, own in values.groupby(PLACE)}
    columns = min(COLUMNS, len(families))
    lines = math.ceil(len(families) / columns)
    with plt.rc_context(STYLE):
        height = lines * (LINE * max(map(len, families)) + REST)
        figure, axes = plt.subplots(lines, columns, figsize=(PAGE, height), squeeze=False, layout="constrained")
        for axis in axes.flat[len(families) :]:
            axis.set_axis_off()
        for axis, part in zip(axes.flat, families, strict=False):
            _draw(axis, part, single, modalities)
        return figure


def _draw(
    axis: Axes, family: pd.DataFrame, values: dict[tuple[str, ...], list[float]], modalities: ModalityNames
) -> None:
    """Draw the lines of a family; the mean is filled where it stands."""
    first = family.iloc[0]
    null, scale = NULL[first["kind"]], SCALES[first["unit"]]
    if null is not None:
        axis.axvline(null, color="black", linewidth=0.8, linestyle=":")
    for line, row in enumerate(family.to_dict("records")):
        color = _color(row["row"])
        filled = bool(row["p_holm"] <= LEVEL)
        middle, low, high = (scale * float(row[f"mean{end}"]) for end in ("", "_low", "_high"))
        mean = Interval(middle, low, high)
        of = [scale * value for value in values[row["contrast"], row["family"], row["row"]]]
        axis.plot(of, [line + BELOW] * len(of), ".", color=color, markersize=3.5, alpha=0.6, markeredgewidth=0)
        interval_line(axis, line, [], mean, color=color, markerfacecolor=color if filled else "white", zorder=3)
    name_lines(axis, [in_words(row, modalities) for row in family["row"]])
    parts = title_in_words(first["contrast"], first["unit"], modalities), in_words(first["family"], modalities)
    axis.set_title("\n".join(filter(None, parts)), loc="left")
    axis.locator_params(axis="x", nbins=4)


def _color(row: str) -> str:
    """Color of the first class that a row names."""
    classes = re.findall("|".join(CLASS_COLORS), row)
    return CLASS_COLORS[classes[0]] if classes else RANDOM_COLOR
