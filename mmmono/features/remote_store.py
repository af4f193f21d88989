"""Feature stores on other machines: their files are listed once, and read by ranges.

What a listing found is kept as an artifact, so that the store opens without asking for the header of every file again:

    <artifact>/remote.json      address, and of each file: size, version, shape, type
    <artifact>/manifest.json    the store's own, if it has one

Every range that is read belongs to the version that was listed: a file that was replaced since is an error. The fingerprint
is a digest of the address and of the names, sizes and versions (ETags and the like) of all files.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import ConfigError
from mmmono.data.blocks import BLOCK, BlockReader, BlockSettings
from mmmono.data.hub import canonical
from mmmono.data.remote_folder import RemoteFolder, RemotePart, in_threads
from mmmono.data.remote_settings import RemoteSettings
from mmmono.data.shards import shown
from mmmono.features.array_files import Header, by_number, parse_header
from mmmono.features.metadata import read_metadata, row_count
from mmmono.features.shards import FOLDERS, METADATA, SUFFIXES, Modality, Shards, check_numbers, check_rows

MANIFEST_FILE = "manifest.json"
INDEX_FILE = "remote.json"
HEADER_BYTES = 4096  # more than the header of any array of floats
SCATTERED = 64  # single rows that are asked for before they are needed


@dataclass(frozen=True)
class RemoteArray:
    """A .npy file on another machine.

    Attributes:
        part: the file.
        header: its header.
        reader: reads it.
    """

    part: RemotePart
    header: Header
    reader: BlockReader

    def read(self, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Return consecutive rows, in the stored type. Raises like `RemotePart.read`."""
        header = self.header
        data = self.reader.read(self.part, header.position(start), header.position(stop))
        return torch.from_numpy(np.frombuffer(data, header.dtype).reshape(stop - start, header.dim))

    def take(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return single rows in the given order; whole blocks of the file are read for them."""
        out = np.empty((len(rows), self.header.dim), self.header.dtype)
        order = np.argsort(rows, kind="stable")
        for place, at in enumerate(order):
            if place % SCATTERED == 0:
                for later in rows[order[place : place + 2 * SCATTERED]].tolist():
                    self.expect(later, later + 1)
            out[at] = self.read(int(rows[at]), int(rows[at]) + 1).numpy()
        return out

    def expect(self, start: int, stop: int) -> None:
        """Begin to read consecutive rows, which will be asked for soon."""
        self.reader.expect(self.part, self.header.position(start), self.header.position(stop))


@dataclass(frozen=True)
class RemoteTable:
    """A Parquet file on another machine."""

    part: RemotePart
    reader: BlockReader

    def __str__(self) -> str:
        return shown(self.part.address)

    def open(self) -> IO[bytes]:
        """Open it for reading at any position."""
        return io.BufferedReader(_Ranges(self.part, self.reader), BLOCK)


class _Ranges(io.RawIOBase):
    """A remote file that is read at any position."""

    def __init__(self, part: RemotePart, reader: BlockReader) -> None:
        self._part, self._reader = part, reader
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._part.size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._part.size)
        data = self._reader.read(self._part, self._position, stop)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


class RemoteStore:
    """The files of a store on another machine, as they are now.

    Args:
        address: of the store's folder.
        settings: time-outs and retries.

    Raises:
        ConfigError: the address has a query or a password, or that of the hub another form.
        StoreError: there is no store, or its server does not tell what is needed to notice changes.
        DataError: it cannot be reached, or may not be read.
    """

    def __init__(self, address: str, settings: RemoteSettings) -> None:
        if "?" in address:
            raise ConfigError(
                f"the address of a store, {shown(address)}, is that of a folder, and cannot have a signature after '?': use "
                "s3://, gs:// or az:// with credentials, or copy the store to a disk"
            )
        if urlsplit(address).password:
            raise ConfigError(
                f"the address of a store, {shown(address)}, holds a password, which files would keep: write a line "
                f"'machine {urlsplit(address).hostname} login … password …' to ~/.netrc, and give the address without it"
            )
        self.address = address.rstrip("/")
        self.settings = settings
        self._folder = RemoteFolder(self.address, settings)
        self._files: dict[str, dict[int, RemotePart]] = {}
        for folder, suffix in SUFFIXES.items():
            parts = self._folder.numbered(folder, f"{folder}_", f".{suffix}")
            self._files[folder] = by_number(parts, _name, folder, suffix)
        check_numbers(shown(self.address), self._files, _name)

    @property
    def name(self) -> str:
        """Last part of the address."""
        return self.address.rpartition("/")[2] or "store"

    @cached_property
    def manifest(self) -> bytes | None:
        """Content of the store's manifest; None if it has none."""
        return self._folder.read(MANIFEST_FILE)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the address and of the names, sizes and versions of all files."""
        files = [
            (folder, part.name, part.size, part.version)
            for folder, parts in self._files.items()
            for part in parts.values()
        ]
        return hashlib.sha256(repr((canonical(self.address), files)).encode()).hexdigest()[:32]

    def header(self) -> Header:
        """Header of the first array of images. Raises StoreError if it is none."""
        return self._headers([next(iter(self._files[FOLDERS["image"]].values()))])[0]

    def metadata(self, reading: BlockSettings | None = None) -> pd.DataFrame:
        """Return the metadata; see `read_metadata`. Raises StoreError if there is none."""
        return read_metadata(self._tables(BlockReader(reading)))

    def shards(self, reading: BlockSettings | None = None) -> Shards:
        """Open all files, of which the headers are read first.

        Args:
            reading: how they are read.

        Raises:
            StoreError: they do not match in rows, or one is no array or no Parquet file.
            DataError: one cannot be read.
        """
        reader = BlockReader(reading)
        parts = {modality: list(self._files[folder].values()) for modality, folder in FOLDERS.items()}
        headers = self._headers([part for some in parts.values() for part in some])
        arrays: dict[Modality, list[RemoteArray]] = {}
        for modality, some in parts.items():
            mine, headers = headers[: len(some)], headers[len(some) :]
            arrays[modality] = [RemoteArray(part, header, reader) for part, header in zip(some, mine, strict=True)]
        tables = self._tables(reader)
        rows = {FOLDERS[modality]: [array.header.rows for array in some] for modality, some in arrays.items()}
        if tables:
            rows[METADATA] = in_threads(row_count, tables)
        names = {folder: [part.name for part in found.values()] for folder, found in self._files.items()}
        check_rows(shown(self.address), rows, names)
        return Shards(arrays, tables)

    def write(self, directory: Path, reading: BlockSettings | None = None) -> None:
        """Write what the store's files are to a folder, which then opens as the store. Raises like `shards`."""
        shards = self.shards(reading)
        shards.check(shown(self.address))
        if self.manifest is not None:
            (directory / MANIFEST_FILE).write_bytes(self.manifest)
        arrays = {modality: [_entry(array) for array in some] for modality, some in shards.arrays.items()}
        tables = [asdict(part) for part in self._files[METADATA].values()]
        index = {"address": self.address, "arrays": arrays, "metadata": tables}
        write_text_atomically(directory / INDEX_FILE, json.dumps(index) + "\n")

    def _tables(self, reader: BlockReader) -> list[RemoteTable]:
        return [RemoteTable(part, reader) for part in self._files[METADATA].values()]

    def _headers(self, parts: Sequence[RemotePart]) -> list[Header]:
        def header(part: RemotePart) -> Header:
            beginning = part.read(part.file(self.settings), 0, min(part.size, HEADER_BYTES))
            return parse_header(io.BytesIO(beginning), part.size, shown(part.address))

        return in_threads(header, parts)


def is_index(directory: Path) -> bool:
    """Whether a folder stands for a store on another machine."""
    return (directory / INDEX_FILE).exists()


def read_index(directory: Path, reading: BlockSettings | None = None) -> Shards:
    """Open the store that a folder stands for, without asking its server.

    Args:
        directory: what `RemoteStore.write` has written.
        reading: how its files are read.
    """
    index = json.loads((directory / INDEX_FILE).read_text(encoding="utf-8"))
    reader = BlockReader(reading)
    arrays: dict[Modality, list[RemoteArray]] = {
        modality: [
            RemoteArray(
                RemotePart(**one["part"]),
                Header(one["rows"], one["dim"], np.dtype(one["dtype"]), one["offset"]),
                reader,
            )
            for one in index["arrays"][modality]
        ]
        for modality in FOLDERS
    }
    return Shards(arrays, [RemoteTable(RemotePart(**part), reader) for part in index["metadata"]])


def _entry(array: Any) -> dict[str, Any]:
    return {"part": asdict(array.part), **array.header._asdict(), "dtype": array.header.dtype.str}


def _name(part: RemotePart) -> str:
    return part.name
