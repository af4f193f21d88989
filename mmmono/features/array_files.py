"""Lists and checks a store's .npy shards by their headers, and reads rows of them."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.errors import StoreError
from mmmono.core.saved import made_anew
from mmmono.core.text import message_of

READABLE = ("float16", "float32", "float64")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
AGAIN = "save it anew where it was made"
T = TypeVar("T")


class Header(NamedTuple):
    """What the header of a .npy file says.

    Attributes:
        rows, dim: shape of the array.
        dtype: of the array.
        offset: position of the array in the file, in bytes.
    """

    rows: int
    dim: int
    dtype: np.dtype[Any]
    offset: int

    def position(self, row: int) -> int:
        """Position of a row in the file, in bytes."""
        return self.offset + row * self.dim * self.dtype.itemsize


class StoredArray(Protocol):
    """A shard of one modality, wherever it lies."""

    @property
    def header(self) -> Header:
        """Shape, type and position of the array."""

    def read(self, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Return consecutive rows, in the stored type."""

    def take(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return single rows in the given order."""

    def expect(self, start: int, stop: int) -> None:
        """Prepare for `read` of these rows, which will come soon."""


class ArrayFile(NamedTuple):
    """A .npy file on a disk.

    Attributes:
        path: the file.
        header: its header; rows are read without parsing it again.
    """

    path: Path
    header: Header

    def read(self, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Memory-map consecutive rows, as long as the tensor lives; copy-on-write keeps the file unchanged."""
        header = self.header
        position, size = header.position(start), header.position(stop) - header.position(start)
        page = position % mmap.ALLOCATIONGRANULARITY
        with self.path.open("rb") as opened:
            if hasattr(os, "posix_fadvise"):  # read the next rows from disk while these are processed
                os.posix_fadvise(opened.fileno(), position, 2 * size, os.POSIX_FADV_WILLNEED)
            try:
                mapped = mmap.mmap(opened.fileno(), page + size, offset=position - page, access=mmap.ACCESS_COPY)
            except ValueError as error:
                raise StoreError(f"{self.path} ended early: it was changed while being read") from error
        rows = np.frombuffer(mapped, header.dtype, (stop - start) * header.dim, page)
        return torch.from_numpy(rows.reshape(stop - start, header.dim))

    def take(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return single rows in the given order."""
        return np.asarray(np.load(self.path, mmap_mode="r")[rows])

    def expect(self, start: int, stop: int) -> None:
        """Nothing: the system reads ahead."""


def by_number(files: Iterable[T], name: Callable[[T], str], prefix: str, suffix: str) -> dict[int, T]:
    """Return the files called `<prefix>_<i>.<suffix>` by their number, ascending; i may be zero-padded.

    Args:
        files: paths, or whatever stands for a file.
        name: tells the name of one.
        prefix, suffix: what the names begin and end with.

    Raises:
        StoreError: two files have the same number.
    """
    pattern = re.compile(rf"{prefix}_([0-9]+)\.{suffix}")
    found: dict[int, T] = {}
    for file in sorted(files, key=name):
        if not (match := pattern.fullmatch(name(file))):
            continue
        if (number := int(match[1])) in found:
            raise StoreError(
                f"{file} and {name(found[number])} have one number: remove the one that is not of this store"
            )
        found[number] = file
    return dict(sorted(found.items()))


def numbered(folder: Path, prefix: str, suffix: str) -> dict[int, Path]:
    """Return the files of a folder by their number; none if there is no such folder. See `by_number`."""
    return by_number(folder.iterdir() if folder.is_dir() else (), lambda file: file.name, prefix, suffix)


def read_header(path: Path) -> ArrayFile:
    """Open a file. Raises StoreError unless it is a complete row-major float array [pairs, dim]."""
    try:
        with path.open("rb") as file:
            return ArrayFile(path, parse_header(file, path.stat().st_size, str(path)))
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror})") from error


def parse_header(file: IO[bytes], size: int, name: str) -> Header:
    """Parse and check the header of a .npy file.

    Args:
        file: its beginning.
        size: bytes of the whole file.
        name: of the file, for errors.

    Raises:
        StoreError: it is no complete row-major float array [pairs, dim].
        OSError: the file cannot be read.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version[0]}.{version[1]} of the format")
        shape, fortran, dtype = _HEADERS[version](file)
        offset = file.tell()
    except OSError:
        raise
    except Exception as error:  # numpy evaluates the header, which may contain anything
        raise StoreError(f"{name} is no .npy array ({message_of(error)}): {made_anew(name, AGAIN)}") from error
    if len(shape) != 2 or min(shape[0], shape[1] - 1) < 0:
        raise StoreError(f"{name}: expected an array [pairs, dim], got the shape {shape}; {made_anew(name, AGAIN)}")
    if fortran and min(shape) > 1:
        raise StoreError(
            f"{name}: columns lie one after the other: {_save_again('np.ascontiguousarray(np.load(path))')}"
        )
    if dtype.name not in READABLE or not dtype.isnative:
        known = ", ".join(READABLE)
        raise StoreError(
            f"{name}: holds {dtype.str} ({dtype.name}), not {known} in this machine's byte order: "
            + (_save_again("np.load(path).astype('float32')") if dtype.kind in "iuf" else made_anew(name, AGAIN))
        )
    whole = offset + shape[0] * shape[1] * dtype.itemsize
    if size != whole:
        problem = "is cut off" if size < whole else "goes on after its array"
        raise StoreError(
            f"{name} {problem}: its header promises {shape[0]} rows of {shape[1]}; {made_anew(name, AGAIN)}"
        )
    return Header(shape[0], shape[1], dtype, offset)


def _save_again(expression: str) -> str:
    return f"save it again with np.save(path, {expression})"
