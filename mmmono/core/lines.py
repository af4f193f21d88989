"""Append-only JSON lines files: readers see only complete lines, whenever the writing process dies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON lines file; empty if there is no file. An incomplete last line is ignored."""
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append objects, replacing an incomplete last line. Several processes may append to one file.

    A whole file is never cut, and what is appended is one write: lines of other processes stay, wherever they come between.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        file.seek(0)
        there = file.readall()
        if there and not there.endswith(b"\n"):
            file.truncate(there.rfind(b"\n") + 1)
        left = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
        while left:  # a full disk takes a part of it, and refuses the rest
            left = left[file.write(left) :]
        os.fsync(file.fileno())
