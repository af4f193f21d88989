"""Checks that a validation split of its own has nothing of the training split: results on it would not be held out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mmmono.core.errors import ConfigError, MmmonoError
from mmmono.core.files import user_path
from mmmono.data.shard_patterns import expand_shards
from mmmono.data.shards import is_local

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
    """Raise ConfigError if both are one split of a hub dataset, or one is a slice of the other, as train[:10%] of train."""
    train, val = rows.partition("["), val_rows.partition("[")
    if rows == val_rows or (train[0] == val[0] and not (train[1] and val[1])):
        raise ConfigError(f"dataset.val_rows={val_rows} has rows of dataset.rows={rows}: {REMEDY.format('val_rows')}")


def check_shards_apart(shards: str | Sequence[str], val_shards: str | Sequence[str]) -> None:
    """Raise ConfigError if a shard on this machine is named by both patterns; shards that are missing are no error here."""
    train, val = (_local_shards(patterns) for patterns in (shards, val_shards))
    if both := sorted(train & val):
        raise ConfigError(
            f"dataset.val_shards has {both[0]}, a training shard (dataset.shards): {REMEDY.format('val_shards')}"
        )


def _local_shards(patterns: str | Sequence[str]) -> set[Path]:
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if is_local(pattern):
            with suppress(MmmonoError):  # what is not there is told when it is read
                found |= {Path(shard).resolve() for shard in expand_shards(pattern)}
    return found
