"""What counts as a caption or a label, and which of a picture's captions its pair gets."""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Sequence
from typing import Literal

from mmmono.core.text import decode_text, is_visible, one_line

CaptionChoice = Literal["first", "random", "all"]


def clean(caption: str) -> str:
    """A caption as it is tokenized and shown: on one line, trimmed, without invisible control characters.

    White space is collapsed; byte order marks, control characters, bidirectional embeddings and overrides are left out;
    lone surrogates become U+FFFD. A caption in which nothing can be seen is empty. Unicode is not normalized: models see
    the letters composed or decomposed as the data has them.
    """
    text = one_line(caption)
    return text if is_visible(text) else ""


def as_text(value: object, numerals: bool = False) -> str:
    """A value of a JSON object or a table as the text it is, or "" where it is none, such as None, NaN, a list or a dict.

    Args:
        value: a string, bytes (which are decoded), or anything else.
        numerals: whether numbers and booleans count as text too: `7`, `0.5`, `true`.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return decode_text(bytes(value))
    if not numerals:
        return ""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # of NumPy's scalars
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, numbers.Integral):
        return str(int(value))
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if not math.isfinite(number):
        return ""
    return str(int(number)) if number.is_integer() else str(number)


def text_or_empty(value: object) -> str:
    """A caption as `clean` has it, or "" where the value is no text. Numbers are no captions."""
    return clean(as_text(value))


def label_or_empty(value: object) -> str:
    """A label or another short entry of metadata, cleaned, or "" where there is none. Numbers are labels too."""
    return clean(as_text(value, numerals=True))


def choose_captions(
    key: str, captions: Sequence[object], choice: CaptionChoice, seed: int = 0
) -> list[tuple[str, str]]:
    """Pairs of key and caption that a picture yields; none if it has no caption that is not empty.

    Args:
        key: of the picture.
        captions: all it has; what is no text is passed over.
        choice: the `first`, one at `random` (by a hash of seed and key, so that it is the same every time), or `all`,
            each as a pair of its own with the key `<key>#<number>`.
        seed: of the random choice.
    """
    present = [text for caption in captions if (text := text_or_empty(caption))]
    if not present:
        return []
    if choice == "all":
        return [(f"{key}#{number}", caption) for number, caption in enumerate(present)]
    if choice == "first":
        return [(key, present[0])]
    if choice == "random":
        hashed = hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]
        return [(key, present[int.from_bytes(hashed, "big") % len(present)])]
    raise ValueError(f"captions={choice!r} is none of 'first', 'random', 'all'")


def picture_key(key: str) -> str:
    """The key of the picture that a pair's key belongs to: the same without `#<number>`."""
    return key.rsplit("#", 1)[0]
