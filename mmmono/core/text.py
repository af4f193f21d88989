"""Makes text of unknown origin safe for other programs: only characters that can be encoded, drawn and printed.

Escaping for a single output format, such as LaTeX, is in `mmmono.reporting.escaping`.
"""

from __future__ import annotations

import hashlib
import unicodedata

BYTE_ORDER_MARK = "\ufeff"
# Embeddings, overrides and isolates: invisible, and an unclosed one reverses the text that follows it.
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
FILE_NAME_BYTES = 120  # of the 255 that file systems allow; digests, suffixes and temporary names take the rest
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))})


def decode_text(data: bytes) -> str:
    """Decode the bytes of a text file: UTF-8, or UTF-16 if they begin with its byte order mark.

    Bytes that are not UTF-8 become U+FFFD, so that one invalid byte does not lose a caption.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def line_of_other_encoding(data: bytes) -> tuple[int, str] | None:
    """Number and bytes of the first line that is not UTF-8 in a file of which most lines with accents are not, else None.

    A broken byte or two among accents that are whole leave a file as it is. One that a spreadsheet saved as Latin-1 would
    lose all accents, and so would one whose only accent is broken.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return None
    try:
        data.decode()
    except UnicodeDecodeError:
        lines = {number: line for number, line in enumerate(data.splitlines(), 1) if not line.isascii()}
        broken = {number: line for number, line in lines.items() if "\ufffd" in line.decode(errors="replace")}
        if 2 * len(broken) > len(lines):
            number, line = next(iter(broken.items()))
            return number, line.strip()[:60].decode(errors="backslashreplace")
    return None


def encodable(text: str) -> str:
    """Return the text with adjacent surrogate halves joined and lone surrogates replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def escaped_bytes(text: str) -> str:
    r"""Return a file's name as valid UTF-8: other bytes, which arrive as surrogates, are written like `\xe9`.

    Unlike `encodable`, this keeps different names different, as keys require.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # surrogates that do not stand for a byte
            data = text.encode("utf-8", "backslashreplace")
        return data.decode("utf-8", "backslashreplace")
    return text


def printable(text: str) -> str:
    """Return the text without invisible characters that break programs.

    Removes byte order marks, control characters (such as NUL and escape), bidirectional embeddings, overrides and
    isolates, and noncharacters; lone surrogates become U+FFFD. White space of any kind, joiners (which emoji and
    several scripts need) and direction marks stay. Nothing is normalized: composed and decomposed letters stay as they
    are.
    """
    text = encodable(text)
    return text if text.isascii() and text.isprintable() else "".join(map(_kept, text))


def one_line(text: str) -> str:
    """Return the printable text on one line, with every run of white space as one space."""
    return " ".join(printable(text).split())


def message_of(error: BaseException, longest: int = 120) -> str:
    """Return an error's message on one line, cut to `longest` characters; the name of its type if it has no message."""
    return one_line(str(error))[:longest] or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not empty; the name of its type if it has no message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def is_visible(text: str) -> bool:
    """Whether a text contains a visible character: not only spaces, marks and control or formatting characters."""
    return any(unicodedata.category(c) not in ("Zs", "Zl", "Zp", "Cf", "Cc", "Cs", "Mn", "Me") for c in text)


def file_name(text: str) -> str:
    """Convert a text to a file or folder name that every file system accepts.

    Letters and digits of any script, `-`, `_` and `.` stay; other characters become `_`. Names that are too long are
    cut and end in a digest of the whole text, so that different texts keep different names.
    """
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in unicodedata.normalize("NFC", encodable(text)))
    if not kept.strip("._") or kept.startswith((".", "-")) or kept.partition(".")[0].lower() in RESERVED:
        kept = f"_{kept}"
    if len(kept.encode()) <= FILE_NAME_BYTES:
        return kept
    tail = "_" + hashlib.sha256(encodable(text).encode()).hexdigest()[:10]
    return kept.encode()[: FILE_NAME_BYTES - len(tail)].decode(errors="ignore") + tail


def _kept(character: str) -> str:
    if character == BYTE_ORDER_MARK or character in BIDI_CONTROLS or _is_noncharacter(ord(character)):
        return ""
    if unicodedata.category(character) != "Cc" or character in "\t\n\r":
        return character
    return " " if character.isspace() else ""  # form feeds and the like separate words


def _is_noncharacter(code: int) -> bool:
    return 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
