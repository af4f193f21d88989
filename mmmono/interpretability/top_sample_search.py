"""Search for top samples that differ from one another: by caption, and by group such as an emoji's skin tones."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Self

import pandas as pd
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from mmmono.core.ranges import check_whole
from mmmono.core.streams import Stream, require_equal
from mmmono.features import MODALITIES, ActivationBlock, Modality
from mmmono.interpretability.sides import SIDES, BothSidesStream, Side, negative_dominates
from mmmono.interpretability.top_samples import TopSamples, TopStream

MAX_REPEATS = 16  # to deduplicate, the first pass keeps at most MAX_REPEATS * m candidates per feature
DEEPER = 4  # each further pass looks that many times deeper
MOST_CANDIDATES = 1 << 26  # candidates in memory in a further pass


class TopSampleSearch(Stream[[ActivationBlock], dict[Modality, TopSamples]]):
    """Running search for the m most activating samples of every feature, by modality, in one pass over the pairs.

    Args:
        m: number of samples per feature and modality.
        deduplicate: keep one sample per group, such as an emoji's skin tones, and among texts one per caption.
        metadata: metadata of all pairs that will be added or merged, in their order.
        side: `positive`, the samples with the largest activations, or `dominant`, the same on the side of 0 with the
            larger energy Σ z² over images and texts together (`negative_dominates`): the side that R(d) of Eq. 1, which is
            of |z|, mostly speaks of. For non-negative features the two are the same.

    Attributes:
        cut: number of features, by modality, of which `deepened` could not find all samples for want of memory.

    Raises:
        ValueError: `side` is unknown, or m is not positive.
    """

    def __init__(self, m: int, deduplicate: bool, metadata: pd.DataFrame, side: Side = "dominant") -> None:
        if side not in SIDES:
            raise ValueError(f"side={side!r} is neither 'dominant' nor 'positive'")
        check_whole("m", m)
        self._m, self._pairs, self.side = m, len(metadata), side
        self.cut: dict[Modality, int] = dict.fromkeys(MODALITIES, 0)
        self._contents: dict[Modality, list[Sequence[Hashable]]] = {"image": [], "text": []}
        if deduplicate and "group" in metadata:
            self._contents = {modality: [metadata["group"].tolist()] for modality in MODALITIES}
        if deduplicate and "caption" in metadata:
            self._contents["text"].append(metadata["caption"].str.casefold().tolist())
        # If the most frequent content occurs r times, r * m candidates suffice to find m different ones.
        self._repeats = {
            modality: max((Counter(entries).most_common(1)[0][1] for entries in several), default=1)
            for modality, several in self._contents.items()
        }
        self._depth = {
            modality: min(m * min(self._repeats[modality], MAX_REPEATS), len(metadata)) for modality in MODALITIES
        }
        self._positive = {modality: TopStream(self._depth[modality]) for modality in MODALITIES}
        self._both = {modality: BothSidesStream(self._depth[modality]) for modality in MODALITIES}

    def add(self, block: ActivationBlock) -> None:
        """Add the next block of pairs."""
        for modality in MODALITIES:
            (self._positive if self.side == "positive" else self._both)[modality].add(block.rows(modality))

    def merge(self, other: Self) -> None:
        """Add the pairs of another search with the same metadata; its first pair follows this search's last one."""
        require_equal("m", self._m, other._m)
        require_equal("side", self.side, other.side)
        for modality in MODALITIES:
            self._positive[modality].merge(other._positive[modality])
            self._both[modality].merge(other._both[modality])

    def fresh(self, number: int) -> Self:
        """Return an empty search of a range; without the metadata, it can be merged into this one and asked for nothing."""
        other = copy.copy(self)
        other._contents = {"image": [], "text": []}
        other._positive, other._both = copy.deepcopy((self._positive, self._both))
        return other

    def result(self) -> dict[Modality, TopSamples]:
        """Return the top samples of all pairs added, deduplicated if requested.

        With captions or groups that occur more than MAX_REPEATS times, `deepened` may find more of them.
        """
        candidates, _ = self._candidates()
        return {modality: self._distinct(modality, top) for modality, top in candidates.items()}

    def deepened(self, walked: Callable[[SearchOfSome], TopSamples]) -> dict[Modality, TopSamples]:
        """Return the top samples, looking deeper for features whose candidates repeat one another too often.

        Args:
            walked: lets a stream see the same pairs once more and returns its result; called only if such features exist.
        """
        candidates, negative = self._candidates()
        found = {}
        for modality, top in candidates.items():
            found[modality] = self._distinct(modality, top)
            depth, cut = self._depth[modality], self._cut(found[modality], top)
            while len(cut) and (depth := min(DEEPER * depth, self._pairs)) * len(cut) <= MOST_CANDIDATES:
                deeper = walked(SearchOfSome(modality, cut, negative, depth))
                better = self._distinct(modality, deeper)
                found[modality].values[cut], found[modality].rows[cut] = better.values, better.rows
                cut = cut[self._cut(better, deeper)]
            self.cut[modality] = len(cut)
        return found

    def negative(self) -> Bool[Tensor, " features"]:
        """Features whose samples are those of the negative side of 0; see `negative_dominates`."""
        return self._candidates()[1]

    def _candidates(self) -> tuple[dict[Modality, TopSamples], Bool[Tensor, " features"]]:
        """Top samples before they are deduplicated, and the features whose negative side is taken."""
        if self.side == "positive":
            top = {modality: stream.result() for modality, stream in self._positive.items()}
            return top, torch.zeros(len(top["image"].rows), dtype=torch.bool)
        both = {modality: stream.result() for modality, stream in self._both.items()}
        negative = negative_dominates(*both.values())
        return {modality: sides.of(negative) for modality, sides in both.items()}, negative

    def _distinct(self, modality: Modality, top: TopSamples) -> TopSamples:
        return top.distinct(self._m, *self._contents[modality]) if self._repeats[modality] > 1 else top

    def _cut(self, found: TopSamples, candidates: TopSamples) -> Int64[Tensor, " cut"]:
        """Features with fewer than m samples although not all candidates were looked at."""
        full = (candidates.rows[:, -1] >= 0) & (candidates.rows.shape[1] < self._pairs)
        return (full & (found.found < self._m)).nonzero().squeeze(1)


class SearchOfSome(Stream[[ActivationBlock], TopSamples]):
    """Running search for the top samples of some features of one modality, each on its own side of 0.

    Args:
        modality: whose samples.
        features: the features.
        negative: of all features, those whose negative side is taken.
        depth: number of samples per feature.
    """

    def __init__(
        self,
        modality: Modality,
        features: Int64[Tensor, " some"],
        negative: Bool[Tensor, " features"],
        depth: int,
    ) -> None:
        self._modality, self._features = modality, features
        self._signs = torch.where(negative[features], -1.0, 1.0)
        self._top = TopStream(depth)

    def add(self, block: ActivationBlock) -> None:
        """Add the next block of pairs."""
        rows = block.image if self._modality == "image" else block.text
        self._top.add(rows[:, self._features.to(rows.device)] * self._signs.to(rows.device, rows.dtype))

    def merge(self, other: Self) -> None:
        """Add the pairs of another search for the same features; its first pair follows this search's last one."""
        self._top.merge(other._top)

    def result(self) -> TopSamples:
        """Return the top samples of all pairs added."""
        top = self._top.result()
        return TopSamples(top.values * self._signs[:, None].to(top.values.dtype), top.rows)
