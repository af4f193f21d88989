"""What an artifact's folder holds for people to look at: figures, tables, and the numbers in them.

Analyses leave files; whatever shows them elsewhere, such as W&B or TensorBoard, reads the files and needs no word from
the analysis.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_numeric_dtype

NO_RESULTS = {
    "recipe.json",
    "versions.json",
    "timing.json",
    "config.json",
    "manifest.json",
}  # how something was made, not what came out
SUMMARY_ROWS = 64  # a table of so many rows is a summary: each of its numbers has a name of its own
FEW_VALUES = 10  # fewer make no histogram
SETS = ("feature_set", "feature set", "samples")  # columns that divide a table of features
NO_SCORES = {"feature", "rank", "row"}


@dataclass
class Contents:
    """Figures and tables by name; scalars of JSON objects, such as `modality_gap/image_norm`."""

    figures: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    objects: dict[str, float] = field(default_factory=dict)


def contents(folder: Path) -> Contents:
    """Read the PNG, Parquet and JSON files that lie in a folder itself; of a table kept as both, the Parquet."""
    found = Contents()
    for path in sorted(folder.iterdir()):
        if path.suffix == ".png":
            found.figures[path.stem] = path
        elif path.suffix == ".parquet":
            found.tables[path.stem] = pd.read_parquet(path)
        elif path.suffix == ".json" and path.name not in NO_RESULTS and not path.with_suffix(".parquet").exists():
            content = json.loads(path.read_text())
            if isinstance(content, list) and content:
                found.tables[path.stem] = pd.DataFrame(content)
            elif isinstance(content, dict):
                numbers = {key: value for key, value in content.items() if isinstance(value, int | float)}
                found.objects |= {f"{path.stem}/{key}": float(value) for key, value in numbers.items()}
    return found


def scalars(found: Contents) -> dict[str, float]:
    """The numbers of summary tables, named by table, row and column, such as `summary/sae/std`, and of JSON objects.

    A row is named by its words. Tables whose rows these do not tell apart, such as curves, are left to figures.
    """
    named = dict(found.objects)
    for table, frame in found.tables.items():
        if len(frame) > SUMMARY_ROWS or "feature" in frame:
            continue
        numeric = [c for c in frame if is_numeric_dtype(frame[c]) and not is_bool_dtype(frame[c])]
        labels = frame.drop(columns=numeric)
        rows = ["-".join(str(v) for v in row if pd.notna(v) and v != "") for row in labels.itertuples(index=False)]
        if len(set(rows)) < len(rows):
            continue
        for row, values in zip(rows, frame[numeric].to_dict("records"), strict=True):
            for column, value in values.items():
                if pd.notna(value):
                    named["/".join(part for part in (table, row, str(column)) if part)] = float(value)
    return named


def histograms(found: Contents) -> dict[str, np.ndarray]:
    """Scores of features by table, column and feature set, such as `scores/mds/sae`."""
    drawn: dict[str, np.ndarray] = {}
    for table, frame in found.tables.items():
        if "feature" not in frame:
            continue
        scores = [c for c in frame if is_float_dtype(frame[c]) and c not in NO_SCORES]
        for name, part in _by_set(frame):
            for column in scores:
                values = part[column].to_numpy(dtype=float)
                if len(values := values[np.isfinite(values)]) >= FEW_VALUES:
                    drawn["/".join([table, str(column), *name])] = values
    return drawn


def _by_set(frame: pd.DataFrame) -> Iterator[tuple[list[str], pd.DataFrame]]:
    columns = [column for column in SETS if column in frame]
    if not columns:
        yield [], frame
        return
    for name, part in frame.groupby(columns, sort=False):
        yield [str(value) for value in name], part
