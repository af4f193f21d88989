"""Which of a picture's captions its pair gets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

CaptionChoice = Literal["first", "random", "all"]


def clean(caption: str) -> str:
    """Whitespace collapsed and trimmed."""
    return " ".join(caption.split())


def choose_captions(key: str, captions: Sequence[str], choice: CaptionChoice, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of key and caption that a picture yields; none if it has no caption that is not empty.

    Args:
        key: of the picture.
        captions: all it has.
        choice: the `first`, one at `random` (by a hash of seed and key, so that it is the same every time), or `all`,
            each as a pair of its own with the key `<key>#<number>`.
        seed: of the random choice.
    """
    present = [text for caption in captions if (text := clean(caption))]
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
