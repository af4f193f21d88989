"""How alike texts are: vectors of several lists of texts that can be compared with each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.sparse import csr_array
from torch import Tensor

from mmmono.features import Modality

TextVectors: TypeAlias = Float[Tensor, "texts dim"] | csr_array  # of length 1; sparse where most numbers are 0


class TextComparer(ABC):
    """Say how alike texts are.

    Attributes:
        name: name in tables.
        fingerprint: digest that identifies the weights, or whatever else likeness depends on.
        sees_images: whether images can be compared, too.
    """

    name: str
    fingerprint: str
    sees_images: ClassVar[bool] = False

    def comparable(self, *lists: Sequence[str]) -> list[TextVectors]:
        """Return vectors of the texts of each list, all in one space; a text that is in several lists is read once."""
        # Not an array of texts, which NumPy makes as wide as the longest one, for every text.
        place = {text: row for row, text in enumerate(sorted({*chain(*lists)}))}
        vectors = self._vectors(list(place))
        return [vectors[np.fromiter(map(place.__getitem__, texts), np.int64)] for texts in lists]

    @property
    def drawingclip_towers(self) -> frozenset[Modality]:
        """Modalities that are embedded by a tower of DrawingCLIP, of which this is then no independent judge."""
        return frozenset()

    @abstractmethod
    def _vectors(self, texts: Sequence[str]) -> TextVectors:
        """Vectors of distinct texts, of length 1 or 0."""


def likeness(words: TextVectors, chosen: Int64[Tensor, " chosen"], texts: TextVectors) -> Float[Tensor, "chosen texts"]:
    """Cosine of some of the words with every text; both are vectors that one call of `comparable` gave.

    Args:
        words: of all words.
        chosen: rows of `words`.
        texts: of the texts.
    """
    if isinstance(words, csr_array):
        return torch.from_numpy((words[chosen.numpy()] @ texts.T).toarray()).float()
    return words[chosen] @ texts.T
