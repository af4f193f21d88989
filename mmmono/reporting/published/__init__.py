"""The paper's own numbers, to stand beside measured ones: one JSON file a table, numbers and their setting only."""

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
        source: where it is printed.
        model, dataset: options of `model=` and `dataset=` that it was made with.
        setting: the same in words.
        note: what a reader of the numbers should know.
        rows: as printed.
    """

    source: str
    model: str
    dataset: str
    setting: str
    note: str
    rows: list[dict[str, Any]]

    def find(self, **wanted: object) -> Mapping[str, Any]:
        """The row with these entries; an empty one where the paper has none."""
        return next((row for row in self.rows if all(row.get(k) == v for k, v in wanted.items())), {})

    def difference(self, model: str, dataset: str) -> str | None:
        """A sentence on what differs from the paper's setting, None where nothing does."""
        if (model, dataset) == (self.model, self.dataset):
            return None
        return f"paper: {self.setting}; here: {model} on {dataset}: compare directions, not numbers"


def published(table: str) -> PublishedTable:
    """A table of the paper by its file's name, such as `table1`."""
    content = json.loads((files(__name__) / f"{table}.json").read_text())
    return PublishedTable(**content)
