"""Groups of pairs that are not independent, such as several captions of one image: the unit of splits and statistics."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mmmono.core.errors import ConfigError, StoreError
from mmmono.core.progress import progress_bar
from mmmono.data.pairs import SplitShares
from mmmono.features.rows import Origin, prepare
from mmmono.features.store import FeatureStore

Array = np.ndarray[Any, Any]
GroupNumbers = np.ndarray[Any, np.dtype[np.int64]]  # the group of each pair, numbered from 0

GROUP_COLUMNS = ("group", "key", "image_path")  # the first of these that the metadata has tells the groups
SPLITS = ("train", "select", "val")
COMPARED_ROWS = 4096  # rows whose cosines are computed at a time
STRETCH, STRETCHES = 1024, 64  # rows beside one another, and how many such stretches are looked at for copies


@dataclass(frozen=True)
class Grouping:
    """Which pairs are one group.

    Attributes:
        column: metadata column with the same value for all pairs of a group; None: the source's own groups.
        near_duplicates: cosine between two image embeddings from which on their pairs are one group as well; None: images
            are not compared.

    Raises:
        ConfigError: the cosine is not above 0 and at most 1.
    """

    column: str | None = None
    near_duplicates: float | None = None

    def __post_init__(self) -> None:
        if self.near_duplicates is not None and not 0 < self.near_duplicates <= 1:
            raise ConfigError(
                f"dataset.near_duplicates={self.near_duplicates} is a cosine: give a number above 0 and at most 1, such as "
                "0.97, or null"
            )

    def recipe(self) -> dict[str, Any]:
        """Recipe entries of the settings that differ from the defaults."""
        given = {"group": self.column, "near_duplicates": self.near_duplicates}
        return {key: value for key, value in given.items() if value is not None}

    def codes(self, store: FeatureStore) -> GroupNumbers | None:
        """Number of each pair's group by the metadata alone, in order of first appearance; None if nothing tells it.

        Raises:
            ConfigError: the metadata lacks the chosen column, or it is empty.
            StoreError: the metadata is broken, or it is missing though a column was chosen.
        """
        if self.column is None and not store.has_metadata:
            return None
        names = self.names(store)
        return None if names is None else _numbered(names)

    def names(self, store: FeatureStore) -> np.ndarray[Any, Any] | None:
        """Names of the groups in a store's metadata, see `split_names`; reads their column alone where that is enough."""
        name = self.column or GROUP_COLUMNS[0]
        stored = None if name == "key" else store.stored_column(name)  # keys are made unique among all rows
        complete = stored is not None and not (stored == "").any()
        return stored if complete else self.split_names(store.metadata())

    def split_names(self, metadata: pd.DataFrame) -> np.ndarray[Any, Any] | None:
        """Text of each pair whose hash decides its split, without near-duplicates; None if no column tells it.

        A pair of whose group a store of another program says nothing is a group of its own.

        Raises:
            ConfigError: the metadata lacks the chosen column, or it is empty.
        """
        column = self._column(metadata)
        if column is None:
            return None
        if column not in metadata:
            known = ", ".join(map(str, metadata)) or "none"
            raise ConfigError(f"dataset.group={column} is no column of the metadata: choose one of {known}")
        names = metadata[column].to_numpy()
        if not (empty := names == "").any():
            return names
        if self.column is not None:
            raise ConfigError(f"dataset.group={column} has empty values: give a column that every pair has")
        own = metadata["key"] if "key" in metadata else [f"row-{row}" for row in range(len(names))]
        return np.where(empty, np.asarray(own, dtype=object), names)

    def _column(self, metadata: pd.DataFrame) -> str | None:
        return self.column or next((name for name in GROUP_COLUMNS if name in metadata), None)


def split_rows(
    store: FeatureStore,
    split: str,
    shares: SplitShares,
    grouping: Grouping | None = None,
    codes: GroupNumbers | None = None,
) -> GroupNumbers:
    """Row numbers of a seeded hash split; no group is divided.

    Args:
        store: the store.
        split: `train`, `select` or `val`.
        shares: seed and expected shares of groups.
        grouping: which pairs are one group.
        codes: groups that were found by comparing images, `[pairs]`; None if they were not compared.

    Raises:
        StoreError: the metadata has no column to split by.
    """
    grouping = grouping or Grouping()
    if codes is None:
        of_each = _hashed(_Metadata(store, store.metadata_state), shares, grouping)
    else:
        of_each = _split_of_each(store, shares, grouping, codes)
    return np.flatnonzero(of_each == SPLITS.index(split))


def _split_of_each(store: FeatureStore, shares: SplitShares, grouping: Grouping, codes: GroupNumbers | None) -> Array:
    """Place in SPLITS of each pair's split."""
    names = grouping.names(store)
    if names is None:
        raise StoreError(f"{store.path}: metadata has no key, group or image_path to split by; use dataset.split=all")
    numbers = _numbered(names) if codes is None else join(_numbered(names), codes)
    # The first pair of a group decides for all of it; it is hashed once, which takes longer than all else here.
    places = [shares.place(str(name)) for name in names[np.unique(numbers, return_index=True)[1]]]
    shares = shares.with_groups(places)
    return np.array([SPLITS.index(shares.split_at(place)) for place in places], np.int8)[numbers]


@dataclass(frozen=True)
class _Metadata:
    """A store, equal to others whose metadata are the same files in the same state."""

    store: FeatureStore = field(compare=False)
    state: str


@lru_cache(maxsize=4)
def _hashed(of: _Metadata, shares: SplitShares, grouping: Grouping) -> Array:
    """The same without compared images, found once for all splits, and for all steps of a plan."""
    return _split_of_each(of.store, shares, grouping, None)


def near_duplicates(store: FeatureStore, threshold: float, codes: GroupNumbers, device: str = "cpu") -> GroupNumbers:
    """Join the groups of pairs whose image embeddings have a cosine of at least `threshold`, in chains too.

    Compares every image with every other: time grows with the square of the number of pairs.

    Args:
        store: the store.
        threshold: the cosine.
        codes: number of each pair's group, `[pairs]`.
        device: of the computation.

    Returns:
        Number of each pair's joined group, `[pairs]`, in order of first appearance.
    """
    found: list[np.ndarray[Any, Any]] = []
    starts = range(0, len(store), COMPARED_ROWS)

    def unit(start: int) -> torch.Tensor:
        rows = store.read("image", start, min(start + COMPARED_ROWS, len(store)))
        return prepare(rows, True, device, Origin(store.path, "image", start))

    with progress_bar() as bar, torch.inference_mode():
        task = bar.add_task("near-duplicates", total=len(starts) * (len(starts) + 1) // 2)
        for first in starts:
            left = unit(first)
            for second in range(first, len(store), COMPARED_ROWS):
                alike = left @ unit(second).T >= threshold - 1e-6  # equal images may differ by rounding
                at = alike.nonzero().cpu().numpy() + np.array([first, second])
                found.append(at[at[:, 0] < at[:, 1]])
                bar.advance(task)
    pairs = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    return _numbered(_components(codes[pairs[:, 0]], codes[pairs[:, 1]], int(codes.max()) + 1)[codes])


@dataclass(frozen=True)
class Repeated:
    """Images whose embedding is, to the bit, that of an image of another group.

    Attributes:
        found: their number.
        among: number of images that were looked at.
    """

    found: int
    among: int

    @property
    def share(self) -> float:
        """Their share. Of a sample it is at most that of all on average, since single copies hardly meet in it."""
        return self.found / max(1, self.among)


def repeated_images(store: FeatureStore, codes: GroupNumbers | None, rows: GroupNumbers | None = None) -> Repeated:
    """Count images that a pair of another group has, too; of more than 65,536 pairs a sample is looked at.

    Copies that were encoded anew, or embedded in a batch of another size, need not have the same bits: `near_duplicates`
    finds them.

    Args:
        store: the store.
        codes: number of each pair's group, `[pairs]`; None: each pair is a group of its own.
        rows: those of the pairs that are counted, such as a split; None: all. Copies count wherever they are.
    """
    starts = np.arange(0, len(store), STRETCH)
    if len(starts) > STRETCHES:
        starts = np.sort(np.random.default_rng(0).choice(starts, STRETCHES, replace=False))
    spans = [(int(start), min(int(start) + STRETCH, len(store))) for start in starts]
    seen = np.concatenate([np.arange(*span) for span in spans])
    digests = [
        blake2b(row.tobytes(), digest_size=16).digest() for span in spans for row in store.read("image", *span).numpy()
    ]
    table = pd.DataFrame({"image": pd.factorize(np.array(digests, dtype=object))[0]})
    table["group"] = seen if codes is None else codes[seen]
    repeated = (table.groupby("image")["group"].transform("nunique") > 1).to_numpy()
    counted = np.ones(len(seen), bool) if rows is None else np.isin(seen, rows)
    return Repeated(int((repeated & counted).sum()), int(counted.sum()))


def join(first: GroupNumbers, second: GroupNumbers) -> GroupNumbers:
    """Number the finest groups that divide no group of either grouping, `[pairs]`, in order of first appearance."""
    groups = int(first.max()) + 1
    return _numbered(_components(first, groups + second, groups + int(second.max()) + 1)[first])


def _components(a: GroupNumbers, b: GroupNumbers, count: int) -> GroupNumbers:
    """Connected component of each of `count` nodes, with an edge from a[i] to b[i] for every i."""
    edges = coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def _numbered(values: np.ndarray[Any, Any]) -> GroupNumbers:
    return pd.factorize(values)[0].astype(np.int64)
