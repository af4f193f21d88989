"""Steerability of a generator against strength, and contact sheets of what it draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from mmmono.pipeline.images import read_image
from mmmono.pipeline.steering_settings import UNITS
from mmmono.reporting.result import Result
from mmmono.reporting.steering_curves import Panel, steering_curves
from mmmono.reporting.steering_sheets import SteeredRow, SteeringCard, steering_sheet

PANELS = (
    Panel("move", "control", "feature moves"),
    Panel("likeness", "likeness_control", "likeness grows"),
    Panel("stay", "", "other features stay", top=1.02),
)


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw the curves, and a contact sheet for each feature."""
    yield (
        "steered_images",
        steering_curves(result.table("features"), PANELS, result.modalities, dotted="random features steered"),
    )
    most = result.table("most")
    for (name, feature), rows in result.table("images").groupby(["feature_set", "feature"], sort=False):
        own = most[(most["feature_set"] == name) & (most["feature"] == feature)]
        yield f"{name}-sheet-{feature}", steering_sheet(_card(result, rows[rows["seed"] == 0], own))


def _card(result: Result, rows: pd.DataFrame, most: pd.DataFrame) -> SteeringCard:
    """The images of the first seed: prompts below each other, strengths beside each other."""
    unit = UNITS[result.recipe["steered_images"]["how"]]
    lines: list[SteeredRow] = []
    for prompt, part in rows.groupby("prompt", sort=False):
        part = part.sort_values("strength", na_position="first")
        heads = ["as it is" if pd.isna(s) else f"{unit} {s:g}" for s in part["strength"]]
        lines.append(SteeredRow(str(prompt), _shown(result.folder, part), () if lines else heads))
    first = rows.iloc[0]
    top = SteeredRow("most active", _shown(result.folder, most.head(len(lines[0].images))))
    return SteeringCard(
        str(first["feature_set"]), int(first["feature"]), str(first["class"]), float(first["mds"]), "", [top, *lines]
    )


def _shown(folder: Path, rows: pd.DataFrame) -> Sequence[tuple[Image.Image, float]]:
    return [(read_image(folder / file), value) for file, value in zip(rows["image"], rows["activation"], strict=True)]
