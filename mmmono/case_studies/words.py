"""Words that distinguish groups of texts: counts, and log-odds with an informative Dirichlet prior (Table 6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from mmmono.case_studies.concepts import tokens


@dataclass(frozen=True)
class WordScore:
    """Score of a word in one group of texts.

    Attributes:
        group: index of the group.
        word: the word in lower case.
        count: occurrences in the group.
        elsewhere: occurrences in all other groups.
        z: log-odds ratio of the word in the group against the other groups, divided by its standard error. Counts alone
            mislead if groups differ in size or words are frequent everywhere.
    """

    group: int
    word: str
    count: int
    elsewhere: int
    z: float


def distinctive_words(
    groups: Sequence[Sequence[str]], left_out: Collection[str] = (), prior: float = 500.0
) -> list[WordScore]:
    """Score every word in every group (Monroe, Colaresi and Quinn 2008, Eq. 15, 16, 22).

    Args:
        groups: texts of each group.
        left_out: words to ignore, besides English stop words and single letters.
        prior: total pseudo-count of the prior, whose word frequencies are those of all groups together.
    """
    skipped = ENGLISH_STOP_WORDS | set(left_out)
    counts = [Counter(w for text in texts for w in tokens(text) if w not in skipped and len(w) > 1) for texts in groups]
    total = Counter[str]()
    for count in counts:
        total.update(count)
    size = sum(total.values())
    scores: list[WordScore] = []
    if len(total) < 2:  # log-odds need at least two words
        return scores
    for index, count in enumerate(counts):
        here = sum(count.values())
        for word, everywhere in total.items():
            alpha = prior * everywhere / size
            own, other = count[word] + alpha, everywhere - count[word] + alpha
            odds = np.log(own / (here + prior - own)) - np.log(other / (size - here + prior - other))
            scores.append(
                WordScore(
                    index, word, count[word], everywhere - count[word], float(odds / np.sqrt(1 / own + 1 / other))
                )
            )
    return scores
