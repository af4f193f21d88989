"""Finds the captions that a text encoder does not read to their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from jaxtyping import Int
from torch import Tensor

SPECIAL = 2  # tokens around a caption; each of the others is of at least one byte


class Context:
    """The number of tokens that a tokenizer cuts captions to.

    Args:
        tokenize: captions to token ids, all of them padded to the context or to the longest caption.
    """

    def __init__(self, tokenize: Callable[[list[str]], Int[Tensor, "batch tokens"]]) -> None:
        self._tokenize = tokenize

    @cached_property
    def length(self) -> int:
        """Tokens of the longest caption that is read to its end, with those around it."""
        return int(self._tokenize(["a " * 10_000]).shape[1])

    def is_full(self, captions: Sequence[str], tokens: Int[Tensor, "batch tokens"]) -> list[bool]:
        """Whether one more word would change nothing about each caption, since its tokens fill the context.

        Args:
            captions: the captions.
            tokens: their ids.
        """
        full = [False] * len(captions)
        if tokens.shape[1] < self.length:
            return full
        long = [i for i, text in enumerate(captions) if len(text.encode(errors="replace")) + SPECIAL >= self.length]
        if long:
            longer = self._tokenize([f"{captions[i]} a" for i in long])
            for i, ids in zip(long, longer, strict=True):
                full[i] = bool((ids == tokens[i]).all())
        return full
