"""Find the pairs that show one of two concepts, and choose which of them the figures show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmmono.case_studies.concepts import ConceptLabels, ConceptPair, tokens

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Samples:
    """Pairs that show one of the two concepts, as aligned arrays.

    Attributes:
        rows: positions in the split.
        is_a, is_b: whether a pair shows concept a, or concept b.
        confident: whether the label is confident enough for the pair to be a reference.
        captions: captions of the pairs.
    """

    rows: Int[Array, " samples"]
    is_a: Bool[Array, " samples"]
    is_b: Bool[Array, " samples"]
    confident: Bool[Array, " samples"]
    captions: list[str]

    @classmethod
    def of(
        cls, labels: ConceptLabels, rows: Int[Array, " rows"], captions: pd.Series[str], confidence: float
    ) -> Samples:
        """Select the pairs with a label.

        Args:
            labels: labels of the rows.
            rows: positions in the split.
            captions: captions of the split.
            confidence: least confidence of a reference.
        """
        chosen = np.flatnonzero(labels.a | labels.b)
        return cls(
            rows[chosen],
            labels.a[chosen],
            labels.b[chosen],
            labels.confidence[chosen] >= confidence,
            captions.iloc[rows[chosen]].tolist(),
        )

    def twins(self, pair: ConceptPair) -> list[tuple[int, int]]:
        """Match samples of a and b whose captions differ only in the concepts' words; each is used at most once."""
        concept = {*pair.words_a, *pair.words_b}
        rest = [tuple(word for word in tokens(caption) if word not in concept) for caption in self.captions]
        second = {rest[i]: i for i in np.flatnonzero(self.is_b)}
        return [(int(i), int(second.pop(rest[i]))) for i in np.flatnonzero(self.is_a) if rest[i] in second]


def by_share(share: Float[Tensor, " samples"], members: Bool[Array, " samples"]) -> Int[Array, " ordered"]:
    """Sort the members by their share, ascending; those without a share (NaN) are left out."""
    samples = np.flatnonzero(members & ~share.isnan().numpy())
    return samples[np.argsort(share.numpy()[samples], kind="stable")]


def evenly(ordered: Int[Array, " ordered"], count: int) -> Int[Array, " picked"]:
    """Pick up to `count` samples at evenly spaced ranks, including the first and the last."""
    places = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
    return ordered[np.unique(places)]
