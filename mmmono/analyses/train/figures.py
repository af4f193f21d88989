"""Figures 11 and 12 from the history of a training."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from mmmono.reporting.result import Result
from mmmono.reporting.training_figures import training_curves


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw active dimensions, fidelity and L0 over the pairs seen."""
    yield "training_curves", training_curves(result.table("history"), result.recipe["kind"], result.modalities)
