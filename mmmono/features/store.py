"""Paired image and text embeddings on disk, in clip-retrieval's layout.

    <store>/img_emb/img_emb_0.npy            [pairs of shard 0, dim]
    <store>/text_emb/text_emb_0.npy          [pairs of shard 0, dim]
    <store>/metadata/metadata_0.parquet      key, caption, locator, labels...; one row per pair
    <store>/manifest.json                    model, dataset, counts, dtype, content hash

Only the manifest is an addition; embeddings written by clip-retrieval open without one. Blocks of rows are
memory-mapped while they are referenced: nothing is copied, and memory use does not depend on the store's size.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.errors import StoreError
from mmmono.core.fingerprints import files_fingerprint
from mmmono.features.array_files import ArrayFile, numbered, read_header
from mmmono.features.metadata import read_metadata, row_count

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, Modality] = ("image", "text")
MANIFEST_FILE = "manifest.json"
WHOLE = slice(None)  # all rows
_PREFIX: dict[Modality, str] = {"image": "img_emb", "text": "text_emb"}


@dataclass(frozen=True)
class Manifest:
    """Content and origin of a store.

    Attributes:
        model: name of the encoder.
        model_fingerprint: identifies its weights.
        dataset: name of the source.
        dataset_fingerprint: identifies its content.
        dim: width of the joint embedding space.
        count: number of stored pairs.
        dtype: NumPy name of the stored type.
        content: digest of all embeddings.
        skipped: number of pairs that could not be read.
        reasons: number of skipped pairs by reason.
        examples: keys of some skipped pairs by reason.
        broken: reason by name, for parts that could not be read to their end and are missing.
        missing: estimated number of pairs in those parts.
    """

    model: str
    model_fingerprint: str
    dataset: str
    dataset_fingerprint: str
    dim: int
    count: int
    dtype: str
    content: str
    skipped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    missing: int = 0

    def to_json(self) -> str:
        """Return the content of the manifest file."""
        return json.dumps(asdict(self), indent=2) + "\n"


class PairedBlock(NamedTuple):
    """Consecutive rows of a store or view, both modalities; `start` is the position of the first row."""

    start: int
    image: Float[Tensor, "rows dim"]
    text: Float[Tensor, "rows dim"]


class FeatureStore:
    """Embeddings of image-text pairs on disk; row i of either modality belongs to pair i.

    Args:
        path: the store's folder.

    Raises:
        StoreError: the folder is not a complete store, or its two modalities do not match.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise StoreError(f"no feature store at {self.path}: make one with experiments/extract.py")
        self._files, self._metadata_files = _same_shards(self.path)
        _check(self.path, [file for files in self._files.values() for file in files])
        starts = np.cumsum([0] + [file.rows for file in self._files["image"]])
        self._starts: np.ndarray[Any, Any] = starts
        self.manifest: Manifest | None = _read_manifest(self.path / MANIFEST_FILE)
        if self.manifest is not None and (self.manifest.count, self.manifest.dim) != (len(self), self.dim):
            raise StoreError(
                f"{self.path}: {MANIFEST_FILE} promises {self.manifest.count} pairs of width {self.manifest.dim}, there are "
                f"{len(self)} of width {self.dim}: extract again"
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}, pairs={len(self)}, dim={self.dim}, dtype={self.dtype})"

    @property
    def dim(self) -> int:
        """Width of the joint embedding space."""
        return self._files["image"][0].dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type of the embeddings."""
        return self._files["image"][0].dtype

    @property
    def has_metadata(self) -> bool:
        """Whether the store has keys and captions of its pairs."""
        return bool(self._metadata_files)

    def read(self, modality: Modality, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Return a copy of rows [start, stop) of one modality, in the stored type."""
        return torch.cat(self._mapped(modality, start, stop))

    def _mapped(self, modality: Modality, start: int, stop: int) -> list[Tensor]:
        """Return the same rows memory-mapped, as one tensor per shard."""
        pieces = [torch.from_numpy(np.empty((0, self.dim), self.dtype))] if start == stop else []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            first, end = int(self._starts[shard]), min(stop, int(self._starts[shard + 1]))
            if start < end:
                pieces.append(_map_rows(self._files[modality][shard], start - first, end - first))
            start, shard = end, shard + 1
        return pieces

    def gather(self, modality: Modality, rows: Sequence[int] | np.ndarray[Any, Any]) -> Float[Tensor, "rows dim"]:
        """Return single rows in the given order, in the stored type."""
        indices = np.asarray(rows, dtype=np.int64)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise StoreError(f"{self.path}: rows {indices.min()} to {indices.max()} asked for, it holds {len(self)}")
        out = np.empty((len(indices), self.dim), self.dtype)
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        for shard in np.unique(shards):
            here = shards == shard
            mapped = np.load(self._files[modality][shard].path, mmap_mode="r")
            out[here] = mapped[indices[here] - self._starts[shard]]
        return torch.from_numpy(out)

    def blocks(
        self, block_size: int = 2048, rows: np.ndarray[Any, Any] | None = None, span: slice = WHOLE
    ) -> Iterator[PairedBlock]:
        """Stream both modalities in order, in the stored type; the system reads ahead while a block is processed.

        A block stays mapped, and its files open, as long as it is referenced: copy rows that are kept from many blocks.

        Args:
            block_size: rows per block, before selection.
            rows: ascending row numbers to keep; None keeps all. Blocks without such rows are not read.
            span: rows of the store to walk, by default all.
        """
        first, end, _ = span.indices(len(self))
        starts = np.arange(first, end, block_size)
        if rows is not None:
            within = rows[slice(*np.searchsorted(rows, [first, end]))]
            starts = first + np.unique((within - first) // block_size) * block_size
        for start in starts.tolist():
            stop = min(start + block_size, end)
            mapped = [self._mapped(modality, start, stop) for modality in MODALITIES]
            image, text = (pieces[0] if len(pieces) == 1 else torch.cat(pieces) for pieces in mapped)
            if rows is not None:
                low, high = np.searchsorted(rows, [start, stop])
                if high - low < stop - start:
                    local = torch.from_numpy(rows[low:high] - start)
                    image, text = image[local], text[local]
                start = int(low)
            yield PairedBlock(start, image, text)

    def metadata(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the metadata in the order of the embeddings, all values as text; see `read_metadata`.

        Args:
            columns: names of the columns to return; None returns all.

        Raises:
            StoreError: the metadata is missing or broken, or lacks a column.
        """
        if not self._metadata_files:
            raise StoreError(
                f"{self.path}: no metadata/metadata_*.parquet, so keys and captions are unknown; without them use "
                "dataset.split=all, and what shows no images or captions"
            )
        frame = read_metadata(self._metadata_files)
        missing = [column for column in columns or () if column not in frame]
        if missing:
            raise StoreError(f"{self.path}: metadata has no column {missing[0]!r}, only {', '.join(map(str, frame))}")
        return frame if columns is None else frame[list(columns)]


def content_fingerprint(path: str | Path) -> str:
    """Return the digest of a store's whole content: embeddings of both modalities and metadata."""
    root = Path(path)
    files = [file for folder in (*_PREFIX.values(), "metadata") for file in sorted((root / folder).glob("*"))]
    return files_fingerprint({str(file.relative_to(root)): file for file in files if file.is_file()})


def _same_shards(store: Path) -> tuple[dict[Modality, list[ArrayFile]], list[Path]]:
    """Return array headers by modality and metadata files; raise StoreError unless shards match in number and rows."""
    arrays = {modality: numbered(store / prefix, prefix, "npy") for modality, prefix in _PREFIX.items()}
    for modality, prefix in _PREFIX.items():
        if not arrays[modality]:
            raise StoreError(
                f"{store} is no feature store: no {prefix}/{prefix}_*.npy in it; "
                "give the folder that has img_emb/ and text_emb/, or make one with experiments/extract.py"
            )
    metadata = numbered(store / "metadata", "metadata", "parquet")
    named = {**{_PREFIX[modality]: files for modality, files in arrays.items()}, "metadata": metadata}
    kinds = {kind: files for kind, files in named.items() if files}
    for number in sorted({number for files in kinds.values() for number in files}):
        have = {kind: files[number] for kind, files in kinds.items() if number in files}
        if absent := [kind for kind in kinds if kind not in have]:
            there, gone = next(iter(have.values())), absent[0]
            name = f"{gone}_{there.stem.rpartition('_')[2]}.{'parquet' if gone == 'metadata' else 'npy'}"
            raise StoreError(
                f"{store}: {there.parent.name}/{there.name} has no counterpart in {gone}/, where {name} is missing: shards "
                "of one number are the same pairs; add the file, or remove what is left of that shard"
            )
    headers = {modality: [read_header(file) for file in files.values()] for modality, files in arrays.items()}
    for image, text, number in zip(*headers.values(), arrays["image"], strict=True):
        rows = {file.path: file.rows for file in (image, text)}
        if metadata:
            rows[metadata[number]] = row_count(metadata[number])
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{count} in {file.parent.name}/{file.name}" for file, count in rows.items())
            raise StoreError(f"{store}: rows {counts}: they must be the same pairs; extract them again")
    return headers, list(metadata.values())


def _check(store: Path, files: Sequence[ArrayFile]) -> None:
    dims = {file.dim for file in files}
    if len(dims) != 1:
        raise StoreError(f"{store}: embeddings of several widths {sorted(dims)}: one store holds one joint space")
    types = sorted({file.dtype.name for file in files})
    if len(types) != 1:
        raise StoreError(f"{store}: embeddings of several types {', '.join(types)}: save all as one of them")
    if not any(file.rows for file in files):
        raise StoreError(f"{store} holds no pair: extract again")


def _read_manifest(file: Path) -> Manifest | None:
    if not file.exists():
        return None
    try:
        return Manifest(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise StoreError(f"{file} is no manifest of a store ({reason}): extract again, or remove it") from error


def _map_rows(file: ArrayFile, start: int, stop: int) -> Tensor:
    """Memory-map consecutive rows of one file, as long as the tensor lives; copy-on-write keeps the file unchanged."""
    position, size = (count * file.dim * file.dtype.itemsize for count in (start, stop - start))
    position += file.offset
    page = position % mmap.ALLOCATIONGRANULARITY
    with file.path.open("rb") as opened:
        if hasattr(os, "posix_fadvise"):  # read the next rows from disk while these are processed
            os.posix_fadvise(opened.fileno(), position, 2 * size, os.POSIX_FADV_WILLNEED)
        try:
            mapped = mmap.mmap(opened.fileno(), page + size, offset=position - page, access=mmap.ACCESS_COPY)
        except ValueError as error:
            raise StoreError(f"{file.path} ended early: it was changed while being read") from error
    rows = np.frombuffer(mapped, file.dtype, (stop - start) * file.dim, page)
    return torch.from_numpy(rows.reshape(stop - start, file.dim))
