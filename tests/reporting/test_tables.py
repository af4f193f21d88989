"""Tables on disk and in the terminal."""

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmmono.reporting import tables
from mmmono.reporting.result import Result
from mmmono.reporting.tables import console, save_table, show_table


def test_a_table_without_rows_says_so() -> None:
    with console.capture() as captured:
        show_table([], "Table 6, raw: words of female texts")
    assert captured.get() == "Table 6, raw: words of female texts: none\n"


NAME, MISSING = ("words " * 12).strip(), "make section-2.1 " + "x" * 150
WIDE: list[dict[str, object]] = [{"section": "2.1", "name": NAME, "count": 1234, "value": 0.125, "missing": MISSING}]


def shown(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[str]:
    """Lines of that table, printed to such a console; without colors."""
    written = io.StringIO()
    monkeypatch.setattr(tables, "console", tables.SafeConsole(soft_wrap=True, file=written, no_color=True, **options))
    show_table(WIDE, "wide")
    return [re.sub(r"\x1b\[[\d;]*m", "", line) for line in written.getvalue().splitlines()]


def test_a_log_has_all_columns_of_a_wide_table_in_one_line_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow columns had vanished in favor of wide ones, which were cut."""
    [row] = [line for line in shown(monkeypatch, width=160) if "1,234" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "2.1", NAME, "1,234", "0.125", MISSING,
    ]  # fmt: skip


@pytest.mark.parametrize("width", [80, 40])
def test_a_terminal_folds_text_and_cuts_nothing(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = shown(monkeypatch, width=width, force_terminal=True)
    assert max(map(len, lines)) == max(width, 65)  # numbers need as much, and 16 characters of text
    cells = [line.strip("│").split("│") for line in lines if line.startswith("│")]
    columns = ["".join("".join(column).split()) for column in zip(*cells, strict=True)]
    assert columns == ["2.1", "words" * 12, "1,234", "0.125", MISSING.replace(" ", "")]


def test_tables_keep_their_rows(tmp_path: Path) -> None:
    rows = [{"name": "raw", "value": 0.5, "count": 3}, {"name": "sae", "value": float("nan"), "count": None}]
    file = save_table(rows, tmp_path / "table")
    assert file == tmp_path / "table.parquet"
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]
    assert pd.read_parquet(file)["name"].tolist() == ["raw", "sae"]
    back = Result(tmp_path, {}).rows("table")
    assert back == [{"name": "raw", "value": 0.5, "count": 3}, {"name": "sae", "value": None, "count": None}]
    assert isinstance(back[0]["count"], int)


def test_columns_are_those_declared_in_their_order(tmp_path: Path) -> None:
    rows = [{"b": 1.0}, {"a": 2, "b": 3.0}]
    save_table(rows, tmp_path / "table", ["a", "b", "c"])
    assert Result(tmp_path, {}).rows("table") == [{"a": None, "b": 1.0}, {"a": 2, "b": 3.0}]
    save_table([], tmp_path / "empty", ["a", "b"])
    assert list(Result(tmp_path, {}).table("empty")) == ["a", "b"]
    with pytest.raises(KeyError, match="table declares no column b"):
        save_table(rows, tmp_path / "table", ["a"])


def test_figures_are_found_by_their_pattern_in_the_order_of_the_feature_sets(tmp_path: Path) -> None:
    for name in ("sae-ImgD", "raw-ImgD", "raw-TextD", "raw-ImgD-47", "other-ImgD", "raw-curves"):
        (tmp_path / f"{name}.png").touch()
    result = Result(tmp_path, {"sets": [{"name": "sae"}, {"name": "raw"}]})
    classes = {"members": ("TextD", "ImgD")}
    assert [name for name, _ in result.figures("{feature_set}-{members}", classes)] == [
        "sae-ImgD", "raw-TextD", "raw-ImgD",
    ]  # fmt: skip
    assert result.figures("{feature_set}-curves") == [("raw-curves", {"feature_set": "raw"})]
    assert [name for name, _ in result.figures("{feature_set}-ImgD-{feature}")] == ["raw-ImgD-47"]
