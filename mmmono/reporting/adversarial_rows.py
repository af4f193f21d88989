"""Table 3 as it is read: in percent, with the paper's numbers beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mmmono.reporting.published import published


def adversarial_rows(table3: Sequence[Mapping[str, Any]], feature_set: str) -> list[dict[str, object]]:
    """Table 3 for one feature set, after the pictures without a defense; rows as `AttackOutcome.to_row` has them."""
    paper = published("table3")
    rows: list[dict[str, object]] = []
    for row in table3:
        if row["feature_set"] not in ("", feature_set):
            continue
        printed = paper.find(aligned=row["aligned"])
        rows.append(
            {
                "aligned": f"{row['aligned']} {row['features']}" if row["features"] else row["aligned"],
                "trials": row["trials"],
                "unparseable": row["unparseable"],
                "success % [95 %]": f"{100 * row['rate']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
                "below random": _interval(row, "below_random", 100, 1),
                "margin": _interval(row, "margin", 1, 2),
                "paper": f"{100 * printed['rate']:.1f}" if printed else "",
            }
        )
    return rows


def _interval(row: Mapping[str, Any], name: str, scale: float, digits: int) -> str:
    if row[name] is None or pd.isna(row[name]):
        return ""
    value, low, high = (f"{scale * row[key]:+.{digits}f}" for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value} [{low}, {high}]"
