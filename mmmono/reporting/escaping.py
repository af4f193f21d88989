"""Escape user text for each output format: one rule per format, applied to all text written there.

`tables.SafeConsole` does the same for the terminal, `figure_text` for figures and `pages.render` for HTML pages.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from anyascii import anyascii

from mmmono.core.text import encodable, one_line

# Underscores inside words, and brackets not followed by a parenthesis, are literal in Markdown.
MARKDOWN = re.compile(r"([\\`*<>|~$&]|^#|](?=\()|(?<![^\W_])_|_(?![^\W_]))")
IN_SCRIPTS = re.compile("[<>&\u2028\u2029]")
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": r"\`{}", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "→": r"$\to$",
    "←": r"$\leftarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "∞": r"$\infty$", "½": r"$\frac{1}{2}$",
    "²": "$^2$", "³": "$^3$", "°": r"$^\circ$", "µ": r"$\mu$", "·": r"$\cdot$", "•": r"$\bullet$", "ø": r"{\o}",
    "Ø": r"{\O}", "æ": r"{\ae}", "Æ": r"{\AE}", "œ": r"{\oe}", "Œ": r"{\OE}", "ß": r"{\ss}", "ł": r"{\l}", "Ł": r"{\L}",
    "ı": r"{\i}", "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "£": r"\pounds{}", "¿": "?`", "¡": "!`",
    "…": r"\ldots{}", "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "\u00a0": "~",
}  # fmt: skip
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
GREEK = re.compile(
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega|"
    "Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega"
)  # TeX has these commands; it has none for capitals that look like Latin letters
WANDB_TAG, WANDB_NAME = 64, 128  # maximum lengths in W&B
TAG_LETTERS = 200  # maximum length of a TensorBoard tag, which becomes part of file names and URLs


def markdown(text: str) -> str:
    """Escape text so that Markdown renders it literally, on one line, inside or outside a table."""
    return MARKDOWN.sub(r"\\\1", one_line(text))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[bool]) -> str:
    """Format a table in GitHub's Markdown, with a header row and numeric columns aligned right."""
    rule = "|".join(" ---: " if right else " --- " for right in numeric)
    lines = [f"| {' | '.join(map(markdown, cells))} |" for cells in (columns, *rows)]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def latex(text: str) -> str:
    """Escape text for pdfLaTeX, XeLaTeX and LuaLaTeX, on one line; needs no packages.

    XeLaTeX and LuaLaTeX print letters beyond Latin and Greek if the font has them. pdfLaTeX, which would stop with an
    error, prints their transliteration.
    """
    printed: list[str] = []
    foreign = ""
    for character in unicodedata.normalize("NFC", one_line(text)):
        known = _latex_letter(character)
        if known is None:
            foreign += character
            continue
        printed += [_latex_foreign(foreign), known]
        foreign = ""
    joined = "".join([*printed, _latex_foreign(foreign)])
    joined = re.sub(r"(?<=[-',])(?=[-',])", "{}", joined)  # prevents ligatures (dashes, quotation marks)
    return "{}" + joined if joined.startswith(("[", "*")) else joined  # else an argument of `\\`


def _latex_letter(character: str) -> str | None:
    """LaTeX code for a character that all three engines print; None for other characters."""
    if character in LATEX:
        return LATEX[character]
    if character.isascii():
        return character
    decomposed = unicodedata.normalize("NFD", character)
    base, marks = decomposed[0], decomposed[1:]
    if marks and base.isascii() and base.isalpha() and all(mark in ACCENTS for mark in marks):
        letter = rf"\{base} " if base in "ij" and "\u0323" not in marks and "\u0327" not in marks else base
        for mark in marks:
            letter = rf"\{ACCENTS[mark]}{{{letter}}}"
        return letter
    match = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)", unicodedata.name(character, ""))
    if match:
        name = match[2].lower().replace("lamda", "lambda")
        name = name.capitalize() if match[1] == "CAPITAL" else name
        return rf"$\{name}$" if GREEK.fullmatch(name) else None
    return None


def _latex_foreign(text: str) -> str:
    if not text:
        return ""
    spelled = anyascii(text).strip() or " ".join(f"U+{ord(character):04X}" for character in text)
    plain = "".join(LATEX.get(character, character) for character in spelled if character.isascii())
    return rf"\ifdefined\Uchar {text}\else {plain}\fi{{}}"


def script_json(value: object) -> str:
    """Serialize a value as JSON that is safe in a script, whether inside an HTML page or in its own file.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = encodable(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    return IN_SCRIPTS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def encodable_rows(rows: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """Replace lone surrogates in a table's text by U+FFFD: Parquet, JSON and data frames cannot hold them."""
    return [
        {encodable(key): encodable(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    ]


def wandb_name(text: str) -> str:
    """Make a valid W&B name of a run, group or metric: one line, not empty, at most 128 characters."""
    return _shortened(one_line(text), WANDB_NAME) or "_"


def wandb_tags(texts: Iterable[str]) -> list[str]:
    """Make valid W&B tags: not empty, at most 64 characters, without duplicates."""
    return list(dict.fromkeys(_shortened(tag, WANDB_TAG) for text in texts if (tag := one_line(text))))


def wandb_artifact_name(text: str) -> str:
    """Make a valid W&B artifact name, which has only ASCII letters, digits, `-`, `_` and `.`.

    Other characters become `_`; a digest is then appended, so that different names stay different.
    """
    plain = re.sub(r"[^a-zA-Z0-9_.-]", "_", text)
    return _shortened(plain, WANDB_NAME) if plain == text else f"{plain[: WANDB_NAME - 11]}-{_digest(text)}"


def tensorboard_tag(text: str) -> str:
    """Make a valid TensorBoard tag: letters, digits, `-`, `_`, `.` and `/`, at most 200 characters."""
    plain = re.sub(r"[^-/\w.]", "_", one_line(text)).strip("/")
    return _shortened(plain, TAG_LETTERS) or "_"


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 11]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(encodable(text).encode()).hexdigest()[:10]
