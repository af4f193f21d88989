"""Steerability of answers against strength."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from mmmono.reporting.result import Result
from mmmono.reporting.steering_curves import Panel, steering_curves

PANELS = (
    Panel("move", "control", "name gets likelier (nats)"),
    Panel("stay", "", "other names stay", top=1.02),
)


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw the curves."""
    yield "steered_answers", steering_curves(result.table("features"), PANELS, result.modalities)
