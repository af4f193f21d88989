"""Strings that can be written as UTF-8."""

from __future__ import annotations


def encodable(text: str) -> str:
    r"""The same text where UTF-8 can hold it; what it cannot hold, such as a lone surrogate, as `\udce9` or `\xe9`.

    Names of files that are not UTF-8 come from the system with each undecodable byte as a surrogate
    (`surrogateescape`): such a byte is written as itself, `\xe9`.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # surrogates that stand for no byte
            data = text.encode("utf-8", "backslashreplace")
        return data.decode("utf-8", "backslashreplace")
    return text
