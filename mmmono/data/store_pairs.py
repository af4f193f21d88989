"""Pairs of a feature store that another program made; images are read from the paths in its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pandas as pd

from mmmono.core.errors import DataError
from mmmono.data.captions import clean
from mmmono.data.hub import resolve
from mmmono.data.images import decode_image
from mmmono.data.opening import ShardOpener
from mmmono.data.pairs import ImageTextPair, PairSource
from mmmono.data.remote_folder import is_remote


class StorePairs(PairSource):
    """The pairs of a feature store that another program made, such as clip-retrieval.

    Args:
        metadata: one row per pair, all values text, with a unique `key` and, to show images, `image_path`.
        folder: base of relative paths; the address of a store on another machine.
        fingerprint: of the store.
        opener: opens images on other machines.
    """

    name = "store"

    def __init__(
        self, metadata: pd.DataFrame, folder: Path | str, fingerprint: str, opener: ShardOpener | None = None
    ) -> None:
        self._metadata = metadata
        self._folder = folder
        self._fingerprint = fingerprint
        self._opener = opener or ShardOpener()
        first = next((path for path in metadata.get("image_path", ()) if path), "")
        self._names_images = bool(first)
        self.remote = isinstance(folder, str) or is_remote(first)

    def fingerprint(self) -> str:
        """Fingerprint of the store."""
        return self._fingerprint

    def check_images(self) -> None:
        """Raise DataError if the metadata names no image at all."""
        if not self._names_images:
            raise DataError(
                f"pictures are wanted here, and the store in {self._folder} does not say where any lie: add a column "
                "image_path to its metadata"
            )

    def parts(self) -> list[str]:
        """The single part `store`."""
        return ["store"]

    def __len__(self) -> int:
        return len(self._metadata)

    def read(self, part: int) -> Iterator[ImageTextPair]:
        """Open the images in order. Raises DataError if one cannot be read."""
        for key in self._rows:
            yield self.fetch(key)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Open one image. Raises DataError if the metadata does not name it, or it cannot be read."""
        self.check_images()
        if key not in self._rows:
            raise DataError(f"the store in {self._folder} has no pair {key!r}")
        row = self._metadata.iloc[self._rows[key]]
        if not row["image_path"]:
            raise DataError(f"pair {key!r} of the store in {self._folder} has no image: its image_path is empty")
        path = self._place(row["image_path"])
        try:
            content = self._content(path)
        except (OSError, ValueError) as error:
            raise DataError(
                f"image {path} of the store in {self._folder} is not there or cannot be read: was it moved?"
            ) from error
        return ImageTextPair(key, decode_image(content), clean(row.get("caption", "")), locator=path)

    def _place(self, image_path: str) -> str:
        """Path or address of an image."""
        if is_remote(image_path) or (isinstance(self._folder, str) and Path(image_path).is_absolute()):
            return image_path
        return f"{self._folder}/{image_path}" if isinstance(self._folder, str) else str(self._folder / image_path)

    def _content(self, path: str) -> bytes:
        """Bytes of an image. Raises DataError if one on another machine cannot be read, OSError or ValueError otherwise."""
        if not is_remote(path):
            return Path(path).read_bytes()
        with self._opener.open(resolve(path) if path.startswith("hf://") else path) as stream:
            return stream.read()

    def group(self, key: str) -> str:
        """Group of a pair in the metadata, shared by pairs with the same image; its key if there is none."""
        row = self._rows.get(key)
        return key if row is None or "group" not in self._metadata else str(self._metadata["group"].iloc[row])

    @cached_property
    def _rows(self) -> dict[str, int]:
        if "key" not in self._metadata:
            raise DataError(
                f"the store in {self._folder} has no key and no image_path in its metadata: add one of them"
            )
        return {key: row for row, key in reversed(list(enumerate(self._metadata["key"])))}
