"""Captions that fill the context, against the number of tokens that the tokenizers themselves find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
from transformers import AutoProcessor

from mmmono.features import extract_features
from mmmono.features.context import Context
from mmmono.vlm import load_transformers
from tests.fakes import ColorPairs
from tests.tiny_clip import tiny_clip
from tests.vlm.tiny_transformers import write_tiny

LENGTHS = (1, 5, 18, 19, 20, 21, 30, 73, 74, 75, 76, 77, 300)


def captions() -> list[str]:
    """Captions of as many words, and of one word of as many letters; with accents, signs, emoji, and nothing."""
    words = np.random.default_rng(0).choice(["red", "dog", "flügelhorn", "🙂", "U+1F600", "a,b"], max(LENGTHS)).tolist()
    return ["", *(" ".join(words[:length]) for length in LENGTHS), *("z" * length for length in LENGTHS), "\udce9" * 80]


@pytest.mark.parametrize("trimmed", [True, False])
@pytest.mark.parametrize("context", [77, 20])
def test_captions_of_open_clip(context: int, trimmed: bool) -> None:
    own = open_clip.SimpleTokenizer(context_length=context)
    tokenize: Callable[[list[str]], Any] = tiny_clip().tokenize if trimmed and context == 77 else own
    texts = captions()[:-1]
    expected = [len(own.encode(text)) + 2 >= context for text in texts]
    assert 3 < sum(expected) < len(texts) - 3
    found = Context(tokenize)
    assert found.length == context
    assert found.is_full(texts, tokenize(texts)) == expected
    for text, full in zip(texts, expected, strict=True):  # in batches of their own
        assert found.is_full([text], tokenize([text])) == [full]
    assert found.is_full([], tokenize([])) == []


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "aimv2", "align"])
def test_captions_of_transformers(tmp_path: Path, kind: str) -> None:
    folder = write_tiny(tmp_path / kind, kind)
    tokenize: Any = load_transformers(str(folder)).tokenize
    own: Any = AutoProcessor.from_pretrained(folder)
    texts = [" ".join(["dog", "red", "xyz"][i % 3] for i in range(length)) for length in (1, 4, 7, 17, 18, 19, 20, 40)]
    expected = [len(own.tokenizer(text)["input_ids"]) >= 20 for text in texts]
    assert 1 < sum(expected) < len(texts) - 1
    assert Context(tokenize).is_full(texts, tokenize(texts)) == expected


class Wordy(ColorPairs):
    """Every third caption is longer than CLIP reads."""

    def read(self, part: int) -> Any:
        for number, pair in enumerate(super().read(part)):
            yield replace(pair, caption="a word " * (60 if number % 3 == 0 else 6))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_manifest_counts_them(tmp_path: Path, workers: int) -> None:
    source = Wordy()
    manifest = extract_features(source, tiny_clip(), tmp_path / "all", batch_size=2, workers=workers)
    assert manifest.full == sum(-(-size // 3) for size in source.sizes)
    source = Wordy()
    source.limit = source.sizes[0] + 2
    manifest = extract_features(source, tiny_clip(), tmp_path / "some", batch_size=4, workers=workers)
    assert manifest.full == -(-source.sizes[0] // 3) + 1
