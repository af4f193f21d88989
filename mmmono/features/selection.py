"""Views on a store: read the rows of one split like a whole store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.artifacts import Artifact
from mmmono.core.errors import StoreError
from mmmono.data.pairs import SplitShares
from mmmono.features.grouping import Grouping, GroupNumbers, split_rows
from mmmono.features.rows import Origin
from mmmono.features.store import WHOLE, FeatureStore, Modality, PairedBlock, row_numbers

Split = Literal["train", "select", "val", "all"]
CAPTION_WANTED = "add a column caption to the metadata (of dataset=store with two files: dataset.metadata=)"


class FeatureView:
    """Some rows of a feature store, in ascending order.

    Args:
        store: the store.
        rows: ascending row numbers, each once; None selects all.
        grouping: which pairs are one group.
        codes: number of the group of each pair of the store if images were compared; see `near_duplicates`.

    Raises:
        StoreError: `rows` is empty, or the store has not all of them.
        ValueError: rows are no numbers, such as a mask, or do not ascend.
    """

    def __init__(
        self,
        store: FeatureStore,
        rows: np.ndarray[Any, Any] | None = None,
        grouping: Grouping | None = None,
        codes: GroupNumbers | None = None,
    ) -> None:
        if rows is not None:
            rows = row_numbers(rows)
            if not len(rows):
                raise StoreError(
                    f"the split asked for holds no pair of {store.path}: there are too few groups of pairs for it; choose "
                    "another dataset.split, such as all, or change the shares of the splits"
                )
            if bool((rows[1:] <= rows[:-1]).any()):
                raise ValueError("rows must ascend, each once: give numpy.unique(rows)")
            store.require(int(rows[0]), int(rows[-1]))
        self.store = store
        self.rows = rows
        self._grouping = grouping or Grouping()
        self._codes = codes
        self._groups: GroupNumbers | None = None

    @property
    def dim(self) -> int:
        """Width of the joint embedding space."""
        return self.store.dim

    def __len__(self) -> int:
        return len(self.store) if self.rows is None else len(self.rows)

    @property
    def extent(self) -> int:
        """Number of places that ranges are cut from: of rows of the store."""
        return len(self.store)

    def blocks(self, block_size: int = 2048, span: slice = WHOLE) -> Iterator[PairedBlock]:
        """Stream the view's rows of both modalities; see `FeatureStore.blocks`. `span` are rows of the store."""
        return self.store.blocks(block_size, self.rows, span)

    def within(self, span: slice) -> int:
        """Return how many rows of the view lie in a range of the store's rows."""
        first, end, _ = span.indices(len(self.store))
        if self.rows is None:
            return end - first
        low, high = np.searchsorted(self.rows, [first, end])
        return int(high - low)

    def counted_from(self, first: int) -> str:
        """Say how rows are counted in an error about a range that begins with pair `first`; "" if from the first one on."""
        return f"rows are counted from pair {first} on" if first else ""

    def read(self, modality: Modality, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Return rows [start, stop) of the view, in the stored type."""
        if self.rows is None:
            return self.store.read(modality, start, stop)
        rows = self.rows[start:stop]
        if not len(rows):
            return self.store.read(modality, 0, 0)
        span = self.store.read(modality, int(rows[0]), int(rows[-1]) + 1)
        return span[torch.from_numpy(rows - rows[0])]

    def expect(self, start: int, stop: int) -> None:
        """Prepare for reading rows [start, stop) of the view soon; see `FeatureStore.expect`."""
        if self.rows is None:
            self.store.expect(start, stop)
        elif stop > start:
            self.store.expect(int(self.rows[start]), int(self.rows[stop - 1]) + 1)

    def rows_of(self, modality: Modality, positions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the rows of the store that pairs have on a side, by their positions in the view."""
        return positions if self.rows is None else self.rows[positions]

    def gather(self, modality: Modality, positions: np.ndarray[Any, Any]) -> Float[Tensor, "rows dim"]:
        """Return single rows by their positions in the view, in the stored type."""
        return self.store.gather(modality, self.rows_of(modality, positions))

    def origin(self, modality: Modality, positions: int | np.ndarray[Any, Any] = 0) -> Origin:
        """Say where rows of the view come from, for errors; of consecutive rows, `positions` is that of the first."""
        return Origin(self.store.path, modality, positions, self.rows)

    def groups(self) -> GroupNumbers:
        """Return the group of each pair as a number from 0 on, in order of first appearance; they are found once.

        Pairs of one group (captions of one image, variants of one drawing) are not independent: statistics count groups.
        Without a column to group by, each pair is a group of its own.

        Raises:
            ConfigError: the metadata lacks the column that `grouping` names.
        """
        if self._groups is None:
            self._groups = self._found_groups()
        return self._groups.copy()

    def _found_groups(self) -> GroupNumbers:
        codes = self._grouping.codes(self.store) if self._codes is None else self._codes
        if codes is None:
            return np.arange(len(self))
        return pd.factorize(codes if self.rows is None else codes[self.rows])[0].astype(np.int64)

    def metadata(self) -> pd.DataFrame:
        """Return the metadata of the view's rows, all values as text."""
        frame = self.store.metadata()
        return frame if self.rows is None else frame.iloc[self.rows].reset_index(drop=True)

    def captions(self) -> pd.Series:
        """Return the captions of the view's rows, read without the other columns where the store calls them so.

        Raises:
            StoreError: the metadata is missing or has none.
        """
        if (captions := self.column("caption")) is None:
            raise StoreError(f"{self.store.path} has no captions: {CAPTION_WANTED}")
        return captions

    def column(self, name: str) -> pd.Series | None:
        """Return one column of the metadata of the view's rows, without the others where each file has it; None if none.

        Raises:
            StoreError: the metadata is missing.
        """
        stored = None if name == "key" else self.store.stored_column(name)  # keys are made unique among all rows
        if stored is not None:
            return pd.Series(stored if self.rows is None else stored[self.rows], name=name, dtype=object)
        return self.metadata().get(name)


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


def split_view(
    store: FeatureStore,
    split: Split,
    shares: SplitShares | None = None,
    grouping: Grouping | None = None,
    codes: GroupNumbers | None = None,
) -> FeatureView:
    """Return the rows of a seeded hash split; a group, such as all captions of an image, is never divided.

    Args:
        store: the store.
        split: `train`, `select`, `val` or `all`.
        shares: seed and expected shares of groups.
        grouping: which pairs are one group.
        codes: number of each pair's group if images were compared; see `near_duplicates`.

    Raises:
        StoreError: the split is empty, or the metadata has no column to split by.
        ValueError: there is no such split.
    """
    if split not in get_args(Split):
        raise ValueError(f"split={split} is none of {', '.join(get_args(Split))}")
    rows = None if split == "all" else split_rows(store, split, shares or SplitShares(), grouping, codes)
    return FeatureView(store, rows, grouping, codes)
