"""Steerability against strength, and contact sheets of what a text finds."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from mmmono.pipeline.steering_settings import UNITS
from mmmono.reporting.result import Result
from mmmono.reporting.steering_curves import Panel, steering_curves
from mmmono.reporting.steering_sheets import SteeredRow, SteeringCard, steering_sheet

IMAGES = "images"  # folder with the images on contact sheets, `<row>.png`: their central squares


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw the curves, and a contact sheet for each feature that is shown."""
    features = result.table("features")
    if len(features):
        panels = [Panel("move", "control", "feature moves"), Panel("stay", "", "other features stay", top=1.02)]
        yield "steering", steering_curves(features, panels, result.modalities)
    shown = result.table("shown")
    for (name, feature), rows in shown.groupby(["feature_set", "feature"], sort=False) if len(shown) else ():
        yield f"{name}-sheet-{feature}", steering_sheet(_card(result, rows))


def _card(result: Result, rows: pd.DataFrame) -> SteeringCard:
    first, lines = rows.iloc[0], []
    unit = UNITS[result.recipe["steering"]["how"]]
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
