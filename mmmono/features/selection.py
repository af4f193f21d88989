"""Views on a store: read the rows of one split like a whole store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.artifacts import Artifact
from mmmono.core.errors import StoreError
from mmmono.data.pairs import in_train_split
from mmmono.features.store import FeatureStore, Modality, PairedBlock

Split = Literal["train", "val", "all"]


class FeatureView:
    """Some rows of a feature store, in ascending order.

    Args:
        store: the store.
        rows: ascending row numbers; None selects all.

    Raises:
        StoreError: `rows` is empty.
    """

    def __init__(self, store: FeatureStore, rows: np.ndarray[Any, Any] | None = None) -> None:
        if rows is not None and len(rows) == 0:
            raise StoreError(f"the split asked for holds no pair of {store.path}: choose another dataset.split")
        self.store = store
        self.rows = rows

    @property
    def dim(self) -> int:
        """Width of the joint embedding space."""
        return self.store.dim

    def __len__(self) -> int:
        return len(self.store) if self.rows is None else len(self.rows)

    def blocks(self, block_size: int = 2048) -> Iterator[PairedBlock]:
        """Stream the view's rows of both modalities; see `FeatureStore.blocks`."""
        return self.store.blocks(block_size, self.rows)

    def read(self, modality: Modality, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Return rows [start, stop) of the view, in the stored type."""
        if self.rows is None:
            return self.store.read(modality, start, stop)
        rows = self.rows[start:stop]
        if not len(rows):
            return self.store.read(modality, 0, 0)
        span = self.store.read(modality, int(rows[0]), int(rows[-1]) + 1)
        return span[torch.from_numpy(rows - rows[0])]

    def gather(self, modality: Modality, positions: np.ndarray[Any, Any]) -> Float[Tensor, "rows dim"]:
        """Return single rows by their positions in the view, in the stored type."""
        return self.store.gather(modality, positions if self.rows is None else self.rows[positions])

    def groups(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the group of each pair as a number from 0 on, in order of first appearance.

        Pairs of one group (captions of one image, variants of one drawing) are not independent: statistics count groups.
        Without a column to group by, each pair is a group of its own.
        """
        frame = self.metadata()
        column = group_column(frame)
        if column is None:
            return np.arange(len(self))
        return pd.factorize(frame[column])[0].astype(np.int64)

    def metadata(self) -> pd.DataFrame:
        """Return the metadata of the view's rows, all values as text."""
        frame = self.store.metadata()
        return frame if self.rows is None else frame.iloc[self.rows].reset_index(drop=True)


@dataclass(frozen=True)
class Features:
    """Features of a split.

    Attributes:
        store: artifact of the feature store.
        view: the rows of the split in the store.
        split: the split.
        recipe: identity of the features, for recipes.
    """

    store: Artifact
    view: FeatureView
    split: Split
    recipe: dict[str, Any]


def group_column(frame: pd.DataFrame) -> str | None:
    """Name of the metadata column with the groups of the pairs; None if there is none."""
    return next((c for c in ("group", "key", "image_path") if c in frame), None)


def split_view(store: FeatureStore, split: Split, seed: int = 0, train_fraction: float = 0.8) -> FeatureView:
    """Return the rows of a seeded hash split; pairs of one group (variants of one image) are in the same split.

    Args:
        store: the store.
        split: `train`, `val` or `all`.
        seed: of the hash.
        train_fraction: expected share of groups in `train`.

    Raises:
        StoreError: the split is empty, or the metadata has no column to split by.
    """
    if split == "all":
        return FeatureView(store)
    frame = store.metadata()
    column = group_column(frame)
    if column is None:
        raise StoreError(f"{store.path}: metadata has no key, group or image_path to split by; use dataset.split=all")
    groups = frame[column]
    train = {group: in_train_split(str(group), seed, train_fraction) for group in groups.unique()}
    chosen = groups.map(train).to_numpy(dtype=bool)
    return FeatureView(store, np.flatnonzero(chosen if split == "train" else ~chosen))
