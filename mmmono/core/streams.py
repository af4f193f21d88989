"""The interface of everything that is computed in a single pass over a store: add blocks, merge, ask for the result."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Generic, ParamSpec, Self, TypeVar

Block = ParamSpec("Block")
Result = TypeVar("Result")


class Stream(ABC, Generic[Block, Result]):
    """A computation over blocks of rows that keeps only sums, counts or the best rows, never the blocks themselves.

    A stream has three verbs. Several streams can share one pass, and parts of a store can be walked separately:

        first, second = EnergyStream(), EnergyStream()
        for image, text in first_half:
            first.add(image, text)
        for image, text in second_half:
            second.add(image, text)
        first.merge(second)
        share = first.result()  # as if one stream had seen both halves

    `Stream[[Tensor, Tensor], Tensor]` is a stream whose blocks are two tensors and whose result is one.
    """

    @abstractmethod
    def add(self, *block: Block.args, **named: Block.kwargs) -> None:
        """Add the next block of rows.

        Raises:
            NonFiniteError: a value is NaN or infinite.
            ValueError: the parts of the block do not match.
        """

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add everything that another stream has seen, as if its blocks had followed this stream's.

        The result is that of one stream over all blocks: counts, extremes and top samples exactly, sums of floating
        point numbers up to the rounding of their additions. The other stream is not changed.

        Args:
            other: a stream with the same settings, over rows with the same features.

        Raises:
            ValueError: the settings differ.
        """

    def fresh(self, number: int) -> Self:
        """Return an empty stream with the same settings, which sees a range of the rows and is then merged into this one.

        Args:
            number: of the range, from 0 on; matters for streams that draw random numbers.
        """
        return copy.deepcopy(self, {id(part): part for part in self.shared() if part is not None})

    def shared(self) -> tuple[object, ...]:
        """Return what never changes and may be as large as the data: the streams of ranges do not copy it."""
        return ()

    @abstractmethod
    def result(self) -> Result:
        """Return the result over all blocks so far; more can be added afterwards.

        Raises:
            ValueError: nothing was added, and the result is not defined without rows.
        """


def unpacked(blocks: Iterable[Any], names: str) -> Iterator[Any]:
    """Yield blocks that each hold what `names` says, such as "image, text".

    Raises:
        TypeError: one is something else, such as a row of a tensor that was given in place of a list of blocks.
    """
    for block in blocks:
        if not isinstance(block, tuple | list) or len(block) != len(names.split(", ")):
            raise TypeError(
                f"blocks: each must be ({names}), got {type(block).__name__}: give [({names})] for a single one"
            )
        yield block


def require_equal(name: str, mine: object, others: object) -> None:
    """Raise ValueError, naming both values, if a setting of two streams differs."""
    if mine != others:
        raise ValueError(f"streams with {name}={mine} and {name}={others} cannot be merged")
