"""Errors that a user can fix: each message names the thing, its value and the remedy."""

from __future__ import annotations


class MmmonoError(Exception):
    """Base of every error raised on purpose; entrypoints print it as one line and exit with status 1."""


class ConfigError(MmmonoError):
    """A setting has a value that cannot work."""


class DataError(MmmonoError):
    """Images, captions or shards are missing, empty or broken."""


class BrokenPartError(DataError):
    """A part of a dataset, such as a tar shard, cannot be read to its end.

    Args:
        name: the part's name, as the user gave it.
        reason: predicate that completes the sentence after the name, such as `is empty`.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


class ModelError(MmmonoError):
    """A model or checkpoint cannot be loaded."""


class StoreError(MmmonoError):
    """A feature store is missing, incomplete or belongs to something else."""


class DictionaryError(MmmonoError):
    """A trained dictionary is missing, broken or does not fit the features."""


class ProcessError(MmmonoError):
    """One of several cooperating processes failed, died or never joined."""


class MissingArtifactError(MmmonoError):
    """A required artifact is missing, and this command must not build it."""


class NonFiniteError(MmmonoError, ValueError):
    """An activation or embedding is NaN or infinite, which a metric would silently hide."""
