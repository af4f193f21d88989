"""Descriptions of what datasets and models download from the Hugging Face Hub, for the plan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmmono.data.webdataset import CC3M_FILES, WebDatasetPairs
from mmmono.features.selection import Split

CC3M_PAIRS = {"train": 2_905_936, "val": 13_443}
CC3M_REPOSITORY = "pixparse/cc3m-wds"


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


def cc3m_download(split: Split, limit: int | None, source: WebDatasetPairs | None, kept: bool) -> Download:
    """Return the shards of CC3M that are fetched for a split.

    Args:
        split: train or val.
        limit: number of pairs, the first ones; None for all.
        source: source of the split, which knows the copies that are there; None if there is no access.
        kept: whether copies of the shards are kept.
    """
    share = min(1.0, (limit or CC3M_PAIRS[split]) / CC3M_PAIRS[split])
    copies: list[Path | None] = []
    if source is not None and source.copies is not None:
        copies = [source.opener.local(shard, whole=False) for shard in source.shards]
    return Download(
        f"shards of CC3M, {split} split" + (f", {100 * share:.2g} %" if share < 1 else ""),
        CC3M_REPOSITORY,
        "dataset",
        (CC3M_FILES[split],),
        share,
        kept=kept,
        copied=sum(copy.stat().st_size for copy in copies if copy is not None),
        complete=bool(copies) and all(copies[: max(1, math.ceil(len(copies) * share))]),
    )
