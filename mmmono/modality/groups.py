"""Sums over groups of pairs that are not independent, such as the captions of one image, in one pass over the pairs."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mmmono.core.streams import unpacked
from mmmono.features.grouping import GroupNumbers
from mmmono.features.rows import KernelRows, check_pairs

LARGEST = 1 << 31  # sizes of so many groups take 16 GiB
Side = TypeVar("Side", bound=Tensor | KernelRows)
GroupsLike = Sequence[int] | np.ndarray[Any, Any] | Tensor  # what `group_codes` makes into GroupNumbers


def group_codes(groups: GroupsLike) -> GroupNumbers:
    """Return the group of each pair as an int64 array.

    Raises:
        ValueError: they are no list of whole numbers from 0 on.
    """
    codes = _whole(groups)
    if len(codes) and int(codes.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"group {codes.max()} is no 64-bit number with a sign: number them with pandas.factorize")
    return codes.astype(np.int64)


def numbered_groups(groups: GroupsLike) -> GroupNumbers:
    """Return the group of each of all pairs; ids larger than the number of pairs are numbered anew, in ascending order.

    So the ids of a table may be given as they are: what is kept for each number up to the largest stays small.
    Errors: see `group_codes`.
    """
    codes = _whole(groups)
    if len(codes) and int(codes.max()) >= len(codes):
        codes = np.unique(codes, return_inverse=True)[1]
    return codes.astype(np.int64)


def _whole(groups: GroupsLike) -> np.ndarray[Any, Any]:
    codes = np.asarray(groups.cpu() if isinstance(groups, Tensor) else groups)
    if codes.ndim != 1 or (len(codes) and (codes.dtype.kind not in "iu" or int(codes.min()) < 0)):
        raise ValueError(
            f"groups must be one whole number from 0 on for each pair, got {codes.dtype} of shape {codes.shape}"
            f"{f', lowest {codes.min()}' if codes.size and codes.dtype.kind in 'iuf' else ''}: number them with "
            "pandas.factorize"
        )
    return codes


def group_sizes(groups: GroupsLike) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the number of pairs of each group, by its code; it has a place for every code up to the largest.

    Raises:
        ValueError: see `group_codes`; or a code is too large for such an array.
    """
    codes = group_codes(groups)
    if len(codes) and codes.max() >= LARGEST:
        raise ValueError(f"group {codes.max()} is more than there can be groups: number them with pandas.factorize")
    return np.bincount(codes)


def shared_groups(groups: GroupNumbers) -> GroupNumbers | None:
    """Return the group of each pair; None if every pair is a group of its own."""
    return groups if bool((group_sizes(groups) > 1).any()) else None


def grouped_blocks(
    blocks: Iterable[tuple[Side, Side]], codes: GroupNumbers | None
) -> Iterator[tuple[Side, Side, GroupNumbers | None]]:
    """Yield each block of pairs with the groups of its pairs.

    Args:
        blocks: activations of images and of texts; row i of both belongs to the same pair.
        codes: the group of each pair of all blocks; None: they have none.

    Raises:
        TypeError: a block is no two tensors.
        ValueError: its sides differ in shape, or there are more or fewer groups than pairs.
    """
    start = 0
    for image, text in unpacked(blocks, "image, text"):
        check_pairs(image, text)
        end = start + image.shape[0]
        if codes is None or end <= len(codes):
            yield image, text, None if codes is None else codes[start:end]
        start = end
    if codes is not None and len(codes) != start:
        raise ValueError(f"groups of {len(codes)} pairs, but the blocks have {start}: both must be of the same pairs")


@dataclass(frozen=True)
class WholeGroups:
    """Groups of a block of pairs that have all their pairs in it.

    Attributes:
        rows: positions of their pairs in the block, group after group.
        starts: where each group begins in `rows`, and the last one ends; one more than there are groups.
        rest: positions of the block's other pairs.
    """

    rows: GroupNumbers
    starts: GroupNumbers
    rest: GroupNumbers

    @classmethod
    def single(cls, pairs: int) -> WholeGroups:
        """Groups of one pair each."""
        return cls(np.arange(pairs), np.arange(pairs + 1), np.arange(0))

    @classmethod
    def of(cls, codes: GroupNumbers, sizes: GroupNumbers, begun: Container[int] = ()) -> WholeGroups:
        """Find them.

        Args:
            codes: group of each pair of the block.
            sizes: number of pairs of each group.
            begun: groups of which pairs have been seen before.
        """
        order = np.argsort(codes, kind="stable")
        numbers, counts = np.unique(codes, return_counts=True)
        whole = counts == sizes[numbers]
        whole &= np.fromiter((number not in begun for number in numbers.tolist()), bool, len(numbers))
        chosen = np.repeat(whole, counts)
        return cls(order[chosen], np.concatenate([[0], counts[whole].cumsum()]), np.sort(order[~chosen]))

    @property
    def sizes(self) -> GroupNumbers:
        """Number of pairs of each group."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1


class OpenGroups:
    """Adds up rows by group, and hands out the sum of a group once its last row has come.

    Only groups that have begun and not ended are kept, so memory does not grow with the data if the pairs of a group lie
    close together. Groups are handed out in the order of their last rows, whatever the blocks are.

    Args:
        sizes: number of rows of each group; None if they are not known, so that no group ever ends.
    """

    def __init__(self, sizes: np.ndarray[Any, np.dtype[np.int64]] | None = None) -> None:
        self.sizes = sizes
        self._sums: dict[int, Tensor] = {}
        self._seen: dict[int, int] = {}

    def add(self, codes: np.ndarray[Any, np.dtype[np.int64]], rows: Float64[Tensor, "rows n"]) -> Tensor:
        """Add rows; return the sums [groups, n] of the groups that they complete.

        Args:
            codes: the group of each row.
            rows: float64.

        Raises:
            ValueError: a group has more rows than `sizes` says, or a code beyond it.
        """
        if not len(codes):
            return rows
        numbers, inverse, seen = np.unique(codes, return_inverse=True, return_counts=True)
        sums = torch.zeros(len(numbers), rows.shape[1], dtype=rows.dtype, device=rows.device)
        sums.index_add_(0, torch.from_numpy(inverse).to(rows.device), rows)
        last = np.zeros(len(numbers), dtype=np.int64)
        np.maximum.at(last, inverse, np.arange(len(codes)))
        return self._completed(numbers, sums, seen, last)

    def merge(self, other: OpenGroups) -> Tensor | None:
        """Add the open groups of another object, which stays as it is; return the sums of those that this completes."""
        if not other._sums:
            return None
        numbers = np.array(list(other._sums), dtype=np.int64)
        seen = np.array(list(other._seen.values()), dtype=np.int64)
        return self._completed(numbers, torch.stack(list(other._sums.values())), seen, np.arange(len(numbers)))

    def shifted(self, change: Any) -> OpenGroups:
        """Return a copy in which `change` was applied to the sums of each open group."""
        moved = copy(self)
        moved._sums = {number: change(sums) for number, sums in self._sums.items()}
        moved._seen = dict(self._seen)
        return moved

    def open(self) -> Tensor | None:
        """Sums [groups, n] of the groups that have not ended; None if there are none."""
        return torch.stack(list(self._sums.values())) if self._sums else None

    def __len__(self) -> int:
        return len(self._sums)

    def __contains__(self, number: object) -> bool:
        return number in self._sums

    def _completed(self, numbers: Any, sums: Tensor, seen: Any, last: Any) -> Tensor:
        if self.sizes is not None and len(numbers) and numbers.max() >= len(self.sizes):
            raise ValueError(f"group {numbers.max()} is not among the {len(self.sizes)} groups whose sizes were given")
        done = np.zeros(len(numbers), dtype=bool)
        for i, (number, rows) in enumerate(zip(numbers.tolist(), seen.tolist(), strict=True)):
            if number in self._sums:
                sums[i] += self._sums.pop(number).to(sums.device)
                rows += self._seen.pop(number)
            size = None if self.sizes is None else int(self.sizes[number])
            if size is not None and rows > size:
                raise ValueError(f"group {number} has {rows} pairs so far, more than the {size} that were announced")
            done[i] = rows == size
            if not done[i]:
                self._sums[number], self._seen[number] = sums[i].clone(), rows
        ended = np.flatnonzero(done)
        return sums[torch.from_numpy(ended[np.argsort(last[ended])]).to(sums.device)]
