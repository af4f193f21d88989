"""Tables of results: rows of a frozen dataclass, on the terminal and as files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmmono.core.text import file_name, one_line, printable
from mmmono.reporting.escaping import encodable_rows


class SafeConsole(Console):
    """A terminal that prints text as it is: brackets are no markup, `:name:` no emoji, escapes no commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Everything that is printed as a string, in a table or by itself, comes by here."""
        return super().render_str(printable(text), **options)


# Where nobody sees a terminal there is no width to fit: logs keep their columns whole.
console = SafeConsole(soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def show_table(rows: Sequence[dict[str, object]], title: str) -> None:
    """Print rows as a table on the terminal."""
    console.print(terminal_table(rows, title))


def terminal_table(rows: Sequence[dict[str, object]], title: str) -> Table:
    """Rows as a table of the terminal's: each on one line, numbers flush right."""
    table = Table(title=one_line(title), title_justify="left")
    for column in rows[0]:
        numeric = isinstance(rows[0][column], int | float)
        table.add_column(one_line(column), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(one_line(cell(value)) for value in row.values()))
    return table


def save_table(rows: Sequence[dict[str, object]], path: Path) -> list[Path]:
    """Write `<path>.parquet` and `<path>.json` (one object a row)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(encodable_rows(rows))
    written = [path.with_name(file_name(path.name) + suffix) for suffix in (".parquet", ".json")]
    frame.to_parquet(written[0], index=False)
    written[1].write_text(frame.to_json(orient="records", indent=2) + "\n")
    return written


def cell(value: object) -> str:
    """A value as tables print it."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
