"""The table that is shown of steering: how far the features of each class move at each strength."""

from __future__ import annotations

from collections.abc import Mapping

from mmmono.reporting.result import Result, Rows


def class_means(result: Result, feature_set: str, more: Mapping[str, str] | None = None) -> Rows:
    """How far features of each class can be steered at each strength, beside how far steering others moves them.

    Args:
        result: has a table `summary` with a row for each feature set, class and strength.
        feature_set: name of the feature set.
        more: further columns of that table by the heading under which they are shown, before the last one.
    """
    return [
        {
            "class": result.modalities.said(row["class"]),
            "strength": row["strength"],
            "move": row["move"],
            "others": row["control"],
            "stay": row["stay"],
            "score": row["score"],
            **{heading: row[column] for heading, column in (more or {}).items()},
            "moved (q ≤ .05)": f"{row['moved']} of {row['features']}",
        }
        for row in result.rows("summary")
        if row["feature_set"] == feature_set
    ]
