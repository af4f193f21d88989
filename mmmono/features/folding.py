"""Computes one-pass statistics of a whole store in fixed ranges of its rows, which are merged in order.

A range is folded by one thread, wherever that runs, and the ranges do not depend on who folds them. So a result has the same
bits whatever the number of threads, processes or machines, and whichever of them died; processors of another kind may round
differently. A store of a single range is folded at once, by all threads of the process that asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch

from mmmono.core.errors import ConfigError, NonFiniteError
from mmmono.core.progress import progress_bar
from mmmono.core.streams import Stream
from mmmono.features.feature_set import ActivationBlock, FeatureSet, activations
from mmmono.features.gathered import GatheredView, most_open
from mmmono.features.grouping import GroupNumbers
from mmmono.features.selection import FeatureView
from mmmono.features.store import WHOLE

RANGE = 1 << 16  # rows of the store in a range; the sizes of blocks divide it, so that a range ends where a block does
OPEN_BYTES = 32  # a feature of a group that has begun and not ended, in the stream that keeps most of it
MOST_OPEN = 1 << 26  # bytes of such groups, above which pairs are read group by group
WORTH_A_BAR = 1 << 27  # values from which on the progress of a single range is shown: certainty takes a minute for them
AHEAD = 2  # ranges a worker that may be folded before the one that is merged next, and wait in memory

Result = TypeVar("Result")
Advance = Callable[[int], None]
Folded = TypeVar("Folded", bound=Stream[..., Any])


def ignored(pairs: int) -> None:
    """Say to nobody that pairs were seen."""


@dataclass(frozen=True)
class Walk:
    """The blocks of a view that a stream is to see.

    Attributes:
        view: the pairs.
        feature_set: its activations are the blocks; None for the embeddings as they are stored.
        normalize: L2-normalize embeddings before they are encoded.
        device: where they are encoded.
        groups: group of each pair of the view, for streams that ask a block for them.
        rows: rows of the store in a range.
    """

    view: FeatureView
    feature_set: FeatureSet | None = None
    normalize: bool = True
    device: str = "cpu"
    groups: GroupNumbers | None = None
    rows: int = field(default_factory=lambda: RANGE)

    @property
    def features(self) -> int:
        """Number of features of a block."""
        return self.view.dim if self.feature_set is None else self.feature_set.num_features

    @property
    def values(self) -> int:
        """Number of values on either side."""
        return len(self.view) * self.features

    def ranges(self) -> list[slice]:
        """Return the ranges of the store's rows, each with at least one row of the view."""
        starts = range(0, self.view.extent, self.rows)
        spans = [slice(start, min(start + self.rows, self.view.extent)) for start in starts]
        return [span for span in spans if self.view.within(span)]

    def by_group(self) -> Walk:
        """Return a walk group by group, if in the order of the store so many groups lie open that their sums fill memory.

        A store on another machine is walked in its order.
        """
        if self.groups is None or not isinstance(self.view.store.path, Path):
            return self
        if most_open(self.groups) * self.features * OPEN_BYTES <= MOST_OPEN:
            return self
        order = np.argsort(self.groups, kind="stable")
        return replace(self, view=GatheredView(self.view, order), groups=self.groups[order])

    def blocks(self, span: slice = WHOLE) -> Iterator[ActivationBlock]:
        """Stream the blocks of some rows of the store. Errors: see `activations`."""
        for block in self._blocks(span):
            groups = None if self.groups is None else self.groups[block.start : block.start + len(block.image_rows)]
            yield replace(block, groups=groups)

    def _blocks(self, span: slice) -> Iterator[ActivationBlock]:
        if self.feature_set is None:
            return (ActivationBlock(*block) for block in self.view.blocks(span=span))
        return activations(self.view, self.feature_set, normalize=self.normalize, device=self.device, span=span)

    def on(self, device: str) -> Walk:
        """Return the same walk on another device."""
        moved = None if self.feature_set is None else self.feature_set.copied_to(device)
        return replace(self, feature_set=moved, device=device)


def streams_of(workers: int) -> int:
    """Number of streams in memory while so many workers fold ranges: those that run or wait, and that of the result."""
    return 1 + AHEAD * workers


class Engine(Protocol):
    """Folds the ranges of a walk; the options `engine=` implement it."""

    def folded_ranges(self, stream: Folded, walk: Walk, advance: Advance) -> Iterator[Folded]:
        """Yield a stream of each range of the walk, in order.

        Args:
            stream: an empty one; `fresh` makes those of the ranges.
            walk: what they are to see.
            advance: called with the number of pairs that were seen since the last call, from any thread.
        """


def folded(stream: Folded, walk: Walk, engine: Engine) -> Folded:
    """Let a stream see all blocks of a walk, range by range; return the stream.

    Args:
        stream: takes blocks of activations (`OfBlocks` makes other streams into such).
        walk: the blocks.
        engine: what folds the ranges, if there are several.

    Raises:
        NonFiniteError, StoreError, DictionaryError: see `activations` and the stream.
        DataError: a range ended the processes that folded it, several times.
    """
    spans = walk.ranges()
    name = "embeddings" if walk.feature_set is None else walk.feature_set.name
    with progress_bar() if len(spans) > 1 or walk.values >= WORTH_A_BAR else nullcontext() as bar:
        advance = (
            ignored if bar is None else partial(bar.advance, bar.add_task(f"pairs of {name}", total=len(walk.view)))
        )
        if len(spans) == 1:
            for block in walk.blocks():
                stream.add(block)
                advance(len(block.image_rows))
            return stream
        with closing(engine.folded_ranges(stream, walk, advance)) as ranges:  # type: ignore[type-var]
            for _, one in zip(spans, ranges, strict=True):
                stream.merge(one)
    return stream


def fold_range(stream: Folded, walk: Walk, number: int, span: slice, advance: Advance = ignored) -> Folded:
    """Return a new stream of one range of the store's rows; `stream`, an empty one, stays as it is. Errors: see `folded`."""
    mine = stream.fresh(number)
    first = walk.view.within(slice(0, span.start))
    try:
        for block in walk.blocks(span):
            mine.add(block)
            advance(len(block.image_rows))
    except NonFiniteError as error:
        counted = walk.view.counted_from(first)
        raise NonFiniteError(f"{error} ({counted})" if counted else str(error)) from error
    return mine


@dataclass(frozen=True)
class Threads:
    """Folds ranges in threads of this process, each range by one of them.

    Attributes:
        workers: number of threads; None for as many as PyTorch uses, or one on a GPU.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"engine.workers={self.workers} must be at least 1")

    def on(self, device: str) -> int:
        """Number of threads on a device."""
        return self.workers or (torch.get_num_threads() if torch.device(device).type == "cpu" else 1)

    def folded_ranges(self, stream: Folded, walk: Walk, advance: Advance = ignored) -> Iterator[Folded]:
        """Yield a stream of each range of the walk, in order; see `Engine`."""
        before, workers = torch.get_num_threads(), self.on(walk.device)
        empty, left = stream.fresh(0), deque(enumerate(walk.ranges()))
        running: deque[Future[Folded]] = deque()
        pool = ThreadPoolExecutor(workers, "ranges", initializer=torch.set_num_threads, initargs=(1,))
        try:
            while left or running:
                while left and len(running) < AHEAD * workers:
                    number, span = left.popleft()
                    running.append(pool.submit(fold_range, empty, walk, number, span, advance))
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)  # some of what a thread sets is the whole process's


class OfBlocks(Stream[[ActivationBlock], Result]):
    """Feeds blocks of activations to a stream that takes something else.

    Args:
        stream: any stream.
        arguments: what its `add` is given for a block; a function at the top of a module, which can travel.
    """

    def __init__(self, stream: Stream[..., Result], arguments: Callable[[ActivationBlock], tuple[Any, ...]]) -> None:
        self.stream, self.arguments = stream, arguments

    def add(self, block: ActivationBlock) -> None:
        """Add the next block."""
        self.stream.add(*self.arguments(block))

    def merge(self, other: Self) -> None:
        """Add what another stream has seen; see `Stream.merge`."""
        self.stream.merge(other.stream)

    def fresh(self, number: int) -> Self:
        """Return an empty stream of a range; see `Stream.fresh`."""
        return type(self)(self.stream.fresh(number), self.arguments)

    def result(self) -> Result:
        """Return the stream's result."""
        return self.stream.result()


class Together(Stream[[ActivationBlock], tuple[Any, ...]]):
    """Several streams that share a pass.

    Args:
        *streams: streams of blocks of activations; what they have seen can be asked of each by itself.
    """

    def __init__(self, *streams: Stream[[ActivationBlock], Any]) -> None:
        self.streams = streams

    def add(self, block: ActivationBlock) -> None:
        """Add the next block to all."""
        for stream in self.streams:
            stream.add(block)

    def merge(self, other: Self) -> None:
        """Add what others have seen; see `Stream.merge`."""
        for mine, theirs in zip(self.streams, other.streams, strict=True):
            mine.merge(theirs)

    def fresh(self, number: int) -> Self:
        """Return empty streams of a range; see `Stream.fresh`."""
        return type(self)(*(stream.fresh(number) for stream in self.streams))

    def result(self) -> tuple[Any, ...]:
        """Return the results of all."""
        return tuple(stream.result() for stream in self.streams)


def stored_pairs(block: ActivationBlock) -> tuple[Any, ...]:
    """Both sides of a block, as tensors or for the numba kernels."""
    return block.image_rows, block.text_rows


def stored_pairs_and_groups(block: ActivationBlock) -> tuple[Any, ...]:
    """Both sides of a block, as tensors or for the numba kernels, and the groups of the pairs."""
    return block.image_rows, block.text_rows, block.groups


def pairs(block: ActivationBlock) -> tuple[Any, ...]:
    """Both sides of a block as tensors."""
    return block.image, block.text


def pairs_and_groups(block: ActivationBlock) -> tuple[Any, ...]:
    """Both sides of a block as tensors, and the groups of the pairs."""
    return block.image, block.text, block.groups


def images(block: ActivationBlock) -> tuple[Any, ...]:
    """The images' activations."""
    return (block.image,)


def texts(block: ActivationBlock) -> tuple[Any, ...]:
    """The texts' activations."""
    return (block.text,)
