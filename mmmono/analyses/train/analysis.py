"""Training of the dictionaries of the selected feature sets; the results are the dictionaries themselves."""

from __future__ import annotations

from mmmono.analyses.train import TRAIN
from mmmono.core.errors import ConfigError
from mmmono.core.saved import read_frame
from mmmono.pipeline.analysis import shown_tables
from mmmono.pipeline.tracking import HISTORY_FILE
from mmmono.pipeline.training import final_metric
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.result import Result
from mmmono.reporting.tables import console, show_table


def train_dictionaries(workspace: Workspace) -> float | tuple[float, ...] | None:
    """Train the dictionary of each selected feature set, with training curves (Figures 11, 12).

    Returns:
        The value of `objective`, for a sweeper; a tuple of values for a list of objectives; None without an objective.

    Raises:
        ConfigError: there is nothing to train, or the objective does not exist.
    """
    names = [name for name, spec in workspace.specs.items() if spec.trained]
    if not names:
        raise ConfigError(
            f"features={','.join(workspace.specs)} has nothing to train: choose features=sae, features=ncl or "
            "features=[sae,ncl]"
        )
    objective = workspace.cfg.get("objective")
    if objective is not None and len(names) > 1:
        raise ConfigError(
            f"objective={objective} is that of one dictionary, not of {len(names)}: choose one feature set"
        )
    results = [_trained(workspace, name) for name in names]
    for result in results:
        for _, title, rows in shown_tables(TRAIN, result):
            show_table(rows, f"{title}: {workspace.title_of(workspace.validation_split)}")
    pairs, most = len(workspace.features(workspace.validation_split).view), workspace.settings.training.validation_pairs
    if most is not None and pairs > most:
        console.print(f"validated on about {most:,} of {pairs:,} pairs (training.validation_pairs)")
    if objective is None:
        return None
    history = read_frame(results[0].folder / HISTORY_FILE)
    if isinstance(objective, str):
        return final_metric(history, objective)
    return tuple(final_metric(history, name) for name in objective)


def _trained(workspace: Workspace, name: str) -> Result:
    """Train a dictionary unless it exists, and say which."""
    artifact = workspace.dictionary(name)
    console.print(f"{name}: {'trained' if artifact.built else 'reused'} {artifact.path}")
    return TRAIN.result(artifact, workspace.model.name, workspace.dataset_name, workspace.modalities)
