"""Steerability against strength, and contact sheets of what a text finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.result import Result
from mmmono.reporting.steering_sheets import SteeredRow, SteeringCard, steering_sheet
from mmmono.reporting.style import CLASS_COLORS, STYLE, fitting

IMAGES = "images"  # folder with the images on contact sheets, `<row>.png`: their central squares
CLASSES = ("ImgD", "TextD", "CrossD")


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw the curves, and a contact sheet for each feature that is shown."""
    features = result.table("features")
    if len(features):
        yield "steering", steerability(features, result.modalities)
    shown = result.table("shown")
    for (name, feature), rows in shown.groupby(["feature_set", "feature"], sort=False) if len(shown) else ():
        yield f"{name}-sheet-{feature}", steering_sheet(_card(result, rows))


def steerability(features: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Plot move and control (above) and stay (below) against the strength, one column for each feature set.

    Args:
        features: the table `features`.
        modalities: what the modalities are called.
    """
    names = list(dict.fromkeys(features["feature_set"]))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2, len(names), figsize=(fitting(2.4 * len(names)), 4.4), squeeze=False, sharex=True, sharey="row",
            layout="constrained",
        )  # fmt: skip
        for (above, below), name in zip(axes.T, names, strict=True):
            here = features[features["feature_set"] == name]
            for of in CLASSES:
                rows = here[here["class"] == of].groupby("strength")
                if not len(rows):
                    continue
                _band(above, rows["move"], of)
                _band(below, rows["stay"], of)
                control = rows["control"].mean()
                above.plot(range(len(control)), control, ":", color=CLASS_COLORS[of], linewidth=1.4)
            above.axhline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
            above.set_title(name, loc="left")
            strengths = sorted(here["strength"].unique())
            below.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
            below.set_xlabel("strength")
        axes[0, 0].set_ylabel("feature moves")
        axes[1, 0].set_ylabel("other features stay")
        axes[1, 0].set_ylim(top=1.02)
        lines = [
            Line2D([], [], color=CLASS_COLORS[of], marker="o", markersize=3, label=modalities.said(of))
            for of in CLASSES
        ]
        lines.append(Line2D([], [], color="black", linestyle=":", label="other features steered"))
        figure.legend(handles=lines, loc="outside upper center", ncols=2 if len(names) == 1 else 4)
        return figure


def _band(axis: Axes, values: Any, of: str) -> None:
    """Draw the mean over features, and the half of the features in the middle."""
    mean, low, high = values.mean(), values.quantile(0.25), values.quantile(0.75)
    places = range(len(mean))  # strengths stand at equal distances
    axis.fill_between(places, low, high, color=CLASS_COLORS[of], alpha=0.15, linewidth=0)
    axis.plot(places, mean, "o-", color=CLASS_COLORS[of], markersize=3, linewidth=1.4)


def _card(result: Result, rows: pd.DataFrame) -> SteeringCard:
    first, lines = rows.iloc[0], []
    unit = "code ×" if result.recipe["steering"]["how"] == "scale" else "set to"
    for _, part in rows.groupby(["most", "strength"], sort=False, dropna=False):
        part = part.sort_values("rank", kind="stable")
        most, strength = part["most"].iloc[0], part["strength"].iloc[0]
        label = "most active" if most else "as it is" if pd.isna(strength) else f"{unit} {strength:g}"
        images = [_image(result, row) for row in part["row"]]
        lines.append(SteeredRow(label, list(zip(images, part["activation"], strict=True))))
    name, feature, members, mds, query = (first[key] for key in ("feature_set", "feature", "class", "mds", "query"))
    return SteeringCard(name, int(feature), members, float(mds), query, lines)


def _image(result: Result, row: int) -> Image.Image:
    with Image.open(result.folder / IMAGES / f"{row}.png") as image:
        return image.copy()
