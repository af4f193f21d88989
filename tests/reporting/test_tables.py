"""Tables that have nothing to show."""

from pathlib import Path

import pandas as pd

from mmmono.reporting.rows import word_rows
from mmmono.reporting.tables import console, save_table, show_table


def test_a_table_without_rows_says_so() -> None:
    with console.capture() as captured:
        show_table([], "Table 6, raw: words of female texts")
    assert captured.get() == "Table 6, raw: words of female texts: none\n"


def test_words_of_texts_that_have_too_few_are_no_rows(tmp_path: Path) -> None:
    files = save_table([], tmp_path / "table6")
    assert word_rows(pd.read_parquet(files[0]), "raw") == []
