"""Rows shared out among the threads that PyTorch may use, for compiled loops that run without Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


def num_parts() -> int:
    """How many parts to work on rows in: more than a few threads only wait for memory."""
    return min(torch.get_num_threads(), 8)


def in_parts(work: Callable[[int, int, int], Result], rows: int, parts: int) -> list[Result]:
    """Work on consecutive parts of some rows, each on a thread of its own.

    Args:
        work: gets a part's number, its first row and the row after its last.
        rows: how many rows there are.
        parts: how many parts.
    """
    bounds = [rows * part // parts for part in range(parts + 1)]
    first, *others = [(part, bounds[part], bounds[part + 1]) for part in range(parts)]
    running = [_threads(parts).submit(work, *other) for other in others]
    return [work(*first), *(future.result() for future in running)]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "rows")
