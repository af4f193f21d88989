"""How each output takes the text that users bring: one rule an output, applied to all that goes there.

The terminal's rule is `tables.SafeConsole`, that of figures `figure_text`, that of pages `pages.render`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from anyascii import anyascii

from mmmono.core.text import encodable, one_line

# Underscores within words, and brackets that no address follows, are what they seem.
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
)  # commands of TeX; capitals that look like Latin letters have none
WANDB_TAG, WANDB_NAME = 64, 128  # letters that W&B takes
TAG_LETTERS = 200  # of TensorBoard's names, which become names of files and parts of addresses


def markdown(text: str) -> str:
    """Text as a Markdown renderer prints it, on one line, in a cell of a table or anywhere else."""
    return MARKDOWN.sub(r"\\\1", one_line(text))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[bool]) -> str:
    """A table with a head, in GitHub's Markdown; columns of numbers are set flush right."""
    rule = "|".join(" ---: " if right else " --- " for right in numeric)
    lines = [f"| {' | '.join(map(markdown, cells))} |" for cells in (columns, *rows)]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def latex(text: str) -> str:
    """Text as LaTeX prints it, on one line; pdfLaTeX, XeLaTeX and LuaLaTeX all take it without packages.

    Letters beyond Latin and Greek are printed by XeLaTeX and LuaLaTeX, given a font that has them; pdfLaTeX, which would
    stop at them, prints their transliteration.
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
    joined = re.sub(r"(?<=[-',])(?=[-',])", "{}", joined)  # else they join to a dash or a quotation mark
    return "{}" + joined if joined.startswith(("[", "*")) else joined  # else `\\` takes them for its own


def _latex_letter(character: str) -> str | None:
    """A character that every LaTeX prints; None for others."""
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
    """A value as JSON that may stand in a script, within a page or beside it; NaN is an error."""
    text = encodable(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    return IN_SCRIPTS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def encodable_rows(rows: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """Rows of a table with text that Parquet, JSON and data frames can hold; lone surrogates become U+FFFD."""
    return [
        {encodable(key): encodable(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    ]


def wandb_name(text: str, longest: int = WANDB_NAME) -> str:
    """A run's, group's or metric's name as W&B takes it: on one line, not empty, not too long."""
    return _shortened(one_line(text), longest) or "_"


def wandb_tags(texts: Iterable[str]) -> list[str]:
    """Tags as W&B takes them: not empty, of at most 64 letters, each once."""
    return list(dict.fromkeys(_shortened(tag, WANDB_TAG) for text in texts if (tag := one_line(text))))


def wandb_artifact_name(text: str) -> str:
    """An artifact's name as W&B takes it: ASCII letters, digits, `-`, `_` and `.` alone.

    Other letters become `_`; a digest then keeps apart what they told apart.
    """
    plain = re.sub(r"[^a-zA-Z0-9_.-]", "_", text)
    return _shortened(plain, WANDB_NAME) if plain == text else f"{plain[: WANDB_NAME - 11]}-{_digest(text)}"


def tensorboard_tag(text: str) -> str:
    """A tag as TensorBoard takes it: letters, digits, `-`, `_`, `.` and `/`, at most 200 of them."""
    plain = re.sub(r"[^-/\w.]", "_", one_line(text)).strip("/")
    return _shortened(plain, TAG_LETTERS) or "_"


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 11]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(encodable(text).encode()).hexdigest()[:10]
