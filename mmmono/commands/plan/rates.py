"""Estimates of run times for a plan, from earlier extractions, trainings and analyses on this machine."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.saved import read_frame
from mmmono.core.timing import machine, read_timing
from mmmono.features.store import MANIFEST_FILE
from mmmono.pipeline.tracking import HISTORY_FILE


class Rates:
    """Estimate run times in seconds from the recorded times of artifacts that this machine made.

    Args:
        artifacts: the artifacts root.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    @cached_property
    def _made_here(self) -> list[tuple[Artifact, float]]:
        """Artifacts with their run times in seconds, newest first; of features, without the fit of their model."""
        here = machine()
        timed = [(artifact, read_timing(artifact.path)) for artifact in self._artifacts.find("*")]
        found = [
            (artifact, timing.own if artifact.kind == "features" else timing.seconds)
            for artifact, timing in timed
            if timing is not None and timing.machine == here
        ]
        return sorted(found, key=lambda entry: -entry[0].made_at)

    def extraction(self, model: str, pairs: int | None) -> float | None:
        """Estimate an extraction from the model's largest one so far, in proportion to the pairs; None if unknown."""
        stores = [
            (count, seconds)
            for artifact, seconds in self._made_here
            if artifact.kind == "features" and artifact.path.name.startswith(f"{model}-")
            if (count := _pairs(artifact.path))
        ]
        if pairs is None or not stores:
            return None
        count, seconds = max(stores)
        return seconds * pairs / count

    def training(self, name: str, steps: int, size: int) -> float | None:
        """Estimate a training from the newest one of its kind, in proportion to steps and weights; None if unknown."""
        for artifact, seconds in self._made_here:
            history = artifact.path / HISTORY_FILE
            if artifact.kind == "dictionaries" and artifact.recipe.get("kind") == name and history.exists():
                made = int(read_frame(history, columns=["step"])["step"].iloc[-1])
                weights = _weights(artifact.path)
                if made > 0 and weights > 0:
                    return seconds / made * max(0, steps) * size / weights
        return None

    def analysis(self, entrypoint: str, pairs: int | None) -> float | None:
        """Estimate an analysis from its newest run, in proportion to the pairs; None if unknown."""
        for artifact, seconds in self._made_here:
            if artifact.kind == "results" and artifact.path.name.startswith(f"{entrypoint}-"):
                sources = [s for s in self._artifacts.made_from(artifact.recipe) if s.kind == "features"]
                count = _pairs(sources[0].path) if sources else None
                return seconds * pairs / count if pairs and count else seconds
        return None


def _pairs(store: Path) -> int | None:
    try:
        return int(json.loads((store / MANIFEST_FILE).read_text(encoding="utf-8"))["count"])
    except (OSError, ValueError, KeyError):
        return None


def _weights(dictionary: Path) -> int:
    """Number of float32 weights of a dictionary."""
    return sum(file.stat().st_size for file in dictionary.glob("*.safetensors")) // 4


def hours(seconds: float | None) -> str:
    """Format a duration in seconds, minutes or hours; `unknown` for None."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def readable(size: int | None) -> str:
    """Format a number of bytes with a unit; empty for None."""
    if size is None:
        return ""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
