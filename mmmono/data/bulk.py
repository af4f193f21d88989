"""Many samples at once: neighbours in one closed range, ranges over several connections that stay open."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from mmmono.data.pairs import ImageTextPair, SkippedPair

THREADS = 8
WINDOW = 256  # pictures that are on their way together; two windows are held at a time
WINDOW_BYTES = 1 << 24  # of their files: photographs take ten times as much when they are decoded
NEAR = 1 << 16  # bytes between two samples that are rather read than asked for again
LONGEST = 1 << 22  # bytes of a merged range, so that several connections share the work


@dataclass(frozen=True)
class Wanted:
    """A pair to fetch, and where it lies as far as that is known.

    Attributes:
        position: in the order in which the pairs were asked for.
        key: of the pair.
        locator: as the caller gave it.
        part: of the source that holds it.
        start, length: in bytes; a length of 0 is unknown.
    """

    position: int
    key: str
    locator: str
    part: int
    start: int
    length: int


Item = ImageTextPair | SkippedPair


def merged(wanted: Sequence[Wanted]) -> list[list[Wanted]]:
    """Groups of samples to read in one range each, those without a known length alone."""
    groups: list[list[Wanted]] = []
    end = 0
    for one in sorted(wanted, key=lambda w: (w.part, w.start)):
        last = groups[-1] if groups else None
        near = last is not None and last[-1].length and last[0].part == one.part and one.start - end <= NEAR
        if last is not None and near and one.length and one.start + one.length - last[0].start <= LONGEST:
            last.append(one)
            end = max(end, one.start + one.length)
        else:
            groups.append([one])
            end = one.start + one.length
    return groups


def fetch_in_order(wanted: Iterator[Wanted], fetch: Callable[[list[Wanted]], list[Item]]) -> Iterator[Item]:
    """Fetch groups of samples in threads, and yield what they give in the order wanted.

    Args:
        wanted: what to fetch.
        fetch: reads one group; what it raises is raised here.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        windows: deque[list[tuple[list[Wanted], Future[list[Item]]]]] = deque()
        try:
            for window in _windows(wanted):
                windows.append([(group, pool.submit(fetch, group)) for group in merged(window)])
                if len(windows) == 2:
                    yield from _collected(windows.popleft())
            while windows:
                yield from _collected(windows.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _windows(wanted: Iterator[Wanted]) -> Iterator[list[Wanted]]:
    """Samples in a row whose decoded pictures fit into memory, for which the size of their files has to speak."""
    window: list[Wanted] = []
    size = 0
    for one in wanted:
        window.append(one)
        size += one.length
        if len(window) == WINDOW or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _collected(window: list[tuple[list[Wanted], Future[list[Item]]]]) -> Iterator[Item]:
    items = {one.position: item for group, done in window for one, item in zip(group, done.result(), strict=True)}
    for position in sorted(items):
        yield items[position]
