"""Lists and checks a store's .npy shards by their headers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmmono.core.errors import StoreError

READABLE = ("float16", "float32", "float64")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class ArrayFile(NamedTuple):
    """The header of a .npy file; rows are read at an offset without parsing it again.

    Attributes:
        path: the file.
        rows, dim: shape of the array.
        dtype: of the array.
        offset: position of the array in the file, in bytes.
    """

    path: Path
    rows: int
    dim: int
    dtype: np.dtype[Any]
    offset: int


def numbered(folder: Path, prefix: str, suffix: str) -> dict[int, Path]:
    """Return the files `<prefix>_<i>.<suffix>` by their number, ascending; i may be zero-padded.

    Raises:
        StoreError: two files have the same number.
    """
    pattern = re.compile(rf"{prefix}_([0-9]+)\.{suffix}")
    found: dict[int, Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not (match := pattern.fullmatch(file.name)):
            continue
        if (number := int(match[1])) in found:
            raise StoreError(
                f"{file} and {found[number].name} have one number: remove the one that is not of this store"
            )
        found[number] = file
    return dict(sorted(found.items()))


def read_header(path: Path) -> ArrayFile:
    """Read and check a header. Raises StoreError unless the file is a complete row-major float array [pairs, dim]."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise ValueError(f"version {version[0]}.{version[1]} of the format")
            shape, fortran, dtype = _HEADERS[version](file)
            offset = file.tell()
        size = path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror})") from error
    except Exception as error:  # numpy evaluates the header, which may contain anything
        reason = " ".join(str(error).split())[:120]
        raise StoreError(f"{path} is no .npy array ({reason}): extract again") from error
    if len(shape) != 2 or min(shape[0], shape[1] - 1) < 0:
        raise StoreError(f"{path}: expected an array [pairs, dim], got the shape {shape}; extract again")
    if fortran and min(shape) > 1:
        raise StoreError(
            f"{path}: columns lie one after the other: {_save_again('np.ascontiguousarray(np.load(path))')}"
        )
    if dtype.name not in READABLE or not dtype.isnative:
        known = ", ".join(READABLE)
        raise StoreError(
            f"{path}: holds {dtype.str} ({dtype.name}), not {known} in this machine's byte order: "
            + _save_again("np.load(path).astype('float32')")
        )
    whole = offset + shape[0] * shape[1] * dtype.itemsize
    if size != whole:
        problem = "is cut off" if size < whole else "goes on after its array"
        raise StoreError(f"{path} {problem}: its header promises {shape[0]} rows of {shape[1]}; extract again")
    return ArrayFile(path, shape[0], shape[1], dtype, offset)


def _save_again(expression: str) -> str:
    return f"save it again with np.save(path, {expression})"
