"""How alike texts are by the words that they share: no weights, and independent of every model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from mmmono.interpretability.text_likeness import TextComparer
from mmmono.interpretability.vocabulary import words_of


class SharedWords(TextComparer):
    """Texts are alike if they share words, whatever these mean: `cat` is like `black cat`, and unlike `kitten`.

    The likeness is the cosine of the counts of their words, each of which has a dimension of its own. A text without a word
    is like none.
    """

    name = "words"
    fingerprint = "shared"

    def _vectors(self, texts: Sequence[str]) -> csr_array:
        place: dict[str, int] = {}
        rows, columns = [], []
        for row, text in enumerate(texts):
            for word in words_of(text):
                rows.append(row)
                columns.append(place.setdefault(word, len(place)))
        counts = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(texts), max(1, len(place))))
        lengths = np.sqrt(np.asarray(counts.power(2).sum(1)).reshape(-1))
        counts.data /= np.repeat(lengths, np.diff(counts.indptr))
        return counts


def shared_words(device: str = "cpu") -> SharedWords:
    """Make the comparer; it needs no device."""
    return SharedWords()
