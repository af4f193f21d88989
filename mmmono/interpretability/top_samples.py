"""Find the samples that activate each feature most, for all features in one pass (Section 2.3, Figures 1 to 3)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.finite import check_finite, check_tensor, is_finite, single
from mmmono.core.parts import in_parts, num_parts
from mmmono.core.ranges import check_whole
from mmmono.core.streams import Stream, require_equal
from mmmono.features import KernelRows, Rows

Array = np.ndarray[Any, Any]

CHUNK_ROWS = 256  # rows processed at a time: their activations fit into a core's L2 cache
MAX_PENDING = 4  # mean number of pending columns per feature at which they are looked through


@dataclass(frozen=True)
class TopSamples:
    """The m most activating samples of every feature on one modality, all on one side of 0.

    Attributes:
        values: activations, largest magnitude first, padded with 0 if fewer than m samples lie on that side. All are
            positive, or all negative where the negative side of a feature was asked for (see `TopSampleSearch`).
        rows: positions of the samples in the stream, padded with −1. Equal activations are in stream order.
    """

    values: Float[Tensor, "features m"]
    rows: Int64[Tensor, "features m"]

    @property
    def found(self) -> Int64[Tensor, " features"]:
        """Number of samples found for each feature, at most m."""
        return (self.rows >= 0).sum(1)

    @property
    def negative(self) -> Bool[Tensor, " features"]:
        """Whether the samples are those of the feature's negative side."""
        return self.values[:, 0] < 0

    def first(self, m: int) -> TopSamples:
        """Return only the first m samples of each feature."""
        check_whole("m", m)
        return TopSamples(self.values[:, :m], self.rows[:, :m])

    def distinct(self, m: int, *contents: Sequence[Hashable]) -> TopSamples:
        """Return the first m samples, skipping those that share a content, such as the caption, with a kept one.

        Args:
            m: number of samples to keep.
            *contents: each a sequence with one entry per sample of the stream, for example the captions.
        """
        check_whole("m", m)
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
    """Find the m samples with the highest positive activation for every feature.

    Takes one pass and memory proportional to `[features, m]`, independent of the length of the stream. `KernelRows` are
    processed by a compiled loop.

    Args:
        blocks: activations of consecutive samples of one modality.
        m: samples per feature.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        StoreError: a stored embedding is NaN or infinite, or zero although it is to be normalized.
        ValueError: m is not positive, there is no block, or blocks are not [samples, features] of the same features.
    """
    stream = TopStream(m)
    for block in blocks:
        stream.add(block)
    return stream.result()


class TopStream(Stream[[Rows], TopSamples]):
    """Running top m samples of every feature, for callers that compute several things in one pass; see `top_samples`.

    Args:
        m: samples per feature.

    Raises:
        ValueError: m is not positive.

    For tensors, the columns (features) of a chunk in which some activation exceeds the m-th best so far are kept as
    pending and looked through later, several chunks at a time. For `KernelRows`, each thread updates its own top m at once.
    """

    def __init__(self, m: int) -> None:
        check_whole("m", m)
        self.m = m
        self._count = 0
        self._values: Tensor | None = None
        self._rows: Tensor
        self._of_threads: tuple[Tensor, Tensor] | None = None
        self._pending: list[_Pending] = []
        self._pending_columns = 0

    def add(self, block: Rows) -> None:
        """Add the next rows of the stream. Raises NonFiniteError or StoreError, see `top_samples`."""
        if isinstance(block, KernelRows):
            self._add_compiled(block)
        else:
            check_tensor(block, "sample")
            if block.ndim != 2 or (self._values is not None and block.shape[1] != len(self._values)):
                known = "features" if self._values is None else len(self._values)
                raise ValueError(f"activations [samples, {known}] expected, got {tuple(block.shape)}")
            self._add_tensor(block.detach(), self._best(single(block[:0])))

    def merge(self, other: Self) -> None:
        """Add the samples of another stream; its first row follows this stream's last one. See `Stream.merge`."""
        require_equal("m", self.m, other.m)
        if other._values is None:
            self._count += other._count
            return
        self._settle()  # before later samples raise the bar, so that of equal activations the earlier ones stay
        top = other.result()
        device = self._best(other._values.T[:0]).device
        self._keep(top.values.to(device), torch.where(top.rows < 0, -1, top.rows + self._count).to(device))
        self._count += other._count

    def skip(self, rows: int) -> None:
        """Count rows without a positive activation, which need not be looked at."""
        self._count += rows

    def of_threads(self, features: int) -> list[tuple[Array, Array]]:
        """Return the values and places that each thread of a compiled loop updates; the first call makes them."""
        self._best(torch.empty(0, features))
        if self._of_threads is None:
            shape = num_parts(), features, self.m
            self._of_threads = torch.zeros(shape), torch.full(shape, -1)
        values, rows = (best.numpy() for best in self._of_threads)
        return list(zip(values, rows, strict=True))

    @property
    def count(self) -> int:
        """Number of rows so far."""
        return self._count

    def _best(self, like: Tensor) -> Tensor:
        """Return the largest activations so far; the first call makes room for them, on the device of `like` rows."""
        if self._values is None:
            self._values = like.new_zeros(like.shape[1], self.m)
            self._rows = torch.full_like(self._values, -1, dtype=torch.int64)
        return self._values

    def _add_compiled(self, block: KernelRows) -> None:
        from mmmono.core.kernels import keep_best

        numbers, start, best = block.numbers(), self._count, self.of_threads(block.shape[1])

        def work(part: int, first: int, end: int) -> tuple[float, float]:
            lengths: tuple[float, float] = keep_best(numbers[first:end], block.normalize, start + first, *best[part])
            return lengths

        block.check(in_parts(work, len(block), len(best)), start)
        self._count += len(block)

    def _add_tensor(self, block: Tensor, values: Tensor) -> None:
        for chunk in block.split(CHUNK_ROWS) if block.numel() else ():
            peak = chunk.amax(dim=0)  # ten times as fast as aminmax(dim=0)
            if not is_finite(chunk.amin(), peak.amax()):
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
                self._settle()

    def _settle(self) -> None:
        """Keep the best of the pending columns, with a stable sort, so that equal activations stay in stream order."""
        pending, self._pending, self._pending_columns = self._pending, [], 0
        if not pending or self._values is None:
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
        self._keep(values, rows)

    def _keep(self, values: Tensor, rows: Tensor) -> None:
        """Keep the best m of the samples so far and of later ones, which are sorted as in `TopSamples`."""
        assert self._values is not None
        best, order = torch.cat([self._values, values], dim=1).sort(dim=1, descending=True, stable=True)
        self._values = best[:, : self.m].contiguous()
        self._rows = torch.cat([self._rows, rows], dim=1).gather(1, order[:, : self.m])

    def result(self) -> TopSamples:
        """Return the top samples of all rows added so far. Raises ValueError if there are none."""
        if self._values is None:
            raise ValueError("no activations to take the top samples of")
        self._settle()
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
    """Columns of a chunk that may hold new top samples.

    Attributes:
        features: feature of each column.
        columns: activations; chunks shorter than CHUNK_ROWS are padded with 0.
        start: position of the chunk's first row in the stream.
    """

    features: Int64[Tensor, " columns"]
    columns: Float[Tensor, "rows columns"]
    start: int
