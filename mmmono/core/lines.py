"""Append-only JSON lines files: readers see only complete lines, whenever the writing process dies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from io import RawIOBase
from pathlib import Path
from typing import Any

from mmmono.core.locks import locked

BLOCK = 1 << 12  # bytes that are read at a time, from the end of a file, to find where its last line ends


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON lines file; empty if there is no file.

    An incomplete last line is ignored, and so is one that holds no whole object, as after a power failure.
    """
    try:
        whole = path.read_bytes().rpartition(b"\n")[0]
    except FileNotFoundError:
        return []
    return [row for line in whole.split(b"\n") if isinstance(row := _read(line), dict)]


def _read(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def append_shared_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append objects to a file that several processes append to.

    They take turns, by a lock that stays beside the file: what looks incomplete may be a line that another process writes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(Path(f"{path}.lock")):
        append_lines(path, rows)


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append objects, replacing an incomplete last line, while no other process writes to the file."""
    new = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        if (complete := _complete(file)) < file.seek(0, os.SEEK_END):
            file.truncate(complete)
        while new:  # a full disk takes a part of it, and refuses the rest
            new = new[file.write(new) :]
        os.fsync(file.fileno())


def _complete(file: RawIOBase) -> int:
    """Bytes of a file's complete lines."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK)
        file.seek(start)
        newline = (file.read(end - start) or b"").rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
