"""Pairs of which only embeddings and metadata are at hand: pictures are opened at the paths that the metadata gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from mmmono.core.errors import DataError
from mmmono.data.images import decode_image
from mmmono.data.pairs import ImageTextPair, PairSource


class StoredPairs(PairSource):
    """The pairs of a store that somebody else made, such as clip-retrieval's.

    Args:
        metadata: one row a pair, with `key` and, to show pictures, `image_path`.
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
        for key in self._metadata["key"]:
            yield self.fetch(key)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Open one picture."""
        if "image_path" not in self._metadata:
            raise DataError(
                f"the store in {self._folder} does not say where its pictures lie: add a column image_path to its metadata"
            )
        rows = self._metadata[self._metadata["key"] == key]
        if rows.empty:
            raise DataError(f"the store in {self._folder} has no pair {key!r}")
        row = rows.iloc[0]
        path = self._folder / row["image_path"]
        if not path.is_file():
            raise DataError(f"picture {path} of the store in {self._folder} is not there: was it moved?")
        return ImageTextPair(key, decode_image(path.read_bytes()), row.get("caption", ""), locator=str(path))
