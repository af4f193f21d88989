"""`experiments/sweep.py`: compare all dictionaries on disk that were trained on the same features."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmono.core.artifacts import PARTIAL, Artifact, FinishedArtifacts
from mmmono.core.errors import ConfigError, MissingArtifactError
from mmmono.dictionaries.pareto import pareto_front
from mmmono.pipeline.analyses.training import final_metric
from mmmono.pipeline.tracking import HISTORY_FILE
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.headings import headed
from mmmono.reporting.style import save_figure
from mmmono.reporting.sweep_figures import sweep_figure
from mmmono.reporting.tables import console, save_table, show_table

METRICS = {"fvu": "fvu", "l0": "l0", "active": "active", "dead_share": "dead_fraction", "loss": "loss"}
ALWAYS = ("k", "expansion")  # settings that are shown even if all dictionaries share them
COMMAND = "python experiments/train.py -m features.k=8,16,32"


def summarize_sweep(workspace: Workspace) -> None:
    """Compare every dictionary's FVU, L0, Mono (if measured) and the settings that differ; find the Pareto front.

    Raises:
        ConfigError: the features do not exist, or no matching dictionary has been trained.
    """
    cfg = workspace.cfg
    there = Workspace(cfg, makes="none", artifacts=FinishedArtifacts(cfg.artifacts))
    try:
        train, val = there.features(cfg.training.split), there.features(there.dataset.split)
    except MissingArtifactError as error:
        raise ConfigError(
            f"nothing to compare, the features of {workspace.title} are not there: run {COMMAND}"
        ) from error
    runs = [
        artifact
        for artifact in workspace.artifacts.find("dictionaries")
        if artifact.recipe["features"] == train.recipe
        and artifact.recipe.get("validation") == val.recipe
        and artifact.recipe["kind"] in workspace.recipes
    ]
    if not runs:
        raise ConfigError(
            f"no dictionary of features={','.join(workspace.recipes)} has been trained on {workspace.title}: run {COMMAND}"
        )
    measured = _measured(workspace, val.recipe, {run.digest for run in runs}, cfg.sweep.embedder)
    embedder = measured[0].recipe["embedder"].rpartition("-")[0] or "clip" if measured else None
    recipe = {
        "dictionaries": [run.digest for run in runs],
        "interpretability": [artifact.digest for artifact in measured],
    }

    def make(directory: Path) -> None:
        mono = {digest: value for artifact in measured for digest, value in _mono(artifact)}
        settings = [_settings(run.recipe) for run in runs]
        shown = _differing(settings)
        rows: list[dict[str, object]] = [
            {
                "dictionary": run.recipe["kind"],
                **{key: own.get(key) for key in shown},
                **_metrics(run.path),
                "mono": mono.get(run.digest, np.nan),
                "artifact": run.path.name,
            }
            for run, own in zip(runs, settings, strict=True)
        ]
        table = pd.DataFrame(rows)
        table["front"] = pareto_front(table[["fvu", "l0"]].to_numpy(float))
        table = table.sort_values(["dictionary", "l0", "fvu"], ignore_index=True)
        save_table(_rows(table), directory / "runs")
        if table["fvu"].notna().any():
            save_figure(sweep_figure(table, embedder), directory / "sweep")

    artifact = workspace.results("sweep", recipe, make)
    _show(workspace, artifact, embedder)
    unfinished = [
        folder
        for name in workspace.recipes
        for folder in (workspace.artifacts.root / "dictionaries").glob(f"{name}-{train.store.path.name}-*{PARTIAL}")
    ]
    if unfinished:
        console.print(f"{len(unfinished)} trainings are unfinished: the command that began them continues them")


def _measured(
    workspace: Workspace, features: Mapping[str, Any], digests: set[str], embedder: str | None
) -> list[Artifact]:
    """Find the monosemanticity results with equal embedder and settings that cover the most of these dictionaries."""
    comparable: dict[str, list[Artifact]] = {}
    covered: dict[str, set[str]] = {}
    for artifact in workspace.artifacts.find("results", "interpretability-*"):
        sets = {entry.get("dictionary") for entry in artifact.recipe["sets"]}
        name = artifact.recipe["embedder"]
        if (
            artifact.recipe["features"] != features
            or (embedder and not name.startswith(embedder))
            or not sets & digests
        ):
            continue
        key = json.dumps([artifact.recipe[part] for part in ("embedder", "monosemanticity")], sort_keys=True)
        comparable.setdefault(key, []).append(artifact)
        covered.setdefault(key, set()).update(sets & digests)
    return comparable[max(covered, key=lambda key: len(covered[key]))] if covered else []


def _mono(artifact: Artifact) -> Iterator[tuple[str, float]]:
    """Yield the digest and the Mono of each dictionary, averaged over all its features and both modalities."""
    averages = pd.DataFrame(json.loads((artifact.path / "table4.json").read_text()))
    everything = averages[averages["class"] == "all"].groupby("feature_set")["mono"].mean()
    for entry in artifact.recipe["sets"]:
        if "dictionary" in entry:
            yield entry["dictionary"], float(everything[entry["name"]])


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """All settings that a dictionary was made with, named as on the command line."""
    parts = {part: recipe[part] for part in ("training", "trainer")}
    flat = {f"{part}.{key}": value for part, settings in parts.items() for key, value in settings.items()}
    return {**recipe["settings"], "normalize": recipe["normalize"], "seed": recipe["seed"], **flat}


def _differing(settings: list[dict[str, Any]]) -> list[str]:
    keys = list(dict.fromkeys(key for own in settings for key in own))
    values = {key: {json.dumps(own[key]) for own in settings if key in own} for key in keys}
    return [key for key in keys if key in ALWAYS or len(values[key]) > 1]


def _metrics(folder: Path) -> dict[str, float]:
    """Metrics at the last validation, averaged over both modalities; NaN for metrics that this kind lacks."""
    history = pd.read_parquet(folder / HISTORY_FILE)
    found: dict[str, float] = {"steps": int(history["step"].iloc[-1])}
    for column, name in METRICS.items():
        try:
            found[column] = final_metric(history, name)
        except ConfigError:
            found[column] = np.nan
    return found


def _show(workspace: Workspace, artifact: Artifact, embedder: str | None) -> None:
    table = pd.read_parquet(artifact.path / "runs.parquet").drop(columns=["artifact"])
    # Drop the settings `training.*` and `trainer.*`; the training's length is in `steps`.
    table = table.drop(columns=[column for column in map(str, table) if "." in column]).dropna(axis=1, how="all")
    rows = []
    for row in _rows(table):
        shown = {key: "" if pd.isna(value) else value for key, value in row.items() if key != "front"}  # type: ignore[call-overload]
        rows.append({**shown, "Pareto": "×" if row["front"] else ""})
    show_table(headed(rows), f"{len(rows)} dictionaries: {workspace.title}, means over images and texts")
    if embedder is None:
        console.print("no Mono: run experiments/interpretability.py -m with the same settings, and this again")
    console.print(f"Figure and table: {artifact.path}/sweep.png, runs.parquet")


def _rows(table: pd.DataFrame) -> list[dict[str, object]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
