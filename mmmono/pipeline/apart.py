"""Checks that a validation split of its own has nothing of the training split: results on it would not be held out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path

from webdataset.shardlists import expand_urls

from mmmono.core.errors import ConfigError, MmmonoError
from mmmono.core.files import user_path
from mmmono.data.shard_patterns import expand_shards
from mmmono.data.shards import copies, identity, is_local, shown

REMEDY = "give others, or leave dataset.{} out: a hash then divides the pairs"


def check_folders_apart(root: str, val_root: str) -> None:
    """Raise ConfigError if one folder is or contains the other."""
    train, val = (user_path(folder).resolve() for folder in (root, val_root))
    if train.is_relative_to(val) or val.is_relative_to(train):
        raise ConfigError(f"dataset.val_root={val_root} has images of dataset.root={root}: {REMEDY.format('val_root')}")


def check_tables_apart(path: str, val_path: str) -> None:
    """Raise ConfigError if both tables are one file."""
    if user_path(path).resolve() == user_path(val_path).resolve():
        raise ConfigError(f"dataset.val_path={val_path} is dataset.path: {REMEDY.format('val_path')}")


def check_rows_apart(rows: str, val_rows: str) -> None:
    """Raise ConfigError if splits of a hub dataset, such as train[:90%]+test, certainly share rows.

    Slices of one split are compared if both count in percent, or both count rows from the first on. Others, such as
    train[:90%] and train[5000:], are when the dataset is opened; see `HuggingFacePairs`.
    """
    for train in map(_slice, rows.split("+")):
        for val in map(_slice, val_rows.split("+")):
            if train.shares_rows_with(val):
                raise ConfigError(
                    f"dataset.val_rows={val_rows} has rows of dataset.rows={rows}: {REMEDY.format('val_rows')}"
                )


@dataclass(frozen=True)
class _Slice:
    """Rows of a split, from `start` until before `end`; `unit` is "%" or "" for rows, None for a whole or unknown slice."""

    split: str
    unit: str | None = None
    start: float = 0.0
    end: float = math.inf
    whole: bool = False

    def shares_rows_with(self, other: _Slice) -> bool:
        if "all" in (self.split, other.split):  # of all splits together
            return True
        if self.split != other.split:
            return False
        if self.whole or other.whole or self == other:
            return True
        return (
            self.unit is not None
            and self.unit == other.unit
            and max(self.start, other.start) < min(self.end, other.end)
        )


def _slice(text: str) -> _Slice:
    """What the library `datasets` takes as a part of a split: `train`, `train[:10%]`, `train[500:1000]`, …"""
    name, opened, inside = text.strip().partition("[")
    if not opened:
        return _Slice(name, whole=True)
    bounds = re.fullmatch(r"(?:(-?\d+)(%?))?:(?:(-?\d+)(%?))?\](?:\(.*\))?", inside.replace(" ", "").replace("_", ""))
    if bounds is None:
        return _Slice(f"{name}[{inside}")
    low, high = (None if number is None else float(number) for number in bounds.group(1, 3))
    units = {unit for number, unit in ((low, bounds[2]), (high, bounds[4])) if number is not None}
    if not units:
        return _Slice(name, whole=True)
    if units == {"%"}:
        start, end = (None if number is None else number % 100 if number < 0 else number for number in (low, high))
        return _Slice(name, "%", start or 0.0, 100.0 if end is None else min(100.0, end))
    if units == {""} and (low or 0) >= 0 and (high or 0) >= 0:
        return _Slice(name, "", low or 0.0, math.inf if high is None else high)
    return _Slice(name, None, low or 0.0, math.inf if high is None else high)


def check_shards_apart(shards: str | Sequence[str], val_shards: str | Sequence[str]) -> None:
    """Raise ConfigError if a shard, or a copy of it, is named by both patterns; missing shards are no error here.

    Remote shards are compared by their addresses, without asking a server what a wildcard or a folder holds.
    """
    train, val = (_local_shards(patterns) for patterns in (shards, val_shards))
    both = [str(shard) for shard in sorted(train & val)]
    both += [
        str(next(s for s in same if s in val))
        for same in copies(sorted(train | val))
        if {*same} & train and {*same} & val
    ]
    addresses, of_val = (_addresses(patterns) for patterns in (shards, val_shards))
    both += _in_common(addresses, of_val)
    if both:
        raise ConfigError(
            f"dataset.val_shards has {both[0]}, a training shard or a copy of one (dataset.shards): "
            f"{REMEDY.format('val_shards')}"
        )


def _addresses(patterns: str | Sequence[str]) -> list[str]:
    """What identifies each remote shard, wildcard or folder of patterns, in order."""
    several = [patterns] if isinstance(patterns, str) else patterns
    return [identity(name) for pattern in several for name in expand_urls(pattern) if not is_local(name)]


def _in_common(train: Sequence[str], val: Sequence[str]) -> list[str]:
    """Addresses of `val` that are in `train`, or name a shard of it, or are one of its. There may be 100,000 in each."""
    named, patterns = set(train), [one for one in dict.fromkeys(train) if _is_pattern(one)]
    return [
        shown(one)
        for one in dict.fromkeys(val)
        if one in named
        or any(_names(pattern, one) for pattern in patterns)
        or (_is_pattern(one) and any(_names(one, other) for other in named))
    ]


def _is_pattern(address: str) -> bool:
    """Whether an address stands for the shards of a folder, or for those that a wildcard fits."""
    if address.startswith(("http://", "https://", "pipe:")) or "**" in address:
        return False
    return address.endswith("/") or has_magic(address)


def _names(pattern: str, address: str) -> bool:
    """Whether an address is one of a pattern's shards."""
    parts, others = f"{pattern}*.tar".split("/") if pattern.endswith("/") else pattern.split("/"), address.split("/")
    return len(parts) == len(others) and all(map(fnmatchcase, others, parts))


def _local_shards(patterns: str | Sequence[str]) -> set[Path]:
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if is_local(pattern):
            with suppress(MmmonoError):  # what is not there is told when it is read
                found |= {Path(shard).resolve() for shard in expand_shards(pattern)}
    return found
