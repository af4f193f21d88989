"""Search for top samples that differ from one another: by caption, and by group such as an emoji's skin tones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Self

import pandas as pd

from mmmono.core.streams import Stream, require_equal
from mmmono.features import MODALITIES, ActivationBlock, Modality
from mmmono.interpretability.top_samples import TopSamples, TopStream

MAX_REPEATS = 16  # to deduplicate, at most MAX_REPEATS * m candidates are kept per feature


class TopSampleSearch(Stream[[ActivationBlock], dict[Modality, TopSamples]]):
    """Running search for the m most activating samples of every feature, by modality, in one pass over the pairs.

    Args:
        m: number of samples per feature and modality.
        deduplicate: keep one sample per group, such as an emoji's skin tones, and among texts one per caption.
        metadata: metadata of all pairs that will be added or merged, in their order.
    """

    def __init__(self, m: int, deduplicate: bool, metadata: pd.DataFrame) -> None:
        self._m = m
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
        self._streams = {
            modality: TopStream(min(m * min(self._repeats[modality], MAX_REPEATS), len(metadata)))
            for modality in MODALITIES
        }

    def add(self, block: ActivationBlock) -> None:
        """Add the next block of pairs."""
        for modality in MODALITIES:
            self._streams[modality].add(block.rows(modality))

    def merge(self, other: Self) -> None:
        """Add the pairs of another search with the same metadata; its first pair follows this search's last one."""
        require_equal("m", self._m, other._m)
        for modality in MODALITIES:
            self._streams[modality].merge(other._streams[modality])

    def result(self) -> dict[Modality, TopSamples]:
        """Return the top samples of all pairs added, deduplicated if requested."""
        found = {modality: stream.result() for modality, stream in self._streams.items()}
        return {
            modality: top.distinct(self._m, *self._contents[modality]) if self._repeats[modality] > 1 else top
            for modality, top in found.items()
        }
