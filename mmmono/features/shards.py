"""The shards of a store, wherever they lie: numbered files, of which those of one number hold the same pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from mmmono.core.errors import StoreError
from mmmono.features.array_files import StoredArray, numbered, read_header
from mmmono.features.metadata import MetadataFile, row_count

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, Modality] = ("image", "text")
FOLDERS: dict[Modality, str] = {"image": "img_emb", "text": "text_emb"}
METADATA = "metadata"
SUFFIXES = {**dict.fromkeys(FOLDERS.values(), "npy"), METADATA: "parquet"}  # of the files in each folder

File = TypeVar("File")


def number_of(modality: Modality) -> int:
    """Place of a modality in MODALITIES. Raises ValueError if it is none of them."""
    if modality not in MODALITIES:
        raise ValueError(f"modality={modality!r} is neither 'image' nor 'text'")
    return MODALITIES.index(modality)


@dataclass(frozen=True)
class Shards:
    """The files of a store.

    Attributes:
        arrays: embeddings of each modality, shard by shard.
        metadata: files with a row for each pair, shard by shard; empty if there are none.
    """

    arrays: Mapping[Modality, Sequence[StoredArray]]
    metadata: Sequence[MetadataFile]

    def check(self, store: object) -> None:
        """Raise StoreError, which names the store, unless all embeddings have one type and one width."""
        headers = [array.header for arrays in self.arrays.values() for array in arrays]
        dims = {header.dim for header in headers}
        if len(dims) != 1:
            raise StoreError(f"{store}: embeddings of several widths {sorted(dims)}: one store holds one joint space")
        types = sorted({header.dtype.name for header in headers})
        if len(types) != 1:
            raise StoreError(f"{store}: embeddings of several types {', '.join(types)}: save all as one of them")
        if not any(header.rows for header in headers):
            raise StoreError(f"{store} holds no pair: extract again")


def local_shards(store: Path) -> Shards:
    """Open the shards in a folder. Raises StoreError unless they match in number and rows."""
    files = {folder: numbered(store / folder, folder, suffix) for folder, suffix in SUFFIXES.items()}
    check_numbers(str(store), files, lambda file: file.name)
    arrays = {modality: [read_header(file) for file in files[folder].values()] for modality, folder in FOLDERS.items()}
    rows = {folder: [array.header.rows for array in arrays[modality]] for modality, folder in FOLDERS.items()}
    if files[METADATA]:
        rows[METADATA] = [row_count(file) for file in files[METADATA].values()]
    check_rows(str(store), rows, {folder: [file.name for file in found.values()] for folder, found in files.items()})
    return Shards(arrays, list(files[METADATA].values()))


def check_numbers(store: str, files: Mapping[str, Mapping[int, File]], name: Callable[[File], str]) -> None:
    """Raise StoreError unless there are embeddings, and each shard has a file in each folder.

    Args:
        store: the store, for messages.
        files: files by number in each folder of SUFFIXES; `metadata` may be empty.
        name: tells the name of a file.
    """
    for folder in FOLDERS.values():
        if not files[folder]:
            raise StoreError(
                f"{store} is no feature store: no {folder}/{folder}_*.npy in it; "
                "give the folder that has img_emb/ and text_emb/, or make one with experiments/extract.py"
            )
    kinds = {kind: found for kind, found in files.items() if found}
    for number in sorted({number for found in kinds.values() for number in found}):
        have = {kind: found[number] for kind, found in kinds.items() if number in found}
        if absent := [kind for kind in kinds if kind not in have]:
            folder, file = next(iter(have.items()))
            digits = name(file).partition(".")[0].rpartition("_")[2]
            missing = f"{absent[0]}_{digits}.{SUFFIXES[absent[0]]}"
            raise StoreError(
                f"{store}: {folder}/{name(file)} has no counterpart in {absent[0]}/, where {missing} is missing: shards "
                "of one number are the same pairs; add the file, or remove what is left of that shard"
            )


def check_rows(store: str, rows: Mapping[str, Sequence[int]], names: Mapping[str, Sequence[str]]) -> None:
    """Raise StoreError unless the files of each shard have as many rows.

    Args:
        store: the store, for messages.
        rows: rows of each file in each folder that has files.
        names: names of these files.
    """
    counts = np.array(list(rows.values()))
    for shard in np.flatnonzero((counts != counts[0]).any(0)).tolist():
        found = ", ".join(f"{rows[folder][shard]} in {folder}/{names[folder][shard]}" for folder in rows)
        raise StoreError(f"{store}: rows {found}: they must be the same pairs; extract them again")
