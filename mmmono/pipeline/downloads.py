"""What datasets and models download from the Hugging Face Hub, as they say it themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Download:
    """Files of a repository that a step needs.

    Attributes:
        what: description.
        repository: id on the hub.
        kind: kind of repository.
        files: patterns of file names; empty for those that libraries load of a model (`mmmono.commands.plan` picks them).
        share: fraction of the bytes that is needed; below 1 if a stream ends early.
        kept: whether the files stay on disk.
        copied: bytes that are already on disk outside the hub's cache.
        complete: whether all files are already on disk outside the hub's cache.
    """

    what: str
    repository: str
    kind: Literal["model", "dataset"] = "model"
    files: tuple[str, ...] = ()
    share: float = 1.0
    kept: bool = True
    copied: int = 0
    complete: bool = False
