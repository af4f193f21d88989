"""Read the figures, tables and numbers in an artifact's folder.

Analyses only write files. W&B and TensorBoard logging reads those files, so no analysis has logging code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_numeric_dtype

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.core.saved import read_frame, read_json
from mmmono.reporting.headings import called

NO_RESULTS = {
    "recipe.json",
    "versions.json",
    "timing.json",
    "config.json",
    "manifest.json",
    "figures.json",
}  # files that describe how an artifact was made, not its results
SUMMARY_ROWS = 64  # every number of a table with at most this many rows is logged as a scalar
FEW_VALUES = 10  # minimum number of values in a histogram
SETS = ("feature_set", "samples")  # columns by which tables of features are grouped
NO_SCORES = {"feature", "rank", "row"}


@dataclass
class Contents:
    """Contents of a folder: figures and tables by name, and numbers of JSON objects, e.g. `modality_gap/image_norm`.

    Tables are as they are saved; `shown` calls modalities and classes by their names.
    """

    figures: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    objects: dict[str, float] = field(default_factory=dict)
    modalities: ModalityNames = IMAGE_AND_TEXT

    def shown(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return one of the tables for readers."""
        return frame if self.modalities == IMAGE_AND_TEXT else called(frame, self.modalities)


def contents(folder: Path, modalities: ModalityNames = IMAGE_AND_TEXT) -> Contents:
    """Read a folder's PNG, Parquet and JSON files, not those in subfolders; Parquet takes precedence over JSON.

    Args:
        folder: the folder.
        modalities: what the two sides of a pair are called.
    """
    found = Contents(modalities=modalities)
    for path in sorted(folder.iterdir()):
        if path.suffix == ".png":
            found.figures[path.stem] = path
        elif path.suffix == ".parquet":
            found.tables[path.stem] = read_frame(path)
        elif path.suffix == ".json" and path.name not in NO_RESULTS and not path.with_suffix(".parquet").exists():
            content = read_json(path)
            if isinstance(content, list) and content:
                found.tables[path.stem] = pd.DataFrame(content)
            elif isinstance(content, dict):
                numbers = {key: value for key, value in content.items() if isinstance(value, int | float)}
                found.objects |= {f"{path.stem}/{key}": float(value) for key, value in numbers.items()}
    return found


def scalars(found: Contents) -> dict[str, float]:
    """Scalars of summary tables, named table/row/column (e.g. `summary/sae/std`), and of JSON objects.

    A row's name joins its non-numeric cells. Tables in which these names are not unique, such as curves, are skipped.
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
    """Finite scores of features, named table/column/feature set (e.g. `scores/mds/sae`)."""
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
