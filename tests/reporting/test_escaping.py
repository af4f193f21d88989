"""Each output prints any text as it is: read back by a parser of its own language."""

import io
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len

from mmmono.core.text import encodable, one_line, printable
from mmmono.reporting import escaping
from mmmono.reporting.report import ReportTable
from mmmono.reporting.result import Result
from mmmono.reporting.tables import SafeConsole, save_table, terminal_table
from tests.nasty import NASTY, nasty_text


def cells(source: str) -> list[list[str]]:
    """Rows of the one table of a Markdown text, as they are printed."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(source)
    rows: list[list[str]] = []
    for before, token in itertools.pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if before.type in ("th_open", "td_open"):
            assert token.children is not None
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "text_special"}, kinds  # no code, emphasis, link or HTML
            rows[-1].append("".join(child.content for child in token.children))
    assert [token.type for token in tokens if token.level == 0] == ["table_open", "table_close"]
    return rows


@given(st.lists(nasty_text(), min_size=4, max_size=4))
def test_markdown_tables_print_any_text(texts: list[str]) -> None:
    table = escaping.markdown_table(texts[:2], [texts[2:]], [False, True])
    expected = [[one_line(text).strip("\u200b") for text in row] for row in (texts[:2], texts[2:])]
    assert [[cell.strip("\u200b") for cell in row] for row in cells(table)] == expected


def test_a_reports_table_in_markdown() -> None:
    rows = [{"word": text, "n": number} for number, text in enumerate(NASTY)]
    source = ReportTable("words", "Table `6` of *x* | y", rows).to_markdown()
    title, table = source.split("\n\n", 1)
    (paragraph,) = [token for token in MarkdownIt().parse(title) if token.type == "inline"]
    assert "".join(child.content for child in paragraph.children or ()) == "Table `6` of *x* | y"
    assert [row[0] for row in cells(table)[1:]] == [one_line(text) for text in NASTY]


@given(nasty_text())
def test_latex_leaves_no_special_character_unescaped(text: str) -> None:
    printed = escaping.latex(text)
    rest = re.sub(r"\\ifdefined\\Uchar [^\x00-\x7f]*", "", printed)  # what pdfLaTeX skips
    assert rest.isascii()
    rest = re.sub(r"\\[&%$#_{}]|\\[a-zA-Z]+|\\[`'^~=.\"]", " ", rest)  # not "", which would join what it parts
    assert "\\" not in rest
    assert not set(rest) & set('&%#_"<>|')
    rest = re.sub(r"\$[^$]*\$", " ", rest)
    assert "$" not in rest
    assert "^" not in rest
    assert rest.count("{") == rest.count("}")
    assert not printed.startswith(("[", "*"))
    assert "--" not in rest.replace("--", "", len(re.findall("[–—]", text)) * 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 % of $6 & #1_a {b}", r"5 \% of \$6 \& \#1\_a \{b\}"),
        ("naïve café Łódź ģ", r"na\"{\i }ve caf\'{e} {\L}\'{o}d\'{z} \c{g}"),
        ("Δ α λ Ω", r"$\Delta$ $\alpha$ $\lambda$ $\Omega$"),
        ("a--b", "a-{}-b"),
        ("[x]", "{}[x]"),
        ("狗 x", r"\ifdefined\Uchar 狗\else Gou\fi{} x"),
        ("\ue000", "\\ifdefined\\Uchar \ue000\\else U+E000\\fi{}"),
    ],
)
def test_latex_as_it_is_written(text: str, expected: str) -> None:
    assert escaping.latex(text) == expected


@pytest.mark.parametrize("engine", ["pdflatex", "xelatex"])
def test_latex_tables_compile(engine: str, tmp_path: Path) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"no {engine} on PATH")
    letters = "".join(chr(code) for code in range(0xA0, 0x600) if chr(code).isprintable())
    pieces = [letters[start : start + 40] for start in range(0, len(letters), 40)]
    rows = [{"w|_$": text, "n": number} for number, text in enumerate([*NASTY, *pieces, *escaping.LATEX])]
    for title in ("Words: 50 % of $x_1$ & 狗", "short"):
        table = ReportTable("words", title, rows).to_latex()
        source = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\tiny\n" + table + "\\end{document}\n"
        (tmp_path / "t.tex").write_text(source, encoding="utf-8")
        run = subprocess.run(
            [engine, "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        log = run.stdout.decode(errors="replace")
        assert run.returncode == 0, log[-1500:]
        assert (tmp_path / "t.pdf").stat().st_size > 1000


@given(nasty_text())
def test_json_in_scripts_cannot_end_them(text: str) -> None:
    written = escaping.script_json({"caption": text, text: [text]})
    assert not set(written) & set("<>&\u2028\u2029")
    written.encode()
    assert json.loads(written) == {"caption": encodable(text), encodable(text): [encodable(text)]}


@given(texts=st.lists(nasty_text(), min_size=1, max_size=5))
def test_tables_in_files_hold_any_text(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "nasty"
    save_table([{"text": text, "n": number} for number, text in enumerate(texts)], path)
    for back in (pd.read_parquet(f"{path}.parquet").to_dict("records"), Result(path.parent, {}).rows(path.name)):
        assert [row["n"] for row in back] == list(range(len(texts)))
        assert [row["text"] for row in back] == [encodable(text) for text in texts]


@given(nasty_text(), nasty_text())
def test_wandb_and_tensorboard_names(one: str, other: str) -> None:
    from wandb.sdk.artifacts._validators import validate_artifact_name, validate_tags

    tags = escaping.wandb_tags([one, other, one, one * 9])
    assert all(1 <= len(tag) <= 64 for tag in tags)
    assert len(set(tags)) == len(tags)
    for text in (one, one * 20):
        assert 1 <= len(escaping.wandb_name(text)) <= 128
        name = escaping.wandb_artifact_name(f"mds-{text}")
        assert validate_artifact_name(name) == name
        tag = escaping.tensorboard_tag(f"mds/{text}")
        assert re.fullmatch(r"[-/\w.]{1,200}", tag)
    assert validate_tags([]) == []
    if one != other:
        assert escaping.wandb_artifact_name(one) != escaping.wandb_artifact_name(other) or one.isascii()


@given(nasty_text())
@example("0\r0\v1\f2\r\n3")
def test_terminals_print_any_text(text: str) -> None:
    stream = io.StringIO()
    terminal = SafeConsole(file=stream, width=10_000, force_terminal=True, no_color=True)
    terminal.print(text, highlight=False, soft_wrap=True)
    assert stream.getvalue().split() == printable(text).split()
    stream.truncate(stream.seek(0))
    terminal.print(terminal_table([{text: text, "n": 1}], text))
    lines = stream.getvalue()
    assert "\x1b" not in re.sub(r"\x1b\[\d*m", "", lines)
    if cell_len(one_line(text)):  # Rich leaves out cells that take no room, such as a skin tone alone
        assert lines.count(one_line(text)) >= 2


def test_wide_letters_do_not_break_a_table() -> None:
    stream = io.StringIO()
    rows = [{"caption": text, "n": 1} for text in ("狗在跑", "dog [red] :dog:", "कुत्ता")]
    SafeConsole(file=stream, width=60).print(terminal_table(rows, "t"))
    lines = stream.getvalue().splitlines()[1:]
    assert len({cell_len(line) for line in lines}) == 1
    assert "dog [red] :dog:" in stream.getvalue()
