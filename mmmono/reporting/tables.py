"""Tables of results: rows of a frozen dataclass, on the terminal and as files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

# Where nobody sees a terminal there is no width to fit: logs keep their columns whole.
console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def show_table(rows: Sequence[dict[str, object]], title: str) -> None:
    """Print rows as a table on the terminal."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        numeric = isinstance(rows[0][column], int | float)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    console.print(table)


def save_table(rows: Sequence[dict[str, object]], path: Path) -> list[Path]:
    """Write `<path>.parquet` and `<path>.json` (one object a row)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(list(rows))
    written = [path.with_suffix(suffix) for suffix in (".parquet", ".json")]
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
