"""What an analysis declares so that its differences can be judged over several trainings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["difference", "ratio", "value"]
# How many of a unit are 1; numbers without a unit are shown as they are.
SCALES: Mapping[str, float] = {"": 1, "points": 100}
LEVEL = 0.05  # of Holm's p, up to which a difference is said to stand
# The number where there is nothing.
NULL: Mapping[Kind, float | None] = {"difference": 0.0, "ratio": 1.0, "value": None}


@dataclass(frozen=True)
class Contrast:
    """A column of a table that every training has anew: one number in each of its rows, the same rows in each training.

    Attributes:
        title: what the number is, for tables and figures; the contrasts of an analysis have different titles.
        table: name of the table; results without it have no such contrast.
        value: the column. Rows where it is empty are left out.
        of: columns that say what a row is of, beside the feature set.
        family: further such columns: comparisons whose feature set and values of these are equal are one family (Holm 1979).
        kind: a `difference` is 0 where there is nothing; a `ratio` is 1, and its logarithms are averaged; of a `value` no
            number says that there is nothing, and it is not tested.
        minus: column that is taken off the value; none if empty.
        requires: column that is filled in the rows that count; none if empty.
        points: rows whose numbers are shares, shown in percentage points as the analysis shows them: those with one of the
            given values in each column; all by an empty mapping, none by None.
    """

    title: str
    table: str
    value: str
    of: Sequence[str]
    family: Sequence[str] = ()
    kind: Kind = "difference"
    minus: str = ""
    requires: str = ""
    points: Mapping[str, Collection[str]] | None = field(default=None, hash=False)

    @property
    def null(self) -> float | None:
        """The number where there is nothing; None if no number says so."""
        return NULL[self.kind]

    def cells(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield feature set, family, row, value and unit of each row that has the number.

        Args:
            rows: of the table, with None for what is missing.
        """
        for row in rows:
            needed = [row[column] for column in (self.value, self.minus, self.requires) if column]
            if all(cell is not None for cell in needed):
                yield {
                    "feature_set": row["feature_set"], "contrast": self.title, "family": _said(row, self.family),
                    "row": _said(row, self.of), "value": row[self.value] - (row[self.minus] if self.minus else 0),
                    "unit": self._unit(row),
                }  # fmt: skip

    def _unit(self, row: Mapping[str, Any]) -> str:
        shares = self.points is not None and all(row[column] in values for column, values in self.points.items())
        return "points" if shares else ""


def _said(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    return ", ".join(f"{column}={row[column]}" for column in columns)
