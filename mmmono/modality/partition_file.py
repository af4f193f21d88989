"""Scores, partition and sharedness of one feature set on disk: Parquet tables with one row per feature."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mmmono.core.saved import broken
from mmmono.modality.dominance import DominanceScores
from mmmono.modality.partition import CLASSES, Partition
from mmmono.modality.report import FeatureSetDominance
from mmmono.modality.sharedness import Sharedness

TABLE = "partition.parquet"
COUNTS = ("num_pairs", "num_groups")  # fields of DominanceScores in the table's metadata
BORDERS = ("low", "high")  # fields of Partition, there as well
NUMBERS = tuple(field.name for field in fields(DominanceScores) if field.name not in COUNTS)  # a column each
SHAREDNESS_TABLE = "sharedness.parquet"
SHAREDNESS_NUMBERS = tuple(field.name for field in fields(Sharedness) if field.name not in COUNTS)


def save_partition(scored: FeatureSetDominance, folder: str | Path) -> Path:
    """Write scores and classes to `partition.parquet`; return its path.

    Columns: `feature`, `class` (ImgD, TextD, CrossD or dead), and the fields of `DominanceScores` with one value per
    feature. The file's metadata has `num_pairs`, `num_groups` and the borders of the partition, `low` and `high`.
    """
    scores = scored.scores
    table = pa.table(
        {
            "feature": pa.array(np.arange(len(scored.partition))),
            "class": pa.array(scored.partition.class_of(), pa.string()),
            **{name: pa.array(getattr(scores, name).cpu().numpy()) for name in NUMBERS},
        }
    ).replace_schema_metadata(
        {
            **{name: str(getattr(scores, name)) for name in COUNTS},
            **{name: repr(float(getattr(scored.partition, name))) for name in BORDERS},
        }
    )
    file = Path(folder) / TABLE
    pq.write_table(table, file)
    return file


def load_partition(folder: str | Path, name: str) -> FeatureSetDominance:
    """Read what `save_partition` wrote, bit for bit; `name` is the feature set's.

    Raises:
        StoreError: the file is missing or was not written by `save_partition`.
    """
    file = Path(folder) / TABLE
    try:
        table = pq.read_table(file)
        columns = {key: torch.from_numpy(table.column(key).to_numpy().copy()) for key in NUMBERS}
        metadata = table.schema.metadata
        pairs, groups = (int(metadata[key.encode()]) for key in COUNTS)
        scores = DominanceScores(**columns, num_pairs=pairs, num_groups=groups)
        low, high = (float(metadata[key.encode()]) for key in BORDERS)
        classes = np.array(table.column("class").to_pylist())
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise broken(file, "partition", error) from error
    members = (torch.from_numpy(np.flatnonzero(classes == name)) for name in CLASSES)
    return FeatureSetDominance(name, scores, Partition(*members, low=low, high=high))


def save_sharedness(found: Sharedness, folder: str | Path) -> Path:
    """Write sharedness to `sharedness.parquet`; return its path.

    Columns: `feature`, and the fields of `Sharedness` with one value per feature. The file's metadata has `num_pairs` and
    `num_groups`.
    """
    columns = {name: pa.array(getattr(found, name).cpu().numpy()) for name in SHAREDNESS_NUMBERS}
    table = pa.table({"feature": pa.array(np.arange(len(found.score))), **columns})
    file = Path(folder) / SHAREDNESS_TABLE
    pq.write_table(table.replace_schema_metadata({name: str(getattr(found, name)) for name in COUNTS}), file)
    return file


def load_sharedness(folder: str | Path) -> Sharedness:
    """Read what `save_sharedness` wrote, bit for bit.

    Raises:
        StoreError: the file is missing or was not written by `save_sharedness`.
    """
    file = Path(folder) / SHAREDNESS_TABLE
    try:
        table = pq.read_table(file)
        columns = {
            name: torch.from_numpy(table.column(name).to_numpy(zero_copy_only=False).copy())
            for name in SHAREDNESS_NUMBERS
        }
        pairs, groups = (int(table.schema.metadata[name.encode()]) for name in COUNTS)
        return Sharedness(**columns, num_pairs=pairs, num_groups=groups)
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise broken(file, "sharedness", error) from error
