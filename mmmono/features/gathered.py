"""Pairs of a view in another order: group by group, images with the texts of other pairs, or a sample of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mmmono.features.grouping import Array, GroupNumbers
from mmmono.features.rows import Origin
from mmmono.features.selection import FeatureView
from mmmono.features.store import MODALITIES, WHOLE, Modality, PairedBlock

RUN = 256  # consecutive pairs


class GatheredView(FeatureView):
    """A view's pairs in a given order. Its rows are read one by one, and memory does not grow with their number.

    Args:
        view: the pairs.
        order: position in the view of each pair, in the order in which they are read.
        texts: positions of the texts that stand in for the pairs' own; None for their own.
    """

    def __init__(self, view: FeatureView, order: Array, texts: Array | None = None) -> None:
        images, of_texts = (
            view.rows_of(side, order if texts is None or side == "image" else texts) for side in MODALITIES
        )
        super().__init__(view.store, None, view._grouping, view._codes)
        self.rows = images  # in their order: they need not ascend
        self._sides: dict[Modality, Array] = {"image": images, "text": of_texts}

    @property
    def extent(self) -> int:
        """Number of places that ranges are cut from: of pairs, in their order."""
        return len(self)

    def within(self, span: slice) -> int:
        """Return how many pairs a range has."""
        return len(range(*span.indices(len(self))))

    def blocks(self, block_size: int = 2048, span: slice = WHOLE) -> Iterator[PairedBlock]:
        """Stream the pairs of a range in their order."""
        first, end, _ = span.indices(len(self))
        for start in range(first, end, block_size):
            stop = min(start + block_size, end)
            image, text = (self.read(side, start, stop) for side in MODALITIES)
            yield PairedBlock(start, image, text)

    def counted_from(self, first: int) -> str:
        """Say how rows are counted in an error about a range; see `FeatureView.counted_from`."""
        return f"rows are counted in another order than the store's, from pair {first} of it on"

    def read(self, modality: Modality, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Return pairs [start, stop) of one modality in their order, in the stored type."""
        return self.store.gather(modality, self._sides[modality][start:stop])

    def expect(self, start: int, stop: int) -> None:
        """Nothing: single rows are read when they are needed."""

    def rows_of(self, modality: Modality, positions: Array) -> Array:
        """Return the rows of the store that pairs have on a side."""
        return self._sides[modality][positions]

    def origin(self, modality: Modality, positions: int | Array = 0) -> Origin:
        """Say where rows come from, for errors; see `FeatureView.origin`."""
        return Origin(self.store.path, modality, positions, self._sides[modality])


def sampled_runs(view: FeatureView, pairs: int | None) -> FeatureView:
    """Return a view, or of one with more pairs about so many: runs of consecutive ones, always the same, in their order.

    A run is read as fast as so many rows one after the other. Runs come from all over the view, each as likely as any other,
    so that means over them are not biased where a store is sorted, only less exact than means over as many single pairs.

    Args:
        view: the pairs.
        pairs: how many; None for all.
    """
    if pairs is None or len(view) <= pairs:
        return view
    length = min(RUN, pairs)
    starts = np.arange(0, len(view), length)
    chosen = np.sort(np.random.default_rng(0).permutation(starts)[: pairs // length])
    order = (chosen[:, None] + np.arange(length)).ravel()
    return GatheredView(view, order[order < len(view)])


def most_open(groups: GroupNumbers) -> int:
    """Largest number of groups of which some pairs have been read and others have not, if pairs are read in order.

    Args:
        groups: group of each pair; pairs of none have −1.
    """
    codes = groups[groups >= 0]
    if not len(codes):
        return 0
    places = np.arange(len(codes))
    last = np.full(int(codes.max()) + 1, -1)
    first = last.copy()
    last[codes], first[codes[::-1]] = places, places[::-1]  # of equal indices the one that comes last is kept
    there = first >= 0
    moves = np.bincount(first[there], minlength=len(codes)) - np.bincount(last[there], minlength=len(codes))
    return int(moves.cumsum().max())
