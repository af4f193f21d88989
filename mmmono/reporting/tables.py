"""Tables of results, printed in the terminal and saved as files; a table is a list of dictionaries, one per row."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmmono.core.text import file_name, one_line, printable
from mmmono.reporting.escaping import encodable_rows


class SafeConsole(Console):
    """Console that prints text literally: no markup in brackets, no emoji for `:name:`, no escape sequences."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Sanitize a string; Rich calls this for every string it prints, inside or outside a table."""
        # Rich drops carriage returns, vertical tabs and form feeds, which would join the words beside them.
        return super().render_str(re.sub(r"\r\n?|[\v\f]", "\n", printable(text)), **options)


# Output that is not a terminal has no width to fit, so logs get full columns.
console = SafeConsole(soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def show_table(rows: Sequence[dict[str, object]], title: str) -> None:
    """Print rows as a table in the terminal; without rows, say that there are none."""
    console.print(terminal_table(rows, title) if rows else f"{one_line(title)}: none")


def terminal_table(rows: Sequence[dict[str, object]], title: str) -> Table:
    """Format rows as a Rich table: one line per row, numeric columns aligned right."""
    table = Table(title=one_line(title), title_justify="left")
    for column in rows[0]:
        values = [row[column] for row in rows if row[column] not in (None, "")]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        table.add_column(one_line(column), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(one_line(cell(value)) for value in row.values()))
    return table


def save_table(rows: Sequence[Mapping[str, object]], path: Path, columns: Sequence[str] = ()) -> Path:
    """Write `<path>.parquet` and return its path.

    Args:
        rows: one mapping per row; None where there is no value.
        path: path without suffix.
        columns: names and order of the columns; by default those of the rows. A row may lack some.

    Raises:
        KeyError: a row has a column that is not among `columns`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    cleaned = encodable_rows(rows)
    found = list(dict.fromkeys(key for row in cleaned for key in row))
    if columns and (unknown := [key for key in found if key not in columns]):
        raise KeyError(f"table {path.name} declares no column {', '.join(unknown)}")
    names = [name for name in columns if name in found] if columns and found else list(columns) or found
    table = pa.table({name: pa.array([row.get(name) for row in cleaned], from_pandas=False) for name in names})
    written = path.with_name(f"{file_name(path.name)}.parquet")
    pq.write_table(table, written)
    return written


def cell(value: object) -> str:
    """Format a value for tables: floats with three decimals, integers with thousands separators, None as empty."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
