"""Expansion of shard patterns into paths and addresses."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from webdataset.shardlists import expand_urls

from mmmono.core.errors import DataError
from mmmono.data.hub import find_files
from mmmono.data.object_store import find_objects
from mmmono.data.shards import identity, is_local, shown

_UNLISTED = ("http://", "https://", "pipe:")


def expand_shards(patterns: str | Sequence[str]) -> list[str]:
    """Return the paths and URLs that shard patterns mean, in order.

    An existing path is taken literally; otherwise brace ranges (`{0000..0004}`), `::` and wildcards are expanded. A
    folder means all its .tar files; one of an object store or of the hub is named with a slash at the end. Hidden files are
    left out unless they are asked for. Addresses of http(s) have no wildcards, because their servers do not list files.

    Raises:
        DataError: a pattern matches no file, a named local shard does not exist, a store cannot be listed, or the patterns
            name one shard twice, whose pairs would be counted twice, and be in several splits.
    """
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for name in [pattern] if _exists(pattern) else expand_urls(pattern):
            matches = _matches(re.sub(r"^file:(//)?", "", name))
            missing = [match for match in matches if is_local(match) and not Path(match).is_file()]
            if missing or not matches:
                where = f" (looked in {Path.cwd()})" if is_local(name) else ""
                raise DataError(
                    f"dataset.shards={shown(pattern)} matches no file{f': {missing[0]} is not there' if missing else ''}"
                    f"{where}: give paths, URLs, or ranges such as 'data/train-{{0000..0004}}.tar'"
                )
            found += matches
    if not found:
        raise DataError("dataset.shards is empty: give paths or URLs of tar shards")
    shards = Counter(str(Path(shard).resolve()) if is_local(shard) else identity(shard) for shard in found)
    if twice := next((shard for shard, count in shards.items() if count > 1), None):
        raise DataError(f"dataset.shards names {shown(twice)} more than once: name each shard once")
    return found


def _matches(name: str) -> list[str]:
    found = _all_matches(name)
    if name.rpartition("/")[2].startswith(".") and not (is_local(name) and Path(name).is_dir()):
        return found
    # Hidden files have to be asked for: macOS leaves `._a.tar` beside `a.tar` on disks of other systems.
    return [shard for shard in found if not PurePosixPath(shard).name.startswith(".")]


def _all_matches(name: str) -> list[str]:
    if name.startswith("hf://"):
        return find_files(name)
    if not is_local(name):
        return [name] if name.startswith(_UNLISTED) else find_objects(name)
    if Path(name).is_dir():
        return sorted(str(file) for file in Path(name).iterdir() if file.suffix == ".tar")
    if not Path(name).exists() and glob.has_magic(name):
        return sorted(glob.glob(_with_literal_folders(name)))
    return [name]


def _with_literal_folders(pattern: str) -> str:
    """Escape wildcards in the leading folders of a pattern that exist under exactly these names."""
    parts = Path(pattern).parts
    known = 0
    while known < len(parts) and Path(*parts[: known + 1]).exists():
        known += 1
    return str(Path(*(glob.escape(part) for part in parts[:known]), *parts[known:]))


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long, or contains NUL
        return False
