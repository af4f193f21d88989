"""Rows shared out among the threads that PyTorch may use, for compiled loops that run without Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


def num_parts() -> int:
    """How many parts rows are worked on in."""
    return torch.get_num_threads()


def in_parts(work: Callable[[int, int, int], Result], rows: int) -> list[Result]:
    """Work on consecutive parts of some rows, each on a thread of its own.

    Args:
        work: gets a part's number, its first row and the row after its last.
        rows: how many there are.
    """
    count = num_parts()
    bounds = [rows * part // count for part in range(count + 1)]
    first, *others = [(part, bounds[part], bounds[part + 1]) for part in range(count)]
    running = [_threads(count).submit(work, *other) for other in others]
    return [work(*first), *(future.result() for future in running)]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "rows")
