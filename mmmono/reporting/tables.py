"""Tables of results, printed in the terminal and saved as files; a table is a list of dictionaries, one per row."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.cells import cell_len
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


NARROWEST = 16  # columns of text are not made narrower than that to fit into a terminal
# Output that is not a terminal has no width to fit: logs get full columns, and titles of up to 160 characters.
console = SafeConsole(soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def show_table(rows: Sequence[dict[str, object]], title: str) -> None:
    """Print rows as a table in the terminal; without rows, say that there are none."""
    console.print(terminal_table(rows, title) if rows else f"{one_line(title)}: none")


def terminal_table(rows: Sequence[dict[str, object]], title: str) -> Table:
    """Format rows as a Rich table, with numeric columns aligned right.

    Each row is one line if that fits into the terminal, or if the output is none. If not, columns of text get several lines;
    no column is left out or cut, so that a table of many columns may be wider than the terminal.
    """
    table = Table(title=one_line(title), title_justify="left")
    cells = [[one_line(cell(value)) for value in row.values()] for row in rows]
    full, least = (len(rows[0]) * 3 + 1 for _ in range(2))  # borders and padding
    for place, column in enumerate(rows[0]):
        values = [row[column] for row in rows if row[column] not in (None, "")]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        longest = max(cell_len(printable(text)) for text in (one_line(column), *(row[place] for row in cells)))
        narrowest = longest if numeric else min(longest, NARROWEST)
        full, least = full + longest, least + narrowest
        table.add_column(
            one_line(column),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            min_width=narrowest,
            overflow="fold",
        )
    for row in cells:
        table.add_row(*row)
    table.width = min(full, max(least, console.width)) if console.is_terminal else full
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
