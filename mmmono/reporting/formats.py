"""How numbers of saved tables are written where they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def names(rows: Iterable[Mapping[str, Any]], key: str = "feature_set") -> list[str]:
    """Distinct values of a column, in order of appearance."""
    return list(dict.fromkeys(str(row[key]) for row in rows))


def with_error(row: Mapping[str, Any], metric: str) -> str:
    """Format a mean with its standard error; `none` if there is no mean."""
    if row[metric] is None:
        return "none"
    error = row[f"{metric}_se"]
    return f"{row[metric]:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def points(row: Mapping[str, Any], key: str) -> str:
    """Format a difference of accuracies with its interval in percentage points; empty without an interval."""
    value, low, high = (row.get(key + end) for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return ""
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
