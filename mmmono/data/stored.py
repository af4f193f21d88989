"""Pairs of which only embeddings and metadata are at hand: pictures are opened at the paths that the metadata gives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pandas as pd

from mmmono.core.errors import DataError
from mmmono.data.images import decode_image
from mmmono.data.pairs import ImageTextPair, PairSource


class StoredPairs(PairSource):
    """The pairs of a store that somebody else made, such as clip-retrieval's.

    Args:
        metadata: one row a pair, all text, with a unique `key` and, to show pictures, `image_path`.
        folder: relative paths start here.
        fingerprint: of the store.
    """

    name = "store"

    def __init__(self, metadata: pd.DataFrame, folder: Path, fingerprint: str) -> None:
        self._metadata = metadata
        self._folder = folder
        self._fingerprint = fingerprint

    def fingerprint(self) -> str:
        """The store's."""
        return self._fingerprint

    def parts(self) -> list[str]:
        """One."""
        return ["store"]

    def __len__(self) -> int:
        return len(self._metadata)

    def read(self, part: int) -> Iterator[ImageTextPair]:
        """Open the pictures in order. Raises DataError where one is not there."""
        for key in self._rows:
            yield self.fetch(key)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Open one picture. Raises DataError if the metadata names none, or there is none that can be read."""
        if "image_path" not in self._metadata:
            raise DataError(
                f"the store in {self._folder} does not say where its pictures lie: add a column image_path to its metadata"
            )
        if key not in self._rows:
            raise DataError(f"the store in {self._folder} has no pair {key!r}")
        row = self._metadata.iloc[self._rows[key]]
        if not row["image_path"]:
            raise DataError(f"pair {key!r} of the store in {self._folder} has no picture: its image_path is empty")
        path = self._folder / row["image_path"]
        try:
            content = path.read_bytes()
        except (OSError, ValueError) as error:
            raise DataError(
                f"picture {path} of the store in {self._folder} is not there or cannot be read: was it moved?"
            ) from error
        return ImageTextPair(key, decode_image(content), row.get("caption", ""), locator=str(path))

    def group(self, key: str) -> str:
        """Pairs that show one picture belong together."""
        row = self._rows.get(key)
        return key if row is None or "group" not in self._metadata else str(self._metadata["group"].iloc[row])

    @cached_property
    def _rows(self) -> dict[str, int]:
        if "key" not in self._metadata:
            raise DataError(
                f"the store in {self._folder} has no key and no image_path in its metadata: add one of them"
            )
        return {key: row for row, key in reversed(list(enumerate(self._metadata["key"])))}
