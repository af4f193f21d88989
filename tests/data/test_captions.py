import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from mmmono.data.captions import choose_captions, clean, label_or_empty, text_or_empty
from tests.nasty import nasty_text


@pytest.mark.parametrize("value", [None, float("nan"), {"raw": "a dog"}, ["a dog"], [["a"]], 7, 0.5, True, pd.NA, ()])
def test_only_strings_are_captions(value: object) -> None:
    assert text_or_empty(value) == ""
    assert choose_captions("k", [value, "a dog", value], "all") == [("k#0", "a dog")]
    assert choose_captions("k", [value], "first") == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "7"), (np.int64(-3), "-3"), (2.0, "2"), (np.float32(0.5), "0.5"), (True, "true"), (np.True_, "true"),
        (b"caf\xc3\xa9", "café"), ("\ufeff outdoor\n", "outdoor"), (math.nan, ""), (math.inf, ""), (None, ""),
        (pd.NA, ""), (pd.NaT, ""), ({"a": 1}, ""), (["a"], ""), (np.array(["a"]), ""), (np.str_("x"), "x"),
    ],
)  # fmt: skip
def test_labels_are_text_or_numbers(value: object, expected: str) -> None:
    assert label_or_empty(value) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("\ufeff A  dog \r\n runs\u2028here ", "A dog runs here"),
        ("\u200b\u2060 \ufeff\x00", ""),
        ("\x00\x00", ""),
        ("b\x00y\x00t\x00e\x00s\x00", "bytes"),
        ("❤️", "❤️"),
        ("...", "..."),
        ("नमस्ते", "नमस्ते"),
    ],
)
def test_captions_are_cleaned(caption: str, expected: str) -> None:
    assert clean(caption) == expected


@given(nasty_text())
def test_cleaning_is_stable_and_leaves_what_every_output_can_encode(caption: str) -> None:
    once = clean(caption)
    assert clean(once) == once
    assert once == once.strip()
    assert once.encode().decode() == once
    assert len(once.splitlines()) <= 1
