"""Words and short phrases that features may be named by: those of captions, or those of a text file."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

from mmmono.core.errors import ConfigError
from mmmono.core.text import decode_text, line_of_other_encoding
from mmmono.core.words import JOINERS, LETTERS, MARKS

WORD = re.compile(rf"{LETTERS}(?:['’-]{LETTERS})*")
BREAK = re.compile(rf"[^\w\s'’{MARKS}{JOINERS}-]+|\s[-–—]+\s")  # punctuation, which no phrase goes across
LONGEST_LINE = 100  # characters of a word or phrase in a file


def words_of(text: str) -> list[str]:
    """Split a text into words in lower case; hyphens and apostrophes within a word stay."""
    return WORD.findall(unicodedata.normalize("NFC", text).lower())


def phrases_of(text: str, longest: int) -> Iterator[str]:
    """Yield every run of one to `longest` consecutive words of a text with no punctuation between them."""
    for part in BREAK.split(unicodedata.normalize("NFC", text)):
        words = words_of(part)
        for start in range(len(words)):
            for end in range(start + 1, min(start + longest, len(words)) + 1):
                yield " ".join(words[start:end])


def caption_vocabulary(
    captions: Sequence[str],
    groups: Int[np.ndarray[Any, Any], " captions"],
    *,
    longest: int = 2,
    min_groups: int = 5,
    max_share: float = 0.2,
    size: int = 2000,
) -> list[str]:
    """Words and phrases of captions, most frequent first; equally frequent ones in alphabetical order.

    A phrase has no English stop word and no single letter in it, so it is one that stands in a caption as it is. Groups of
    pairs are counted, not pairs: five captions of one image count once.

    Args:
        captions: one text for each pair.
        groups: group of each pair, as numbers from 0 on.
        longest: number of words in a phrase, at most.
        min_groups: number of groups whose captions have the phrase, at least.
        max_share: share of all groups, at most: what nearly every caption says tells nothing apart.
        size: number of phrases, at most.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    of_group: dict[int, set[str]] = {}
    for caption, group in zip(captions, groups.tolist(), strict=True):
        of_group.setdefault(group, set()).update(phrases_of(caption, longest))
    count = Counter(phrase for phrases in of_group.values() for phrase in phrases)

    def kept(phrase: str) -> bool:
        words = phrase.split()
        small = any(
            word in ENGLISH_STOP_WORDS or (len(word) == 1 and word.isalpha() and word.isascii()) for word in words
        )
        return not small and min_groups <= count[phrase] <= max_share * len(of_group)

    return sorted(filter(kept, count), key=lambda phrase: (-count[phrase], phrase))[:size]


def read_vocabulary(file: Path) -> list[str]:
    """Read words or phrases from a text file, one a line; empty lines and repetitions are left out.

    Raises:
        ConfigError: the file does not exist, holds no word, or has a line that is no word or short phrase.
    """
    if not file.is_file():
        raise ConfigError(
            f"names.vocabulary={file} is no file: give a text file with a word or phrase a line, or captions"
        )
    data = file.read_bytes()
    if (other := line_of_other_encoding(data)) is not None:
        raise ConfigError(f"names.vocabulary={file}, line {other[0]} ({other[1]}) is not UTF-8: save it as UTF-8")
    lines = [" ".join(line.split()) for line in decode_text(data).splitlines()]
    for number, line in enumerate(lines, 1):
        if line and (not words_of(line) or len(line) > LONGEST_LINE):
            raise ConfigError(
                f"names.vocabulary={file}, line {number} ({line[:40]!r}) is no word or phrase of at most {LONGEST_LINE} "
                "characters: give one a line"
            )
    found = list(dict.fromkeys(line for line in lines if line))
    if not found:
        raise ConfigError(f"names.vocabulary={file} is empty: give a word or phrase a line")
    return found


def mentions(captions: Sequence[str], vocabulary: Sequence[str]) -> csr_array:
    """Which captions hold which words or phrases of a vocabulary, as whole words; `[captions, words]` of 0 and 1."""
    place: dict[str, list[int]] = {}
    for column, phrase in enumerate(vocabulary):
        place.setdefault(" ".join(words_of(phrase)), []).append(column)
    longest = max((len(phrase.split()) for phrase in place), default=0)
    rows, columns = [], []
    for row, caption in enumerate(captions):
        found = {column for phrase in phrases_of(caption, longest) for column in place.get(phrase, ())}
        rows += [row] * len(found)
        columns += sorted(found)
    ones = np.ones(len(rows), np.float32)
    return csr_array((ones, (rows, columns)), shape=(len(captions), len(vocabulary)))
