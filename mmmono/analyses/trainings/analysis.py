"""Make an analysis with several seeds, and say which of its differences stand over these trainings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, open_dict

from mmmono.analyses.trainings import Settings, about_analysis, analyzed
from mmmono.core.errors import MissingArtifactError
from mmmono.modality.trainings import holm_by_family, over_trainings
from mmmono.pipeline.analysis import Analysis, Study, Tables
from mmmono.pipeline.results import made_with
from mmmono.pipeline.seed_comparison import trained_sets
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.result import Result, Rows
from mmmono.reporting.tables import console

PLACE = ("feature_set", "contrast", "family", "row")  # what a number is and of what
Place = tuple[str, ...]


def prepare(workspace: Workspace) -> Study:
    """Train the selected feature sets that are trained with every seed, and look for the results of each.

    Raises:
        ConfigError: no selected feature set is trained, or what the analysis raises.
    """
    settings = read_settings(workspace.cfg, "trainings", Settings)
    analysis, names = analyzed(workspace.cfg), trained_sets(workspace)
    seeds = _seeds(workspace, settings)
    runs = {seed: _run(workspace, names, seed) for seed in seeds}
    studies = {seed: analysis.prepare(run) for seed, run in runs.items()}
    label = "-".join(filter(None, (analysis.name, studies[workspace.seed].label)))
    recipe = {
        **studies[workspace.seed].recipe,
        "of": label,
        "about": about_analysis(analysis),
        "seeds": seeds,
        "results": [analysis.place(runs[seed], studies[seed])[0].name.rpartition("-")[2] for seed in seeds],
    }

    def compute(folder: Path) -> Tables:
        values = []
        for seed in seeds:
            console.print(f"{label}, seed {seed}")
            # Made here, since it seeds the random generators, as the analysis' own entrypoint does.
            result = _result(_run(workspace, names, seed), analysis)
            values += [{**cell, "seed": seed} for cell in _values(analysis, result, names)]
        return {"contrasts": contrast_rows(analysis, values), "values": values}

    return Study(recipe, compute, label=label)


def lacking(workspace: Workspace) -> Iterator[tuple[str, Analysis, Workspace]]:
    """The analysis with each seed whose results do not exist: what to call them, and the settings."""
    analysis, names = analyzed(workspace.cfg), trained_sets(workspace)
    for seed in _seeds(workspace, read_settings(workspace.cfg, "trainings", Settings)):
        run = _run(workspace, names, seed)
        try:
            found = made_with(run.artifacts, *analysis.place(run))
        except MissingArtifactError:
            found = None
        if found is None:
            yield f"results of {analysis.name}, seed {seed}", analysis, run


def _seeds(workspace: Workspace, settings: Settings) -> list[int]:
    return [workspace.seed + i for i in range(1 + settings.n_seeds)]


def _run(workspace: Workspace, names: Sequence[str], seed: int) -> Workspace:
    """The same settings with another seed, and with these feature sets alone."""
    cfg: DictConfig = workspace.cfg.copy()
    with open_dict(cfg):
        cfg.seed = seed
        for name in set(workspace.specs) - set(names):
            del cfg.features.sets[name]
    return Workspace(cfg, makes="results", artifacts=workspace.artifacts)


def _result(run: Workspace, analysis: Analysis) -> Result:
    """Results of a training: those on disk, of more feature sets too, or made now."""
    found = None if run.artifacts.rebuild else made_with(run.artifacts, *analysis.place(run))
    return analysis.make(run) if found is None else Result(found.path, found.recipe)


def _values(analysis: Analysis, result: Result, names: Sequence[str]) -> Rows:
    """The numbers of a training."""
    return [
        cell
        for contrast in analysis.contrasts
        if result.has(contrast.table)
        for cell in contrast.cells(result.rows(contrast.table))
        if cell["feature_set"] in names
    ]


def contrast_rows(analysis: Analysis, values: Rows) -> Rows:
    """One row for each number that at least two trainings have.

    Args:
        analysis: declares the contrasts.
        values: rows of the table `values`.
    """
    declared = {contrast.title: contrast for contrast in analysis.contrasts}
    units: dict[Place, str] = {}
    families: dict[Place, dict[Place, list[float]]] = {}
    for cell in values:
        place = tuple(cell[part] for part in PLACE)
        units[place] = cell["unit"]
        families.setdefault(place[:-1], {}).setdefault(place, []).append(cell["value"])
    rows: Rows = []
    for place, found_in in ((place, own) for family in families.values() for place, own in family.items()):
        numbers = np.array(found_in, np.float64)
        if len(numbers) > 1:
            contrast = declared[place[1]]
            found = over_trainings(numbers, contrast.null, contrast.kind == "ratio")
            rows.append(
                {
                    **dict(zip(PLACE, place, strict=True)), "kind": contrast.kind, "unit": units[place],
                    "trainings": found.trainings,
                    **found.mean.columns("mean"), "lowest": numbers.min(), "highest": numbers.max(),
                    "same_side": found.same_side, "p": found.p,
                }
            )  # fmt: skip
    of = [tuple(row[part] for part in PLACE[:-1]) for row in rows]
    tested = Counter(family for family, row in zip(of, rows, strict=True) if not np.isnan(row["p"]))
    adjusted = holm_by_family([row["p"] for row in rows], of)
    return [{**row, "p_holm": p, "compared": tested[family]} for row, p, family in zip(rows, adjusted, of, strict=True)]
