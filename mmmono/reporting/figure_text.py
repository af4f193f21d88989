"""Text in figures: drawn literally in fonts that have its letters, else transliterated; no math, no missing glyphs."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache

from anyascii import anyascii
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from mmmono.core.text import printable

# A cell is the width of a Latin letter; East Asian letters take two.
TICK_CELLS = 24  # maximum length of a tick label
CELLS_AN_INCH = 14  # maximum length of other lines, per inch of the figure's width
# Prefixes of font names that are tried first; then all others except NO_FONTS, which draw boxes or pictographs.
PREFERRED = (
    "Noto Sans",
    "Noto",
    "Source Han Sans",
    "WenQuanYi",
    "Droid Sans",
    "Arial Unicode MS",
    "PingFang",
    "FreeSans",
)
NO_FONTS = ("Last Resort", "LastResort", "Emoji", "Adobe Blank", "STIX", "cm")
SUBSTITUTE = "?"


def drawable(text: str) -> str:
    """Transliterate letters that no installed font has, such as 狗 to `Gou`; line breaks stay."""
    text = printable(text).replace("\t", " ").replace("\r", "")
    if _has_all(text):
        return text
    drawn = []
    for letter in unicodedata.normalize("NFC", text):
        if letter in "\n " or _font_of(letter) is not None:
            drawn.append(letter)
        else:
            drawn.append(anyascii(letter) or ("" if _is_mark(letter) else SUBSTITUTE))
    return "".join(drawn)


def wrapped(text: str, cells: int, lines: int | None = None) -> list[str]:
    """Make a text drawable and wrap it at white space; words longer than a line are broken.

    Args:
        text: the text.
        cells: maximum width of a line, see `width`.
        lines: maximum number of lines; the last one then ends in `…` if text is cut. None for no limit.
    """
    filled = [""]
    for word in drawable(text).split():
        for piece in _pieces(word, cells):
            joined = f"{filled[-1]} {piece}" if filled[-1] else piece
            if width(joined) <= cells:
                filled[-1] = joined
            else:
                filled.append(piece)
    if lines is None or len(filled) <= lines:
        return filled if filled != [""] else []
    return [*filled[: lines - 1], shortened(f"{filled[lines - 1]} …", cells)]


def shortened(line: str, cells: int) -> str:
    """Cut a line to at most `cells` wide, ending in `…` if it was longer."""
    if width(line) <= cells:
        return line
    kept = next(_pieces(line.rstrip("…").rstrip(), cells - 2), "").rstrip()
    return f"{kept} …"


def fit_text(figure: Figure) -> list[str]:
    """Make every text of a figure drawable; return the font families for it, in order of preference.

    Tick labels are replaced when they are drawn, all other texts at once.
    """
    for axes in figure.get_axes():
        for axis in (axes.xaxis, axes.yaxis):
            labels = axis.get_major_formatter()
            if isinstance(labels, FuncFormatter) and not isinstance(labels, _Fitted):
                axis.set_major_formatter(_Fitted(labels))
    longest = int(CELLS_AN_INCH * figure.get_figwidth())
    found: list[Text] = figure.findobj(Text)
    heads = {figure.get_suptitle(), figure.get_supxlabel()}  # the layout makes room for a second line
    letters: set[str] = set()
    for text in found:
        head = text.get_text() in heads and "\n" not in text.get_text()
        fitted = "\n".join(wrapped(text.get_text(), longest, 2)) if head else _fitted(text.get_text(), longest)
        if fitted != text.get_text():
            text.set_text(fitted)
        letters.update(fitted)
    for axes in figure.get_axes():
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(formatter := axis.get_major_formatter(), _Fitted):
                letters.update("".join(formatter(value) for value in axis.get_majorticklocs()))
    families = _families(letters)
    for text in found:
        text.set_parse_math(False)
        text.set_fontfamily(families)
    return families


class _Fitted(FuncFormatter):
    """Tick formatter that makes another formatter's labels drawable."""

    def __init__(self, labels: FuncFormatter) -> None:
        super().__init__(lambda value, position: _fitted(labels(value, position), TICK_CELLS))


def _fitted(text: str, cells: int) -> str:
    return "\n".join(shortened(line, cells) for line in drawable(text).split("\n"))


def width(text: str) -> int:
    """Approximate width in cells (Latin letters): East Asian letters and emoji count two, combining marks zero."""
    return sum(0 if _is_mark(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter) in ("Mn", "Me", "Cf") or "\U0001f3fb" <= letter <= "\U0001f3ff"  # skin tones


def _pieces(word: str, cells: int) -> Iterator[str]:
    """Split a word into pieces at most `cells` wide; combining marks stay with their letters."""
    piece = ""
    for letter in word:
        if piece and width(letter) and width(piece + letter) > cells:
            yield piece
            piece = ""
        piece += letter
    if piece:
        yield piece


@cache
def _own_font() -> frozenset[int]:
    """Code points of Matplotlib's default font."""
    return _letters_of(font_manager.findfont(font_manager.FontProperties()))


@lru_cache(maxsize=4096)
def _has_all(text: str) -> bool:
    return all(ord(letter) in _own_font() for letter in text if letter != "\n")


@lru_cache(maxsize=1 << 16)
def _font_of(letter: str) -> str | None:
    """Font family for a letter: empty for the default font, None if no font has the letter."""
    if ord(letter) in _own_font():
        return ""
    return _families_by_letter().get(ord(letter))


def _families(letters: set[str]) -> list[str]:
    others = {_font_of(letter) for letter in letters if letter not in "\n "} - {"", None}
    own = font_manager.FontProperties().get_family()
    return [*own, *(family for family, _ in _fallbacks() if family in others)]


@cache
def _fallbacks() -> list[tuple[str, str]]:
    """Installed font families with a file of each, in order of preference."""
    files: dict[str, str] = {}
    weights = font_manager.weight_dict
    for entry in sorted(
        font_manager.fontManager.ttflist,
        key=lambda e: (abs((weights[e.weight] if isinstance(e.weight, str) else e.weight) - 400), e.style != "normal"),
    ):
        if not entry.name.startswith(NO_FONTS) and not any(word in entry.name for word in NO_FONTS[:3]):
            files.setdefault(entry.name, entry.fname)
    rank = {name: next((i for i, p in enumerate(PREFERRED) if name.startswith(p)), len(PREFERRED)) for name in files}
    return sorted(files.items(), key=lambda item: (rank[item[0]], item[0]))


@cache
def _families_by_letter() -> dict[int, str]:
    """First family that has each code point; reads all fonts once, when the default font first lacks a letter."""
    found: dict[int, str] = {}
    for family, file in reversed(_fallbacks()):
        found.update(dict.fromkeys(_letters_of(file), family))
    return found


def _letters_of(file: str) -> frozenset[int]:
    """Code points of a font file; empty if it cannot be read or is a bitmap font."""
    try:
        font = FT2Font(file)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()
