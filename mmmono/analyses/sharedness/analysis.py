"""Sharedness of all features in one pass over the pairs, and how many of each class are shared."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from mmmono.analyses.sharedness import Settings
from mmmono.modality import LIVE_CLASSES
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.sharedness import feature_sharedness
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace

SAVED = (
    "low",
    "high",
    "p_value",
    "sparse",
    "co_firing",
    "expected",
    "image_firing",
    "text_firing",
    "correlation",
    "phi",
)

Row = dict[str, object]


def prepare(workspace: Workspace) -> Study:
    """Test the selected feature sets on the dataset's split; groups of pairs are the units."""
    settings = read_settings(workspace.cfg, "sharedness", Settings)
    recipe = {
        "features": workspace.features(workspace.dataset.split).recipe,
        **workspace.partitions_recipe(),
        "sharedness": asdict(settings),
    }

    def compute(folder: Path) -> Tables:
        scores, summary = [], []
        for name in workspace.specs:
            features, counts = _tested(workspace, name)
            scores += features
            summary += _summary(pd.DataFrame(features), settings.fdr, {"feature_set": name, **counts})
        return {"scores": scores, "summary": summary}

    return Study(recipe, compute)


def _tested(workspace: Workspace, name: str) -> tuple[list[Row], dict[str, int]]:
    """One row for each feature, and the numbers of pairs and groups."""
    scored = workspace.dominance(name)
    found = feature_sharedness(workspace, name)
    live = workspace.live(scored.scores)
    columns = {
        "sharedness": found.score.tolist(),
        "q_value": found.q_value(live).tolist(),
        **{column: getattr(found, column).tolist() for column in SAVED},
    }
    rows = [
        {
            **{column: row[column] for column in ("feature_set", "feature", "class", "mds")},
            **{column: values[feature] for column, values in columns.items()},
        }
        for feature, row in enumerate(scored.to_rows())
    ]
    return rows, {"pairs": found.num_pairs, "groups": found.num_groups}


def _summary(features: pd.DataFrame, fdr: float, place: Row) -> list[Row]:
    """One row for each class, and one for all live features."""
    live = features[features["class"] != "dead"]
    classes: dict[str, pd.DataFrame] = {of: live[live["class"] == of] for of in LIVE_CLASSES}
    classes["live"] = live
    return [
        {
            "feature_set": place["feature_set"], "class": of, "pairs": place["pairs"], "groups": place["groups"],
            "features": len(members),
            "shared": int((members["q_value"] <= fdr).sum()),
            "median_sharedness": float(members["sharedness"].median()),
            "sparse": int(members["sparse"].sum()),
            "co_firing_ratio": float((members["co_firing"] / members["expected"])[members["sparse"].astype(bool)].median()),
        }
        for of, members in classes.items()
    ]  # fmt: skip
