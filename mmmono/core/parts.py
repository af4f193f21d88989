"""Splits rows among threads, for compiled loops that release the GIL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


def num_parts() -> int:
    """Number of parts to split rows into: at most 8, since more threads only wait for memory."""
    return min(torch.get_num_threads(), 8)


def in_parts(work: Callable[[int, int, int], Result], rows: int, parts: int) -> list[Result]:
    """Run `work` on consecutive ranges of rows, each in its own thread; return the results in order.

    Args:
        work: called with a part's number, its first row and the row after its last.
        rows: number of rows.
        parts: number of parts.
    """
    bounds = [rows * part // parts for part in range(parts + 1)]
    first, *others = [(part, bounds[part], bounds[part + 1]) for part in range(parts)]
    running = [_threads(parts).submit(work, *other) for other in others]
    return [work(*first), *(future.result() for future in running)]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "rows")
