"""Formatting of the numbers in saved tables, for display."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

FAIR = 0.05  # largest mismatch of a random set that is called a good match
FEW = {2: "four to eight times", 3: "twice"}  # measured: tests/core/test_statistics.py


def names(rows: Iterable[Mapping[str, Any]], key: str = "feature_set") -> list[str]:
    """Distinct values of a column, in order of appearance."""
    return list(dict.fromkeys(str(row[key]) for row in rows))


def with_half_width(row: Mapping[str, Any], digits: int, scale: float = 1.0) -> str:
    """Format `mean` with half of the interval `mean_low` to `mean_high`, if there is one; empty if there is no mean."""
    if row["mean"] is None:
        return ""
    half = "" if row["mean_high"] is None else f" ± {scale * (row['mean_high'] - row['mean_low']) / 2:.{digits}f}"
    return f"{scale * row['mean']:.{digits}f}{half}"


def with_effective(groups: float, effective: float) -> str:
    """Format a number of groups, with that of effective ones if these are less than half: `351 groups (45 effective)`.

    Errors are those of so many groups of equal size: a few large groups decide what hundreds of small ones seem to.

    Args:
        groups: their number.
        effective: see `mmmono.core.statistics.effective_groups`.
    """
    return f"{int(groups):,} groups" + (f" ({effective:,.0f} effective)" if effective < groups / 2 else "")


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


def percent(share: float | None) -> str:
    """Format a share in percent; empty if there is none."""
    return "" if share is None else f"{100 * share:.1f}"


def p_value(p: float | None) -> str:
    """Format a p-value, which is never 0; empty if there is none."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def random_remarks(match: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Say what random sets have in common with their class, and for how many rows no fair set was found.

    Args:
        match: the setting `random_sets`.
        rows: rows of a table; `mismatch` is None where nothing is matched.
    """
    if match == "size":
        yield "random sets have the class' size alone; random_sets=energy also matches what they carry"
        return
    found = [row["mismatch"] for row in rows if row.get("mismatch") is not None]
    unlike = [mismatch for mismatch in found if mismatch > FAIR]
    yield f"random sets have the class' size and {match}" + (
        f"; {len(unlike)} of {len(found)} have no good match (off by up to {100 * max(unlike):.0f} %): see mismatch"
        if unlike
        else ""
    )


def few_remarks(count: int, what: str, remedy: str) -> Iterator[str]:
    """Say what intervals are worth over two crossed factors, one of which has few levels; see `crossed_mean`.

    Args:
        count: number of levels.
        what: what one of them is, such as `random set`.
        remedy: setting with more of them.
    """
    if count == 1:
        yield f"one {what}: intervals hold for this one alone, others may differ by more; {remedy}"
    elif count in FEW:
        yield (
            f"{count} {what}s: intervals are about {FEW[count]} as wide as with five, since so few hardly tell how much "
            f"{what}s differ; {remedy}"
        )
