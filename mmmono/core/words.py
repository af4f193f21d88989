"""What a word is made of in any script, as a part of regular expressions.

Python's `\\w` knows letters and digits, but not the marks that are added to them, such as vowel signs of Devanagari
or accents of texts in decomposed form (NFD). Words would end at each of them.
"""

from __future__ import annotations

import unicodedata
from itertools import groupby

LAST = 0x20000  # scripts end there; further marks are variation selectors
SELECTORS = range(0xFE00, 0xFE10)  # say how an emoji is drawn


def _marks() -> str:
    """Marks with and without a width of their own, as ranges of a regular expression's character class."""
    codes = [c for c in range(0x300, LAST) if unicodedata.category(chr(c)) in ("Mn", "Mc") and c not in SELECTORS]
    runs = [list(run) for _, run in groupby(enumerate(codes), lambda entry: entry[1] - entry[0])]
    return "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)


MARKS = _marks()
JOINERS = "\u200c\u200d"  # zero width, within words of Persian or Hindi
LETTERS = rf"[^\W_](?:[{JOINERS}]?(?:[^\W_]|[{MARKS}]))*"  # a letter or digit, with what follows it in the same word
