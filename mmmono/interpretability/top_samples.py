"""The samples that activate each feature most, for all features in one pass (Section 2.3, Figures 1 to 3)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class TopSamples:
    """The most activating samples of one modality, for every feature.

    Attributes:
        values: activations, in descending order; 0 where a feature has fewer positive samples than were asked for.
        rows: the samples' positions in the stream; −1 where there is none. Equal activations keep the stream's order.
    """

    values: Float[Tensor, "features m"]
    rows: Int64[Tensor, "features m"]

    @property
    def found(self) -> Int64[Tensor, " features"]:
        """How many of the m places are filled."""
        return (self.rows >= 0).sum(1)

    def distinct(self, m: int, *contents: Sequence[Hashable]) -> TopSamples:
        """The m best that have none of their contents in common, such as captions; of equal ones the best stays.

        Args:
            m: how many to keep.
            contents: each a sequence with an entry for every sample of the stream.
        """
        rows = torch.full((len(self.rows), m), -1)
        values = torch.zeros(len(self.rows), m)
        for feature, candidates in enumerate(self.rows.tolist()):
            seen: list[set[Hashable]] = [set() for _ in contents]
            kept: list[int] = []
            for place, row in enumerate(candidates):
                if row < 0 or len(kept) == m:
                    break
                content = [sequence[row] for sequence in contents]
                if any(entry in known for entry, known in zip(content, seen, strict=True)):
                    continue
                for entry, known in zip(content, seen, strict=True):
                    known.add(entry)
                kept.append(place)
            rows[feature, : len(kept)] = self.rows[feature, kept]
            values[feature, : len(kept)] = self.values[feature, kept]
        return TopSamples(values, rows)


def top_samples(blocks: Iterable[Float[Tensor, "rows features"]], m: int) -> TopSamples:
    """The m samples with the highest positive activation, for every feature at once.

    One pass, and memory of `[features, m]` whatever the length of the stream: rows of a block are only looked at where
    some activation exceeds its feature's m-th best so far.

    Args:
        blocks: activations of consecutive samples of one modality.
        m: samples a feature.

    Raises:
        ValueError: m is not positive, there is no block, or an activation is NaN.
    """
    stream = TopStream(m)
    for block in blocks:
        stream.add(block)
    return stream.result()


class TopStream:
    """Running best m of every feature, for callers that stream more than one thing at a time."""

    def __init__(self, m: int) -> None:
        if m < 1:
            raise ValueError(f"m={m} samples a feature: give at least 1")
        self.m = m
        self._count = 0
        self._values: Tensor | None = None
        self._rows: Tensor

    def add(self, block: Float[Tensor, "rows features"]) -> None:
        """Look at the next rows of the stream."""
        if self._values is None:
            self._values = torch.zeros(block.shape[1], self.m, device=block.device)
            self._rows = torch.full((block.shape[1], self.m), -1, device=block.device)
        threshold = self._values[:, -1]
        peak = block.amax(0)
        if bool(peak.isnan().any()):
            raise ValueError(f"activations are NaN within rows {self._count} to {self._count + len(block) - 1}")
        exceeding = (peak > threshold).nonzero().squeeze(1)
        if len(exceeding):
            columns = block if len(exceeding) == block.shape[1] else block.index_select(1, exceeding)
            self._merge(columns, exceeding, threshold[exceeding])
        self._count += len(block)

    def _merge(self, columns: Tensor, features: Tensor, threshold: Tensor) -> None:
        """Sort what exceeds the threshold in among the best so far; stably, so that of equals the earlier stays first."""
        assert self._values is not None
        row, column = (columns > threshold).nonzero(as_tuple=True)
        order = column.argsort(stable=True)
        row, column = row[order], column[order]
        counts = torch.bincount(column, minlength=len(features))
        place = torch.arange(len(column), device=column.device) - (counts.cumsum(0) - counts)[column]
        new = torch.zeros(len(features), int(counts.max()), device=columns.device)
        rows = torch.full(new.shape, -1, device=columns.device)
        new[column, place] = columns[row, column].float()
        rows[column, place] = row + self._count
        best, order = torch.cat([self._values[features], new], dim=1).sort(dim=1, descending=True, stable=True)
        self._values[features] = best[:, : self.m]
        self._rows[features] = torch.cat([self._rows[features], rows], dim=1).gather(1, order[:, : self.m])

    def result(self) -> TopSamples:
        """The best of everything seen so far. Raises ValueError if that is nothing."""
        if self._values is None:
            raise ValueError("no activations to take the top samples of")
        return TopSamples(self._values.cpu(), self._rows.cpu())
