"""`experiments/train.py`: train the dictionaries of the selected feature sets (Appendix A.1)."""

from __future__ import annotations

import pandas as pd

from mmmono.core.errors import ConfigError
from mmmono.pipeline.feature_sets import Trained
from mmmono.pipeline.tracking import HISTORY_FILE
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.tables import console, show_table


def train_dictionaries(workspace: Workspace) -> float | tuple[float, ...] | None:
    """Train the dictionary of each selected feature set, with training curves (Figures 11, 12).

    Returns:
        The value of `objective`, for a sweeper; a tuple of values for a list of objectives; None without an objective.

    Raises:
        ConfigError: there is nothing to train, or the objective does not exist.
    """
    names = [name for name, recipe in workspace.recipes.items() if isinstance(recipe, Trained)]
    if not names:
        raise ConfigError(
            f"features={','.join(workspace.recipes)} has nothing to train: choose features=sae, features=ncl or "
            "features=[sae,ncl]"
        )
    objective = workspace.cfg.get("objective")
    if objective is not None and len(names) > 1:
        raise ConfigError(
            f"objective={objective} is that of one dictionary, not of {len(names)}: choose one feature set"
        )
    rows = []
    for name in names:
        artifact = workspace.dictionary(name)
        history = pd.read_parquet(artifact.path / HISTORY_FILE)
        last = history.iloc[-1]
        metrics = {
            str(name).removeprefix("val/"): float(value) for name, value in last.items() if str(name)[:4] == "val/"
        }
        rows.append({"dictionary": name, "steps": int(last["step"]), **metrics})
        console.print(f"{name}: {'trained' if artifact.built else 'reused'} {artifact.path}")
    for row in rows:
        show_table(
            [{"metric": key, "value": value} for key, value in row.items()],
            f"{row['dictionary']} on the {workspace.dataset.split} split",
        )
    if objective is None:
        return None
    if isinstance(objective, str):
        return final_metric(history, objective)
    return tuple(final_metric(history, name) for name in objective)


def final_metric(history: pd.DataFrame, name: str) -> float:
    """Return a metric at the last validation.

    Args:
        history: one row per validation.
        name: a validation metric such as `image/fvu` or `loss`; `fvu` is the mean over both modalities.

    Raises:
        ConfigError: there is no such metric.
    """
    columns = {column.removeprefix("val/"): column for column in map(str, history) if column.startswith("val/")}
    chosen = [columns[key] for key in (name, f"image/{name}", f"text/{name}") if key in columns]
    if not chosen:
        known = sorted({key.removeprefix("image/").removeprefix("text/") for key in columns})
        raise ConfigError(f"objective={name} is no metric of this dictionary: choose of {', '.join(known)}")
    return float(history[chosen].iloc[-1].mean())
