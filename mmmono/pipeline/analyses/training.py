"""`experiments/train.py`: the dictionaries of the chosen feature sets, with their curves."""

from __future__ import annotations

import pandas as pd

from mmmono.core.errors import ConfigError
from mmmono.pipeline.feature_sets import Trained
from mmmono.pipeline.training import HISTORY_FILE
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console, show_table
from mmmono.reporting.training_figures import training_curves


def train_dictionaries(workspace: Workspace) -> None:
    """Train the dictionary of each chosen feature set, with its curves (Figures 11, 12)."""
    names = [name for name, recipe in workspace.recipes.items() if isinstance(recipe, Trained)]
    if not names:
        raise ConfigError(
            f"features={','.join(workspace.recipes)} has nothing to train: choose features=sae, features=ncl or "
            "features=[sae,ncl]"
        )
    rows = []
    for name in names:
        artifact = workspace.dictionary(name)
        history = pd.read_parquet(artifact.path / HISTORY_FILE)
        curves = artifact.path / "training_curves.png"
        if not curves.exists():
            save_figure(training_curves(history, name), artifact.path / "training_curves")
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
