"""Paired image and text embeddings on disk, in the layout clip-retrieval made the ecosystem's convention.

    <store>/img_emb/img_emb_0.npy            [pairs of shard 0, dim]
    <store>/text_emb/text_emb_0.npy          [pairs of shard 0, dim]
    <store>/metadata/metadata_0.parquet      key, caption, locator, labels...; one row a pair
    <store>/manifest.json                    model, dataset, counts, dtype, content hash

The manifest is ours; embeddings that clip-retrieval wrote open without one. Rows are read in blocks with `pread`
into a few reused buffers, never whole and never left mapped, so that memory stays constant whatever the store's size.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
READ_AHEAD = 2  # blocks that are read while one is worked on
READERS = 2  # threads that read them, since one copies more slowly out of the page cache than two
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
        reasons: how many pairs were skipped, by reason.
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
        """Read rows [start, stop) of one modality in the stored type, across shards."""
        out = torch.from_numpy(np.empty((stop - start, self.dim), self.dtype))
        self._read_into(out, modality, start)
        return out

    def _read_into(self, out: Tensor, modality: Modality, start: int) -> None:
        done = 0
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while done < len(out):
            file = self._files[modality][shard]
            local = start + done - int(self._starts[shard])
            take = min(len(out) - done, file.rows - local)
            _read_rows(file, local, out[done : done + take])
            done += take
            shard += 1

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
        """Stream both modalities in order, in the stored type; threads read the next blocks while one is worked on.

        A block's tensors are views of buffers that later blocks overwrite: copy what is to be kept.

        Args:
            block_size: rows read at a time.
            rows: ascending row numbers to keep; None keeps all. Blocks left empty are not read.
        """
        starts = np.arange(0, len(self), block_size)
        if rows is not None:
            starts = np.unique(rows // block_size) * block_size
        buffers = [
            [torch.from_numpy(np.empty((block_size, self.dim), self.dtype)) for _ in MODALITIES]
            for _ in range(READ_AHEAD + 1)
        ]

        def read(number: int, start: int) -> PairedBlock:
            stop = min(start + block_size, len(self))
            image, text = (buffer[: stop - start] for buffer in buffers[number % len(buffers)])
            self._read_into(image, "image", start)
            self._read_into(text, "text", start)
            if rows is None:
                return PairedBlock(start, image, text)
            low, high = np.searchsorted(rows, [start, stop])
            if high - low < stop - start:
                local = torch.from_numpy(rows[low:high] - start)
                image, text = image[local], text[local]
            return PairedBlock(int(low), image, text)

        with ThreadPoolExecutor(READERS, "read-ahead") as reader:
            ahead: deque[Future[PairedBlock]] = deque()
            for number, start in enumerate(starts.tolist()):
                ahead.append(reader.submit(read, number, start))
                if len(ahead) > READ_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

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


def _read_rows(file: _ArrayFile, start: int, out: Tensor) -> None:
    """Fill `out` with consecutive rows of one file."""
    view = out.numpy().reshape(-1).view(np.uint8).data
    descriptor = os.open(file.path, os.O_RDONLY)
    try:
        position = file.offset + start * file.dim * file.dtype.itemsize
        if hasattr(os, "posix_fadvise"):  # while these rows are worked on, the next ones come from the disk
            os.posix_fadvise(descriptor, position + len(view), len(view), os.POSIX_FADV_WILLNEED)
        while len(view):
            count = os.preadv(descriptor, [view], position)
            if count == 0:
                raise StoreError(f"{file.path} ended early: it was changed while being read")
            view, position = view[count:], position + count
    finally:
        os.close(descriptor)
