"""Paired image and text embeddings on disk, in the layout clip-retrieval made the ecosystem's convention.

    <store>/img_emb/img_emb_0.npy            [pairs of shard 0, dim]
    <store>/text_emb/text_emb_0.npy          [pairs of shard 0, dim]
    <store>/metadata/metadata_0.parquet      key, caption, locator, labels...; one row a pair
    <store>/manifest.json                    model, dataset, counts, dtype, content hash

The manifest is ours; embeddings that clip-retrieval wrote open without one. Rows come in blocks that are mapped into
memory, for as long as somebody holds them: nothing is copied, and memory stays constant whatever the store's size.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.errors import StoreError

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, Modality] = ("image", "text")
MANIFEST_FILE = "manifest.json"
_PREFIX: dict[Modality, str] = {"image": "img_emb", "text": "text_emb"}


@dataclass(frozen=True)
class Manifest:
    """What a store holds and what made it.

    Attributes:
        model: name of the encoder; model_fingerprint identifies its weights.
        dataset: name of the source; dataset_fingerprint identifies its content.
        dim: width of the joint space.
        count: number of pairs, of which `skipped` more could not be read.
        dtype: numpy name of the stored type.
        content: digest over all embeddings.
        reasons: how many pairs were skipped, by reason; examples are keys of some of them.
        broken: parts of the source that could not be read to their end and were gone without, with what is wrong.
        missing: pairs that those parts would have, as far as the others tell.
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
        """The manifest as it stands in the store."""
        return json.dumps(asdict(self), indent=2) + "\n"


class PairedBlock(NamedTuple):
    """Consecutive rows of a store (or of a selection of its rows), both modalities."""

    start: int
    image: Float[Tensor, "rows dim"]
    text: Float[Tensor, "rows dim"]


class _ArrayFile(NamedTuple):
    """A .npy file's header, read once, so that blocks are plain reads at an offset."""

    path: Path
    rows: int
    dim: int
    dtype: np.dtype[Any]
    offset: int


class FeatureStore:
    """Embeddings of image-text pairs on disk; row i of either modality belongs to pair i.

    Args:
        path: the store's folder.

    Raises:
        StoreError: the folder is no whole store, or its two modalities do not match.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise StoreError(f"no feature store at {self.path}: make one with experiments/extract.py")
        self._files: dict[Modality, list[_ArrayFile]] = {m: _array_files(self.path, m) for m in MODALITIES}
        self._check()
        manifest = self.path / MANIFEST_FILE
        self.manifest: Manifest | None = Manifest(**json.loads(manifest.read_text())) if manifest.exists() else None
        starts = np.cumsum([0] + [file.rows for file in self._files["image"]])
        self._starts: np.ndarray[Any, Any] = starts

    def _check(self) -> None:
        image, text = self._files["image"], self._files["text"]
        if [f.rows for f in image] != [f.rows for f in text]:
            raise StoreError(
                f"{self.path}: image shards hold {[f.rows for f in image][:8]} rows and text shards "
                f"{[f.rows for f in text][:8]}: they must be the same pairs; extract them again"
            )
        dims = {f.dim for f in image + text}
        if len(dims) != 1:
            raise StoreError(
                f"{self.path}: embeddings of several widths {sorted(dims)}: one store holds one joint space"
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

    def read(self, modality: Modality, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Copy rows [start, stop) of one modality in the stored type."""
        return torch.cat(self._mapped(modality, start, stop))

    def _mapped(self, modality: Modality, start: int, stop: int) -> list[Tensor]:
        """The same rows where they lie, a tensor for every shard that has some of them."""
        pieces = [torch.from_numpy(np.empty((0, self.dim), self.dtype))] if start == stop else []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            first, end = int(self._starts[shard]), min(stop, int(self._starts[shard + 1]))
            if start < end:
                pieces.append(_map_rows(self._files[modality][shard], start - first, end - first))
            start, shard = end, shard + 1
        return pieces

    def gather(self, modality: Modality, rows: Sequence[int] | np.ndarray[Any, Any]) -> Float[Tensor, "rows dim"]:
        """Read single rows, in the order given, in the stored type."""
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise StoreError(f"{self.path}: rows {wanted.min()} to {wanted.max()} asked for, it holds {len(self)}")
        out = np.empty((len(wanted), self.dim), self.dtype)
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        for shard in np.unique(shards):
            here = shards == shard
            mapped = np.load(self._files[modality][shard].path, mmap_mode="r")
            out[here] = mapped[wanted[here] - self._starts[shard]]
        return torch.from_numpy(out)

    def blocks(self, block_size: int = 2048, rows: np.ndarray[Any, Any] | None = None) -> Iterator[PairedBlock]:
        """Stream both modalities in order, in the stored type; the system reads on while a block is worked on.

        A block stays mapped, and its files open, as long as it is held: copy what is to be kept of many.

        Args:
            block_size: rows read at a time.
            rows: ascending row numbers to keep; None keeps all. Blocks left empty are not read.
        """
        starts = np.arange(0, len(self), block_size)
        if rows is not None:
            starts = np.unique(rows // block_size) * block_size
        for start in starts.tolist():
            stop = min(start + block_size, len(self))
            mapped = [self._mapped(modality, start, stop) for modality in MODALITIES]
            image, text = (pieces[0] if len(pieces) == 1 else torch.cat(pieces) for pieces in mapped)
            if rows is not None:
                low, high = np.searchsorted(rows, [start, stop])
                if high - low < stop - start:
                    local = torch.from_numpy(rows[low:high] - start)
                    image, text = image[local], text[local]
                start = int(low)
            yield PairedBlock(start, image, text)

    @cached_property
    def _metadata_files(self) -> list[Path]:
        return _numbered(self.path / "metadata", "metadata", "parquet")

    def metadata(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Rows of the metadata in the order of the embeddings.

        Raises:
            StoreError: there is no metadata, a column is missing, or it does not have one row a pair.
        """
        if not self._metadata_files:
            raise StoreError(f"{self.path}: no metadata/metadata_*.parquet, so keys and captions are unknown")
        known = pq.read_schema(self._metadata_files[0]).names
        missing = [c for c in columns or () if c not in known]
        if missing:
            raise StoreError(f"{self.path}: metadata has no column {missing[0]!r}, only {', '.join(known)}")
        frame = pd.concat(
            [pq.read_table(f, columns=list(columns) if columns else None).to_pandas() for f in self._metadata_files],
            ignore_index=True,
        )
        if "key" not in frame and "image_path" in frame:
            frame["key"] = frame["image_path"]  # what clip-retrieval knows a pair by
        if len(frame) != len(self):
            raise StoreError(f"{self.path}: {len(self)} embeddings but {len(frame)} rows of metadata; extract again")
        return frame


def _numbered(folder: Path, prefix: str, suffix: str) -> list[Path]:
    """Files `<prefix>_<i>.<suffix>` in numeric order; i may be zero-padded."""
    pattern = re.compile(rf"{prefix}_(\d+)\.{suffix}")
    found = [(int(m[1]), f) for f in (folder.iterdir() if folder.is_dir() else ()) if (m := pattern.fullmatch(f.name))]
    return [file for _, file in sorted(found)]


def _array_files(store: Path, modality: Modality) -> list[_ArrayFile]:
    prefix = _PREFIX[modality]
    paths = _numbered(store / prefix, prefix, "npy")
    if not paths:
        raise StoreError(
            f"{store} is no feature store: no {prefix}/{prefix}_*.npy in it; "
            "give the folder that has img_emb/ and text_emb/, or make one with experiments/extract.py"
        )
    return [_read_header(path) for path in paths]


def _read_header(path: Path) -> _ArrayFile:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
        except ValueError as error:
            raise StoreError(f"{path} is no .npy array ({error}); extract again") from error
        offset = file.tell()
    if len(shape) != 2 or fortran or dtype.kind != "f":
        raise StoreError(f"{path}: expected a row-major float array [pairs, dim], got {dtype} {shape}; extract again")
    if path.stat().st_size < offset + shape[0] * shape[1] * dtype.itemsize:
        raise StoreError(f"{path} is cut off: its header promises {shape[0]} rows; extract again")
    return _ArrayFile(path, shape[0], shape[1], dtype, offset)


def _map_rows(file: _ArrayFile, start: int, stop: int) -> Tensor:
    """Consecutive rows of one file, which stay mapped as long as the tensor lives; writing to it never reaches the file."""
    position, size = (count * file.dim * file.dtype.itemsize for count in (start, stop - start))
    position += file.offset
    page = position % mmap.ALLOCATIONGRANULARITY
    with file.path.open("rb") as opened:
        if hasattr(os, "posix_fadvise"):  # while these rows are worked on, the next ones come from the disk
            os.posix_fadvise(opened.fileno(), position, 2 * size, os.POSIX_FADV_WILLNEED)
        try:
            mapped = mmap.mmap(opened.fileno(), page + size, offset=position - page, access=mmap.ACCESS_COPY)
        except ValueError as error:
            raise StoreError(f"{file.path} ended early: it was changed while being read") from error
    rows = np.frombuffer(mapped, file.dtype, (stop - start) * file.dim, page)
    return torch.from_numpy(rows.reshape(stop - start, file.dim))
