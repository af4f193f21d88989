"""Cleaning of captions and labels, and the choice among an image's captions."""

from __future__ import annotations

import hashlib
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from mmmono.core.errors import ConfigError
from mmmono.core.text import decode_text, is_visible, one_line

CaptionChoice = Literal["first", "random", "all"]
OWN_COLUMNS = ("key", "caption", "locator", "group")  # reserved columns of the metadata, which labels must not use


def clean(caption: str) -> str:
    """Return a caption as it is tokenized and shown: on one line, trimmed, without invisible control characters.

    White space is collapsed; byte order marks, control characters, bidirectional embeddings and overrides are removed;
    lone surrogates become U+FFFD. A caption without visible characters becomes empty. Unicode is not normalized: models
    see composed or decomposed letters as they are in the data.
    """
    text = one_line(caption)
    return text if is_visible(text) else ""


def as_text(value: object, numerals: bool = False) -> str:
    """Return the text of a JSON or table value, or "" if it is not text, such as None, NaN, a list or a dict.

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
        value = value.item()  # NumPy scalars
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, numbers.Integral):
        return str(int(value))
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if not math.isfinite(number):
        return ""
    return str(int(number)) if number.is_integer() else str(number)


def text_or_empty(value: object) -> str:
    """Return a cleaned caption, or "" if the value is not text. Numbers are not captions."""
    return clean(as_text(value))


def lines_of(file: bytes) -> list[str]:
    """Return the lines of a text file with a caption a line; empty ones are no captions, see `choose_captions`."""
    return re.split(r"\r\n|\n|\r", decode_text(file))


def label_or_empty(value: object) -> str:
    """Return a cleaned label or other short metadata value, or "" if there is none. Numbers are valid labels."""
    return clean(as_text(value, numerals=True))


def check_reading(captions: str, label_keys: Sequence[str]) -> None:
    """Raise ConfigError if a choice of captions is unknown, or a label has the name of a reserved column."""
    if taken := [name for name in label_keys if name in OWN_COLUMNS]:
        raise ConfigError(
            f"dataset.label_keys={list(label_keys)}: no label can be called {taken[0]!r}, which is each pair's own"
        )
    if captions not in get_args(CaptionChoice):
        raise ConfigError(f"dataset.captions={captions} is none of {', '.join(get_args(CaptionChoice))}")


def choose_captions(
    key: str, captions: Sequence[object], choice: CaptionChoice, seed: int = 0
) -> list[tuple[str, str]]:
    """Return the (key, caption) pairs of an image; empty if all its captions are empty.

    Args:
        key: of the image.
        captions: all captions of the image; values that are not text are ignored.
        choice: the `first`, one at `random` (by a hash of seed and key, so always the same one), or `all`, each as a
            pair of its own with the key `<key>#<number>`.
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


def without_caption(captions: Sequence[object]) -> str:
    """Return the reason that `choose_captions` found none: there is no text, or there are objects in its place."""
    if (found := next((one for one in captions if isinstance(one, Mapping)), None)) is None:
        return "no caption"
    return f"no caption, but an object with the fields {', '.join(map(str, found))}: make a column of the texts alone"


def image_key(key: str) -> str:
    """Return the image's key for a pair's key: the same without `#<number>`."""
    return key.rsplit("#", 1)[0]
