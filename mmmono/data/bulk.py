"""Fetching of many samples: one request for neighbors, several requests at once over persistent connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from mmmono.data.pairs import ImageTextPair, SkippedPair

THREADS = 8
WINDOW = 256  # samples per window; two windows are fetched at a time
WINDOW_BYTES = 1 << 24  # encoded bytes per window; decoded photographs take about ten times as much
NEAR = 1 << 16  # gap between two samples, in bytes, up to which they are read in one request
LONGEST = 1 << 22  # bytes of a merged range; the limit lets several connections share the work


@dataclass(frozen=True)
class PairRequest:
    """A requested pair, and its location as far as known.

    Attributes:
        position: index among the requested pairs.
        key: of the pair.
        locator: as given by the caller.
        part: index of the source's part that contains it.
        start, length: in bytes; length 0 means unknown.
    """

    position: int
    key: str
    locator: str
    part: int
    start: int
    length: int


Item = ImageTextPair | SkippedPair


def merged(requests: Sequence[PairRequest]) -> list[list[PairRequest]]:
    """Group samples that are read in one range each; a sample of unknown length is a group of its own."""
    groups: list[list[PairRequest]] = []
    end = 0
    for one in sorted(requests, key=lambda one: (one.part, one.start)):
        last = groups[-1] if groups else None
        near = last is not None and last[-1].length and last[0].part == one.part and one.start - end <= NEAR
        if last is not None and near and one.length and one.start + one.length - last[0].start <= LONGEST:
            last.append(one)
            end = max(end, one.start + one.length)
        else:
            groups.append([one])
            end = one.start + one.length
    return groups


def fetch_in_order(requests: Iterator[PairRequest], fetch: Callable[[list[PairRequest]], list[Item]]) -> Iterator[Item]:
    """Fetch groups of samples in threads, and yield the results in the requested order.

    Args:
        requests: the requested pairs.
        fetch: reads one group; its errors are raised here.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        windows: deque[list[tuple[list[PairRequest], Future[list[Item]]]]] = deque()
        try:
            for window in _windows(requests):
                windows.append([(group, pool.submit(fetch, group)) for group in merged(window)])
                if len(windows) == 2:
                    yield from _collected(windows.popleft())
            while windows:
                yield from _collected(windows.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _windows(requests: Iterator[PairRequest]) -> Iterator[list[PairRequest]]:
    """Split requests into windows whose decoded images fit into memory, estimated from the file sizes."""
    window: list[PairRequest] = []
    size = 0
    for one in requests:
        window.append(one)
        size += one.length
        if len(window) == WINDOW or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _collected(window: list[tuple[list[PairRequest], Future[list[Item]]]]) -> Iterator[Item]:
    items = {one.position: item for group, done in window for one, item in zip(group, done.result(), strict=True)}
    for position in sorted(items):
        yield items[position]
