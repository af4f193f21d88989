"""A result on disk: the tables that an analysis saved, its figures, and the recipe that it was made by."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.core.saved import read_frame, read_rows

Rows = list[dict[str, Any]]
Fields = dict[str, str]


@dataclass(frozen=True)
class Result:
    """A result on disk.

    Attributes:
        folder: folder with its tables (Parquet) and figures (PNG and PDF).
        recipe: everything that determines its numbers; settings are found here.
        model, dataset: names of the model and the dataset that it is about; empty if it is about none.
        modalities: what the two sides of a pair are called; tables and figures call them so.
    """

    folder: Path
    recipe: Mapping[str, Any]
    model: str = ""
    dataset: str = ""
    modalities: ModalityNames = IMAGE_AND_TEXT

    @property
    def feature_sets(self) -> list[str]:
        """Names of the feature sets that it covers, in the order in which they were selected."""
        return [entry["name"] for entry in self.recipe.get("sets") or ()]

    def has(self, table: str) -> bool:
        """Whether it has a table; some tables exist only under some settings."""
        return (self.folder / f"{table}.parquet").exists()

    def table(self, name: str) -> pd.DataFrame:
        """Read a table. Raises StoreError if it is broken."""
        return read_frame(self.folder / f"{name}.parquet")

    def rows(self, name: str) -> Rows:
        """Read a table as a list of rows; missing values and NaN are None. Raises StoreError if it is broken."""
        rows = read_rows(self.folder / f"{name}.parquet")
        return [{key: None if _is_nan(value) else value for key, value in row.items()} for row in rows]

    def figures(self, pattern: str, values: Mapping[str, Sequence[str]] | None = None) -> list[tuple[str, Fields]]:
        """Find figures whose names match a pattern.

        Args:
            pattern: name without suffix and with fields in braces, such as `{feature_set}-curves`.
            values: what a field may stand for; by default anything, and for `feature_set` the result's feature sets.

        Returns:
            The names without suffix, each with the values of its fields; by feature set in the order of
            `feature_sets`, then in the order of `values`, then by name.
        """
        known: dict[str, Sequence[str]] = {"feature_set": self.feature_sets, **(values or {})}
        regex = "".join(_matcher(part, known) for part in re.split(r"(\{\w+\})", pattern))
        found = []
        for file in sorted(self.folder.glob("*.png")):
            if match := re.fullmatch(regex, file.stem):
                found.append((file.stem, match.groupdict()))

        def place(entry: tuple[str, Fields]) -> list[int]:
            return [list(of).index(entry[1][field]) for field, of in known.items() if field in entry[1]]

        return sorted(found, key=place)


def _matcher(part: str, known: Mapping[str, Sequence[str]]) -> str:
    """Regular expression of a part of a pattern: a field in braces, or text."""
    if not part.startswith("{"):
        return re.escape(part)
    field = part.strip("{}")
    return f"(?P<{field}>{'|'.join(map(re.escape, known[field])) if field in known else '.+'})"


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
