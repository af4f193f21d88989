"""Reads a store's metadata as text, from any program: clip-retrieval, img2dataset, a notebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mmmono.core.errors import StoreError
from mmmono.core.saved import made_anew
from mmmono.core.text import message_of
from mmmono.data.listings import IMAGES

# Part of every recipe that depends on keys or groups read from others' metadata; raise it whenever these change.
METADATA_VERSION = 3
# Other tools' names of columns, used if the name on the left is missing.
ALIASES = {
    "caption": ("text", "TEXT", "captions", "title", "sentence"),
    "image_path": ("path", "file_path", "filepath", "filename", "file_name", "image"),
    "key": ("id", "uid", "image_id", "sample_id"),
}


class RemoteTable(Protocol):
    """A metadata file on another machine; its text is its address, for messages."""

    def open(self) -> IO[bytes]:
        """Open it for reading at any position."""


MetadataFile = Path | RemoteTable


def row_count(file: MetadataFile) -> int:
    """Return the number of rows in a metadata file's footer. Raises StoreError if it is not a Parquet file."""
    return int(_open(file).metadata.num_rows)


def read_metadata(files: Sequence[MetadataFile]) -> pd.DataFrame:
    """Read the rows of all files in order; all values are text, and missing ones are "".

    `key` is made unique: pairs that share a key get the suffixes `#1`, `#2`, ... Those that share a key or an image file get
    the same `group`, unless there is such a column.

    Raises:
        StoreError: a file is not a Parquet file, or its columns cannot be read.
    """
    frames = [_with_known_names(_read(file)) for file in files]
    return with_keys(pd.concat(frames, ignore_index=True).fillna(""))


def read_stored_column(files: Sequence[MetadataFile], name: str) -> np.ndarray[Any, Any] | None:
    """Read one column, as text, without the others; None unless every file has it.

    Unlike in `read_metadata`, the column is what it is in the files: `key` is not made unique, and nothing stands in for it.

    Raises:
        StoreError: like `read_metadata`.
    """
    columns = []
    for file in files:
        frame = _read(file, name)
        if name not in frame:  # the first file tells it of most stores: no other is opened
            return None
        columns.append(frame[name].to_numpy())
    return np.concatenate(columns)


def with_keys(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that other tools call otherwise, and a unique `key`; see `read_metadata`."""
    frame = _with_known_names(frame)
    if "key" not in frame and "image_path" not in frame:
        return frame
    path = frame["image_path"] if "image_path" in frame else pd.Series("", index=frame.index)
    key = frame.get("key", path)  # clip-retrieval identifies pairs by path
    key = key.where(key != "", path)
    if (key == "").any():
        key = key.where(key != "", pd.Series([f"row-{i}" for i in range(len(frame))], index=frame.index, dtype=object))
    repeated = bool(key.duplicated().any())
    if "group" not in frame and (groups := _groups(key, path, repeated)) is not None:
        frame["group"] = groups
    if repeated:
        count = key.groupby(key).cumcount()
        key = key.where(count == 0, key + "#" + count.astype(str))
        if key.duplicated().any():  # a suffixed key equals another pair's original key
            key = key + "#row-" + pd.Series(range(len(frame)), index=frame.index).astype(str)
    frame["key"] = key
    return frame


def _with_known_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that other tools call otherwise. Files of one store may differ in their names."""
    for name, others in ALIASES.items():
        if name not in frame and (other := next((o for o in others if o in frame), None)) is not None:
            frame[name] = frame[other]
    return frame


def _groups(key: pd.Series[str], path: pd.Series[str], repeated: bool) -> pd.Series[str] | None:
    """First key of the pairs that share a key or an image file, for each pair; None if no pairs do.

    Args:
        key: of each pair.
        path: of each pair's image, or of the archive that it lies in; "" if it is not known.
        repeated: whether pairs share a key.
    """
    image = path.where(path.str.lower().str.endswith(IMAGES), key)  # other paths may be those of archives
    if not repeated and (image.equals(key) or not image.duplicated().any()):
        return None
    keys, images = (pd.factorize(column)[0].astype(np.int64) for column in (key, image))
    nodes = len(key)
    edges = coo_array((np.ones(nodes, bool), (keys, nodes + images)), shape=(2 * nodes, 2 * nodes))
    joined = connected_components(edges, directed=False)[1][keys]
    _, first, group = np.unique(joined, return_index=True, return_inverse=True)
    return pd.Series(key.to_numpy()[first][group], index=key.index)


def as_text(value: Any) -> str:
    """Return a metadata value as text: "" if missing or a dict, decoded bytes, a list's first text."""
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, list | tuple | np.ndarray):
        return next((text for item in value if isinstance(item, str | bytes) and (text := as_text(item))), "")
    if isinstance(value, dict):
        return ""
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return ""
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else str(value)
    return str(value)


def _open(file: MetadataFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file if isinstance(file, Path) else file.open())
    except (pa.ArrowException, OSError, ValueError) as error:
        again = made_anew(file, "extract again", error)
        raise StoreError(f"{file} is no whole Parquet file ({message_of(error)}): {again}") from error


def _read(file: MetadataFile, only: str | None = None) -> pd.DataFrame:
    """Read all columns as text, or one of them if there is such a column."""
    try:
        with _open(file) as opened:
            table = opened.read(None if only is None else [only])
        columns = {name: _column(table.column(place)) for place, name in enumerate(table.column_names)}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(
            f"{file} cannot be read ({message_of(error)}): {made_anew(file, 'extract again', error)}"
        ) from error
    return pd.DataFrame(columns, dtype=object, index=range(len(table)))


def _column(column: pa.ChunkedArray) -> list[str]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return list(pc.fill_null(column.cast(pa.large_string()), "").to_pylist())
    return [as_text(value) for value in column.to_pylist()]
