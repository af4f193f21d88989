import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmono.core.text import (
    FILE_NAME_BYTES,
    decode_text,
    encodable,
    file_name,
    first_line,
    message_of,
    one_line,
    printable,
)
from tests.nasty import NASTY, nasty_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffa dog", "a dog"),
        ("a\x00 dog\x07", "a dog"),
        ("half \ud83d of a pair", "half \ufffd of a pair"),
        ("both \ud83d\ude00", "both 😀"),
        ("\u202egod a\u202c", "god a"),
        ("👨‍👩‍👧 می‌خواهم", "👨‍👩‍👧 می‌خواهم"),
        ("e\u0301 é", "e\u0301 é"),
        ("a\ufffe\U0001ffff", "a"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_what_cannot_be_seen_is_left_out(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(nasty_text())
def test_printable_text_is_stable_and_can_be_encoded(text: str) -> None:
    once = printable(text)
    assert printable(once) == once
    assert once.encode().decode() == once
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and not c.isspace() for c in once)
    assert "\n" not in one_line(text)
    assert one_line(one_line(text)) == one_line(text)


@given(st.text())
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert encodable(text) == text


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbfa dog", "a dog"),
        ("a café".encode("utf-16"), "a café"),
        (b"\xfe\xff" + "é".encode("utf-16-be"), "é"),
        (b"caf\xe9", "caf\ufffd"),
        (b"", ""),
    ],
)
def test_bytes_of_text_files(data: bytes, expected: str) -> None:
    assert decode_text(data) == expected


@given(text=nasty_text())
def test_any_text_names_a_file(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = file_name(text)
    assert 0 < len(name.encode()) <= FILE_NAME_BYTES + 1
    assert not set(name) & set('/\\:*?"<>|\x00 ')
    assert not name.startswith((".", "-"))
    folder = tmp_path_factory.getbasetemp() / "names" / name
    folder.mkdir(parents=True, exist_ok=True)
    assert folder.is_dir()


def test_ordinary_names_stay_and_long_ones_stay_apart() -> None:
    assert file_name("clip_vit-b.32 v2") == "clip_vit-b.32_v2"
    assert file_name("дата") == "дата"
    assert file_name("nul") == "_nul"
    assert file_name("..") == "_.."
    long = ["字" * 200 + end for end in "ab"]
    assert len({file_name(text) for text in long}) == 2
    assert all(file_name(text) for text in NASTY)


def test_what_an_error_says_is_one_line_and_never_empty() -> None:
    several = ValueError("\n  missing keys:\n\tcls_token\n")
    assert (message_of(several), first_line(several)) == ("missing keys: cls_token", "missing keys:")
    assert message_of(ValueError("a" * 300)) == "a" * 120
    for silent in (ConnectionError(), ValueError(" \n ")):  # as clients of other libraries raise
        assert message_of(silent) == first_line(silent) == type(silent).__name__
