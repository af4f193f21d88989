"""Paired image and text embeddings on disk, in clip-retrieval's layout.

    <store>/img_emb/img_emb_0.npy            [pairs of shard 0, dim]
    <store>/text_emb/text_emb_0.npy          [pairs of shard 0, dim]
    <store>/metadata/metadata_0.parquet      key, caption, locator, labels...; one row per pair
    <store>/manifest.json                    model, dataset, counts, dtype, content hash

Only the manifest is an addition; embeddings written by clip-retrieval open without one. Blocks of rows are
memory-mapped while they are referenced: nothing is copied, and memory use does not depend on the store's size.

A store may lie on another machine (`s3://`, `gs://`, `hf://`, `https://`, ...): its rows are then read by ranges of its
files, ahead of their use; see `mmmono.features.remote_store`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.errors import StoreError
from mmmono.core.fingerprints import file_fingerprint, files_fingerprint, files_state
from mmmono.core.ranges import check_whole
from mmmono.core.saved import made_anew
from mmmono.core.text import message_of
from mmmono.data.blocks import BlockSettings
from mmmono.data.remote_folder import is_remote
from mmmono.data.remote_settings import RemoteSettings
from mmmono.data.shards import shown
from mmmono.features.metadata import read_metadata, read_stored_column
from mmmono.features.remote_store import INDEX_FILE, MANIFEST_FILE, RemoteStore, is_index, read_index
from mmmono.features.shards import MODALITIES, SUFFIXES, Modality, local_shards, number_of

WHOLE = slice(None)  # all rows
AHEAD = 8 << 20  # bytes of a modality that are asked for before they are needed, where a store is on another machine


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
        content: digest of all embeddings and metadata; of the embeddings alone in stores of earlier versions.
        skipped: number of pairs that could not be read.
        reasons: number of skipped pairs by reason.
        examples: keys of some skipped pairs by reason.
        broken: reason by name, for parts that could not be read to their end and are missing.
        missing: estimated number of pairs in those parts.
        full: number of captions that fill the encoder's context, so that what is beyond was not read.
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
    full: int = 0

    def to_json(self) -> str:
        """Return the content of the manifest file."""
        return json.dumps(asdict(self), indent=2) + "\n"


class PairedBlock(NamedTuple):
    """Consecutive rows of a store or view, both modalities; `start` is the position of the first row."""

    start: int
    image: Float[Tensor, "rows dim"]
    text: Float[Tensor, "rows dim"]


class FeatureStore:
    """Embeddings of image-text pairs on disk or on another machine; row i of either modality belongs to pair i.

    Args:
        path: the store's folder, or the address of one on another machine.
        reading: how a store on another machine is read.

    Raises:
        StoreError: the folder is not a complete store, or its two modalities do not match.
        DataError: a store on another machine cannot be reached, or may not be read.
    """

    def __init__(self, path: str | Path, reading: BlockSettings | None = None) -> None:
        if isinstance(path, str) and is_remote(path):
            remote = RemoteStore(path, (reading or BlockSettings()).remote)
            self.path: str | Path = shown(remote.address)
            shards = remote.shards(reading)
            found = remote.manifest
        else:
            self.path = Path(path)
            if not self.path.is_dir():
                raise StoreError(f"no feature store at {self.path}: make one with experiments/extract.py")
            shards = read_index(self.path, reading) if is_index(self.path) else local_shards(self.path)
            file = self.path / MANIFEST_FILE
            found = file.read_bytes() if file.exists() else None
        shards.check(self.path)
        self._arrays, self._metadata_files = shards.arrays, shards.metadata
        starts = np.cumsum([0] + [array.header.rows for array in self._arrays["image"]])
        self._starts: np.ndarray[Any, Any] = starts
        self.manifest: Manifest | None = None if found is None else read_manifest(found, self.path)
        if self.manifest is not None and (self.manifest.count, self.manifest.dim) != (len(self), self.dim):
            raise StoreError(
                f"{self.path}: {MANIFEST_FILE} promises {self.manifest.count} pairs of width {self.manifest.dim}, there are "
                f"{len(self)} of width {self.dim}: {made_anew(f'{self.path}/{MANIFEST_FILE}', 'extract again')}"
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}, pairs={len(self)}, dim={self.dim}, dtype={self.dtype})"

    @property
    def dim(self) -> int:
        """Width of the joint embedding space."""
        return self._arrays["image"][0].header.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type of the embeddings."""
        return self._arrays["image"][0].header.dtype

    @property
    def has_metadata(self) -> bool:
        """Whether the store has keys and captions of its pairs."""
        return bool(self._metadata_files)

    def read(self, modality: Modality, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Return a copy of rows [start, stop) of one modality, in the stored type.

        Raises:
            StoreError: the store has not all of these rows.
            ValueError: it is no modality.
        """
        number_of(modality)  # raises ValueError
        if not 0 <= start <= stop <= len(self):
            raise StoreError(f"{self.path}: rows {start} to {stop} asked for, it holds {len(self)}")
        return torch.cat(self._mapped(modality, start, stop))

    def _mapped(self, modality: Modality, start: int, stop: int) -> list[Tensor]:
        """Return the same rows as one tensor per shard; memory-mapped, if they are on a disk."""
        if start == stop:
            return [torch.from_numpy(np.empty((0, self.dim), self.dtype))]
        return [self._arrays[modality][shard].read(first, end) for shard, first, end in self._pieces(start, stop)]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the shards that have some of the rows [start, stop), and which of their rows these are."""
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            first, end = int(self._starts[shard]), min(stop, int(self._starts[shard + 1]))
            if start < end:
                yield shard, start - first, end - first
            start, shard = end, shard + 1

    def expect(self, start: int, stop: int) -> None:
        """Prepare for reading the rows [start, stop) soon: a store on another machine begins to fetch them."""
        for shard, first, end in self._pieces(start, stop):
            for modality in MODALITIES:
                self._arrays[modality][shard].expect(first, end)

    def require(self, lowest: int, highest: int) -> None:
        """Raise StoreError unless the store has these two rows."""
        if lowest < 0 or highest >= len(self):
            raise StoreError(f"{self.path}: rows {lowest} to {highest} asked for, it holds {len(self)}")

    def gather(self, modality: Modality, rows: Sequence[int] | np.ndarray[Any, Any]) -> Float[Tensor, "rows dim"]:
        """Return single rows in the given order, in the stored type.

        Raises:
            StoreError: the store has not all of these rows.
            ValueError: rows are no numbers, such as a mask.
        """
        indices = row_numbers(rows)
        if len(indices):
            self.require(int(indices.min()), int(indices.max()))
        out = np.empty((len(indices), self.dim), self.dtype)
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        for shard in np.unique(shards):
            here = shards == shard
            out[here] = self._arrays[modality][shard].take(indices[here] - self._starts[shard])
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

        Raises:
            StoreError: the store has not all of these rows.
            ValueError: rows are no numbers, such as a mask, or block_size is no whole number of at least 1.
        """
        check_whole("block_size", block_size)
        if rows is not None:
            rows = row_numbers(rows)
            if len(rows):
                self.require(int(rows[0]), int(rows[-1]))
        first, end, _ = span.indices(len(self))
        starts = np.arange(first, end, block_size)
        if rows is not None:
            within = rows[slice(*np.searchsorted(rows, [first, end]))]
            starts = first + np.unique((within - first) // block_size) * block_size
        ahead, expected = AHEAD // (self.dim * self.dtype.itemsize), 0
        for start in starts.tolist():
            while expected < len(starts) and (next_start := int(starts[expected])) <= start + ahead:
                self.expect(next_start, min(next_start + block_size, end))
                expected += 1
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

    @property
    def metadata_state(self) -> str:
        """What changes whenever the metadata does; of a store on another machine, what no other opened store has."""
        local = [file for file in self._metadata_files if isinstance(file, Path)]
        whole = len(local) == len(self._metadata_files)
        return f"{self.path} {files_state(local) if whole else id(self)}"

    def stored_column(self, name: str) -> np.ndarray[Any, Any] | None:
        """Return one column of the metadata as it is stored, as text; None if not every file has it, or there are none.

        Raises:
            StoreError: the metadata is broken.
        """
        return read_stored_column(self._metadata_files, name) if self._metadata_files else None

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


def row_numbers(rows: Sequence[int] | np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return numbers of rows as an array. Raises ValueError if they are none, such as a mask."""
    numbers = np.asarray(rows)
    if len(numbers) and (numbers.ndim != 1 or numbers.dtype.kind not in "iu"):
        raise ValueError(f"numbers of rows expected, got {numbers.dtype} {numbers.shape}: of a mask, its nonzero()")
    return numbers.astype(np.int64, copy=False)


def content_fingerprint(path: str | Path) -> str:
    """Return the digest of a store's whole content: embeddings of both modalities and metadata.

    That of a store on another machine is made of what its server says of its files; see `RemoteStore`.
    """
    if isinstance(path, str) and is_remote(path):
        return RemoteStore(path, RemoteSettings()).fingerprint
    root = Path(path)
    if is_index(root):
        return file_fingerprint(root / INDEX_FILE)
    files = [file for folder in SUFFIXES for file in sorted((root / folder).glob("*"))]
    return files_fingerprint({str(file.relative_to(root)): file for file in files if file.is_file()})


def read_manifest(content: bytes, store: str | Path) -> Manifest:
    """Read a manifest, of the store that is called so in messages. Raises StoreError if it is none."""
    try:
        return Manifest(**json.loads(content))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{store}/{MANIFEST_FILE} is no manifest of a store ({message_of(error)}): "
            + made_anew(f"{store}/{MANIFEST_FILE}", "extract again, or remove it")
        ) from error
