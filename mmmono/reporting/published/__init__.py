"""The paper's published numbers, for comparison with measured ones: one JSON file per table, with its setting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper.

    Attributes:
        source: where the paper prints it.
        model, dataset: the options of `model=` and `dataset=` that match the paper's setting.
        setting: that setting in words.
        note: caveats about the numbers.
        rows: the table's rows as printed.
    """

    source: str
    model: str
    dataset: str
    setting: str
    note: str
    rows: list[dict[str, Any]]

    def find(self, **values: object) -> Mapping[str, Any]:
        """Return the first row with these entries; empty if the paper has none."""
        return next((row for row in self.rows if all(row.get(k) == v for k, v in values.items())), {})

    def difference(self, model: str, dataset: str) -> str | None:
        """Describe how this model and dataset differ from the paper's; None if they are the same."""
        if (model, dataset) == (self.model, self.dataset):
            return None
        return f"paper: {self.setting}; here: {model} on {dataset}: compare directions, not numbers"


def published(table: str) -> PublishedTable:
    """Read a table of the paper by its file name, such as `table1`."""
    content = json.loads((files(__name__) / f"{table}.json").read_text(encoding="utf-8"))
    return PublishedTable(**content)
