"""Text in figures: as it is, in fonts that have its letters, or else transliterated; never mathematics, never boxes."""

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

TICK_CELLS = 24  # the longest label of a tick; Chinese letters take two cells
CELLS_AN_INCH = 14  # of a line that is as long as the figure is wide
# Fonts of these names are asked first, then any other; these here print boxes, or are pictures.
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
    """Text with every letter that no font of this system has transliterated, such as `Gou` for 狗; line breaks stay."""
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
    """A drawable text in lines of so many cells; long words are broken, and what is too much ends in `…`.

    Args:
        text: white space in it is where lines may end.
        cells: Latin letters a line; letters of East Asia take two.
        lines: at most so many; None for all.
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
    """A line that is at most so many cells wide, ending in `…` where it was longer."""
    if width(line) <= cells:
        return line
    kept = next(_pieces(line.rstrip("…").rstrip(), cells - 2), "").rstrip()
    return f"{kept} …"


def fit_text(figure: Figure) -> list[str]:
    """Make every text of a figure drawable; return the fonts for it, in the order in which they are asked.

    Labels of ticks are replaced as they are drawn; all others at once.
    """
    for axes in figure.get_axes():
        for axis in (axes.xaxis, axes.yaxis):
            labels = axis.get_major_formatter()
            if isinstance(labels, FuncFormatter) and not isinstance(labels, _Fitted):
                axis.set_major_formatter(_Fitted(labels))
    longest = int(CELLS_AN_INCH * figure.get_figwidth())
    found: list[Text] = figure.findobj(Text)
    letters: set[str] = set()
    for text in found:
        fitted = _fitted(text.get_text(), longest)
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
    """Labels of ticks that somebody chose, made drawable."""

    def __init__(self, labels: FuncFormatter) -> None:
        super().__init__(lambda value, position: _fitted(labels(value, position), TICK_CELLS))


def _fitted(text: str, cells: int) -> str:
    return "\n".join(shortened(line, cells) for line in drawable(text).split("\n"))


def width(text: str) -> int:
    """How many Latin letters a text is about as wide as: letters of East Asia and emoji count two, marks nothing."""
    return sum(0 if _is_mark(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter) in ("Mn", "Me", "Cf") or "\U0001f3fb" <= letter <= "\U0001f3ff"  # skin tones


def _pieces(word: str, cells: int) -> Iterator[str]:
    """A word in pieces of at most so many cells; marks stay with their letters."""
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
    """Code points of the font that figures are drawn in."""
    return _letters_of(font_manager.findfont(font_manager.FontProperties()))


@lru_cache(maxsize=4096)
def _has_all(text: str) -> bool:
    return all(ord(letter) in _own_font() for letter in text if letter != "\n")


@lru_cache(maxsize=1 << 16)
def _font_of(letter: str) -> str | None:
    """The family to draw a letter with; None where no font has it."""
    if ord(letter) in _own_font():
        return ""
    return _families_by_letter().get(ord(letter))


def _families(letters: set[str]) -> list[str]:
    others = {_font_of(letter) for letter in letters if letter not in "\n "} - {"", None}
    own = font_manager.FontProperties().get_family()
    return [*own, *(family for family, _ in _fallbacks() if family in others)]


@cache
def _fallbacks() -> list[tuple[str, str]]:
    """Families of the system and a file of each, in the order in which they are asked."""
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
    """The first family that has each code point; all fonts are looked through once, when a first letter needs it."""
    found: dict[int, str] = {}
    for family, file in reversed(_fallbacks()):
        found.update(dict.fromkeys(_letters_of(file), family))
    return found


def _letters_of(file: str) -> frozenset[int]:
    """Code points that a font file has; none where it cannot be read or has pictures alone."""
    try:
        font = FT2Font(file)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()
