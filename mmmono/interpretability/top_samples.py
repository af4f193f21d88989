"""The samples that activate each feature most, for all features in one pass (Section 2.3, Figures 1 to 3)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.finite import check_finite, is_finite, single
from mmmono.core.parts import in_parts, num_parts
from mmmono.features import Rows, StoredRows

CHUNK_ROWS = 256  # rows looked at together: their activations stay in a core's second-level cache
MAX_PENDING = 4  # columns a feature that are set aside at most before they are sorted in


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

    def first(self, m: int) -> TopSamples:
        """The m best of them."""
        return TopSamples(self.values[:, :m], self.rows[:, :m])

    def distinct(self, m: int, *contents: Sequence[Hashable]) -> TopSamples:
        """The m best that have none of their contents in common, such as captions; of equal ones the best stays.

        Args:
            m: how many to keep.
            contents: each a sequence with an entry for every sample of the stream.
        """
        rows = torch.full((len(self.rows), m), -1)
        values = self.values.new_zeros(len(self.rows), m)
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


def top_samples(blocks: Iterable[Rows], m: int) -> TopSamples:
    """The m samples with the highest positive activation, for every feature at once.

    One pass, and memory of `[features, m]` whatever the length of the stream: rows of a block are only looked at where
    some activation exceeds its feature's m-th best so far. Rows as they are stored go through one compiled loop.

    Args:
        blocks: activations of consecutive samples of one modality.
        m: samples a feature.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: m is not positive, or there is no block.
    """
    stream = TopStream(m)
    for block in blocks:
        stream.add(block)
    return stream.result()


class TopStream:
    """Running best m of every feature, for callers that stream more than one thing at a time.

    Of tensors, columns in which some activation exceeds its feature's m-th best so far are set aside, and sorted in by
    and by; what exceeds it in rows as they are stored is sorted in at once, by every thread among its own.
    """

    def __init__(self, m: int) -> None:
        if m < 1:
            raise ValueError(f"m={m} samples a feature: give at least 1")
        self.m = m
        self._count = 0
        self._values: Tensor | None = None
        self._rows: Tensor
        self._of_threads: tuple[Tensor, Tensor] | None = None
        self._pending: list[_Pending] = []
        self._pending_columns = 0

    def add(self, block: Rows) -> None:
        """Look at the next rows of the stream. Raises NonFiniteError if an activation is NaN or infinite."""
        if self._values is None:
            features, device = block.shape[1], "cpu" if isinstance(block, StoredRows) else block.device
            dtype = torch.float32 if isinstance(block, StoredRows) else single(block[:0]).dtype
            self._values = torch.zeros(features, self.m, dtype=dtype, device=device)
            self._rows = torch.full((features, self.m), -1, device=device)
        if isinstance(block, StoredRows):
            self._add_stored(block)
        else:
            self._add_tensor(block.detach(), self._values)

    def _add_stored(self, block: StoredRows) -> None:
        from mmmono.core.kernels import keep_best

        if self._of_threads is None:
            shape = num_parts(), block.shape[1], self.m
            self._of_threads = torch.zeros(shape), torch.full(shape, -1)
        numbers, start = block.numbers(), self._count
        values, rows = (best.numpy() for best in self._of_threads)

        def work(part: int, first: int, end: int) -> tuple[float, float]:
            lengths: tuple[float, float] = keep_best(
                numbers[first:end], block.normalize, start + first, values[part], rows[part]
            )
            return lengths

        block.check(in_parts(work, len(block), len(values)))
        self._count += len(block)

    def _add_tensor(self, block: Tensor, values: Tensor) -> None:
        for chunk in block.split(CHUNK_ROWS):
            low, peak = chunk.aminmax(dim=0)
            if not is_finite(low.amin(), peak.amax()):
                check_finite(chunk, "sample", self._count)
            peak = peak.to(values.dtype)
            exceeding = (peak > values[:, -1]).nonzero().squeeze(1)
            if exceeding.shape[0]:
                columns = chunk.index_select(1, exceeding).to(values.dtype)
                if chunk.shape[0] < CHUNK_ROWS:
                    columns = F.pad(columns, (0, 0, 0, CHUNK_ROWS - chunk.shape[0]))
                self._pending.append(_Pending(exceeding, columns, self._count))
                self._pending_columns += exceeding.shape[0]
            self._count += chunk.shape[0]
            if self._pending_columns > MAX_PENDING * len(values):
                self._merge()

    def _merge(self) -> None:
        """Sort in what was set aside; stably, so that of equals the earlier stays first."""
        assert self._values is not None
        pending, self._pending, self._pending_columns = self._pending, [], 0
        if not pending:
            return
        features = torch.cat([p.features for p in pending])
        columns = torch.cat([p.columns for p in pending], dim=1)
        starts = torch.cat([p.features.new_full((len(p.features),), p.start) for p in pending])
        row, column = (columns > self._values[features, -1]).nonzero(as_tuple=True)
        feature, position = features[column], starts[column] + row
        order = (feature * self._count + position).argsort()
        feature, position, value = feature[order], position[order], columns[row, column][order]
        counts = torch.bincount(feature, minlength=len(self._values))
        place = torch.arange(len(feature), device=feature.device) - (counts.cumsum(0) - counts)[feature]
        values = self._values.new_zeros(len(self._values), int(counts.max()))
        rows = torch.full_like(values, -1, dtype=torch.int64)
        values[feature, place], rows[feature, place] = value, position
        best, order = torch.cat([self._values, values], dim=1).sort(dim=1, descending=True, stable=True)
        self._values = best[:, : self.m].contiguous()
        self._rows = torch.cat([self._rows, rows], dim=1).gather(1, order[:, : self.m])

    def result(self) -> TopSamples:
        """The best of everything seen so far. Raises ValueError if that is nothing."""
        if self._values is None:
            raise ValueError("no activations to take the top samples of")
        self._merge()
        if self._of_threads is None:
            return TopSamples(self._values.cpu(), self._rows.cpu())
        values, rows = (
            torch.cat([mine, *others], dim=1)
            for mine, others in zip((self._values, self._rows), self._of_threads, strict=True)
        )
        rows, order = rows.sort(dim=1)
        values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
        return TopSamples(values[:, : self.m], rows.gather(1, order)[:, : self.m])


class _Pending(NamedTuple):
    """Columns of a chunk that may hold new best samples."""

    features: Int64[Tensor, " columns"]
    columns: Float[Tensor, "rows columns"]
    start: int
