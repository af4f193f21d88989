"""Metrics and settings of all dictionaries on disk that were trained on the same features, and their Pareto front."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmono.analyses.interpretability import INTERPRETABILITY
from mmmono.analyses.sweep import Settings
from mmmono.core.artifacts import Artifact, FinishedArtifacts
from mmmono.core.errors import ConfigError, MissingArtifactError
from mmmono.core.saved import read_frame
from mmmono.dictionaries.pareto import pareto_front
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.tracking import HISTORY_FILE
from mmmono.pipeline.training import final_metric
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

METRICS = {"fvu": "fvu", "l0": "l0", "active": "active", "dead_share": "dead_fraction", "loss": "loss"}
COMMAND = "python experiments/train.py -m features.k=8,16,32"
MONO_TABLE = "table4.parquet"  # of the results of interpretability


def prepare(workspace: Workspace) -> Study:
    """Find the dictionaries of the selected kinds, and the results that measured their monosemanticity.

    Raises:
        ConfigError: the features do not exist, or no matching dictionary has been trained.
    """
    settings = read_settings(workspace.cfg, "sweep", Settings)
    dictionaries, features = _dictionaries(workspace)
    measured = _measured(workspace, features, {found.digest for found in dictionaries}, settings.embedder)
    embedder = measured[0].recipe["embedder"].rpartition("-")[0] or "clip" if measured else None
    recipe = {
        "features": features,
        "dictionaries": [found.digest for found in dictionaries],
        "interpretability": [found.digest for found in measured],
        "embedder": embedder,
    }

    def compute(folder: Path) -> Tables:
        mono = {digest: value for artifact in measured for digest, value in _mono(artifact)}
        table = pd.DataFrame([_row(found, mono) for found in dictionaries])
        table["front"] = pareto_front(table[["fvu", "l0"]].to_numpy(float))
        table = table.sort_values(["dictionary", "l0", "fvu"], ignore_index=True)
        return {
            "runs": [{str(key): value for key, value in row.items()} for row in table.to_dict("records")],
            "settings": [
                {"artifact": found.path.name, "setting": name, "value": _text(value)}
                for found in dictionaries
                for name, value in _settings(found.recipe).items()
            ],
        }

    return Study(recipe, compute)


def _dictionaries(workspace: Workspace) -> tuple[list[Artifact], Mapping[str, Any]]:
    """Dictionaries that were trained on the workspace's features, and the recipe of the features that are evaluated.

    FVU and L0 are those at the end of training, on the split by which settings are compared; Mono is of the evaluated one.
    """
    finished = Workspace(workspace.cfg, makes="none", artifacts=FinishedArtifacts(workspace.artifacts.root))
    try:
        train = finished.features(finished.settings.training.split)
        validation = finished.features(finished.validation_split)
        evaluated = finished.features(finished.dataset.split)
    except MissingArtifactError as error:
        raise ConfigError(
            f"nothing to compare, the features of {workspace.title} are not there: run {COMMAND}"
        ) from error
    found = [
        artifact
        for artifact in workspace.artifacts.find("dictionaries")
        if artifact.recipe["features"] == train.recipe
        and artifact.recipe.get("validation") == validation.recipe
        and artifact.recipe["kind"] in workspace.specs
    ]
    if not found:
        raise ConfigError(
            f"no dictionary of features={','.join(workspace.specs)} has been trained on {workspace.title}: run {COMMAND}"
        )
    return found, evaluated.recipe


def _measured(
    workspace: Workspace, features: Mapping[str, Any], digests: set[str], embedder: str | None
) -> list[Artifact]:
    """Find the monosemanticity results with equal embedder and settings that cover the most of these dictionaries.

    The settings of the scores (`mds`) say which features are live, whose Mono is averaged. Of several kinds of results that
    cover equally many, the newest counts.
    """
    comparable: dict[str, list[Artifact]] = {}
    covered: dict[str, set[str]] = {}
    for artifact in workspace.artifacts.find("results", f"{INTERPRETABILITY.name}-*"):
        if artifact.recipe["version"] != INTERPRETABILITY.version:
            continue
        sets = {entry.get("dictionary") for entry in artifact.recipe["sets"]}
        name = artifact.recipe["embedder"]
        if (
            artifact.recipe["features"] != features
            or (embedder and not name.startswith(embedder))
            or not sets & digests
        ):
            continue
        key = json.dumps([artifact.recipe[part] for part in ("embedder", INTERPRETABILITY.name, "mds")], sort_keys=True)
        comparable.setdefault(key, []).append(artifact)
        covered.setdefault(key, set()).update(sets & digests)
    if not covered:
        return []
    ages = {key: max(artifact.made_at for artifact in several) for key, several in comparable.items()}
    chosen = max(covered, key=lambda key: (len(covered[key]), ages[key]))
    return sorted(
        comparable[chosen], key=lambda artifact: artifact.made_at
    )  # of two of a dictionary the newer one counts


def _mono(artifact: Artifact) -> Iterator[tuple[str, float]]:
    """Yield the digest of each dictionary and its Mono minus chance, averaged over all its features and both modalities."""
    averages = read_frame(artifact.path / MONO_TABLE)
    everything = averages[averages["class"] == "all"].groupby("feature_set")["mono_corrected"].mean()
    for entry in artifact.recipe["sets"]:
        if "dictionary" in entry:
            yield entry["dictionary"], float(everything[entry["name"]])


def _row(dictionary: Artifact, mono: Mapping[str, float]) -> dict[str, object]:
    """Row of a dictionary in the table of runs, without its place on the front."""
    settings = _settings(dictionary.recipe)
    return {
        "dictionary": dictionary.recipe["kind"],
        "k": settings.get("k"),
        "expansion": settings.get("expansion"),
        **_metrics(dictionary.path),
        "mono_corrected": mono.get(dictionary.digest, np.nan),
        "artifact": dictionary.path.name,
    }


def _metrics(folder: Path) -> dict[str, float]:
    """Metrics at the last validation, averaged over both modalities; NaN for metrics that this kind lacks."""
    history = read_frame(folder / HISTORY_FILE)
    found: dict[str, float] = {"steps": int(history["step"].iloc[-1])}
    for column, name in METRICS.items():
        try:
            found[column] = final_metric(history, name)
        except ConfigError:
            found[column] = np.nan
    return found


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """All settings that a dictionary was made with, named as on the command line."""
    parts = {part: recipe[part] for part in ("training", "trainer")}
    flat = {f"{part}.{key}": value for part, settings in parts.items() for key, value in settings.items()}
    return {**recipe["settings"], "normalize": recipe["normalize"], "seed": recipe["seed"], **flat}


def _text(value: object) -> str:
    """Write a value as on the command line, such as `true` or `null`."""
    return value if isinstance(value, str) else json.dumps(value)
