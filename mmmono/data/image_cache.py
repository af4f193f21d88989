"""Disk cache of images from remote sources, so that the next analysis does not download them again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmmono.core.errors import DataError
from mmmono.data.disk_cache import DiskCache
from mmmono.data.images import DECODER_VERSION, decode_image
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair


class ImageCache(PairSource):
    """A source that keeps every pair it fetches in a file and reads it from there next time.

    Args:
        source: provides pairs that are not cached yet.
        folder: shared by all sources, each with its own subfolder; see `DiskCache`.
        limit: maximum total size of the files in `folder` in bytes; the least recently used ones are deleted.
    """

    def __init__(self, source: PairSource, folder: Path, limit: int) -> None:
        self.source = source
        self.name = source.name
        self._files = DiskCache(folder, limit, f"{source.fingerprint()}-{DECODER_VERSION}")

    def fingerprint(self) -> str:
        """Fingerprint of the wrapped source."""
        return self.source.fingerprint()

    def parts(self) -> Sequence[str]:
        """Parts of the wrapped source."""
        return self.source.parts()

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Read a part from the wrapped source; pairs read this way are not cached."""
        return self.source.read(part)

    def __len__(self) -> int:
        return len(self.source)

    def group(self, key: str) -> str:
        """Group of a pair in the wrapped source."""
        return self.source.group(key)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Read one pair from its file, or from the source. Raises DataError if neither works."""
        (item,) = self.fetch_many([(key, locator)])
        if isinstance(item, SkippedPair):
            raise DataError(item.reason)
        return item

    def fetch_many(self, requests: Sequence[tuple[str, str]]) -> Iterator[ImageTextPair | SkippedPair]:
        """Read cached pairs from their files; fetch all others from the source in one call and cache them."""
        absent = {pair for pair in requests if pair[0] not in self._files}
        fetched = self.source.fetch_many([pair for pair in requests if pair in absent])
        written = False
        for pair in requests:
            kept = None if pair in absent else self._read(pair[0])
            if kept is not None:
                yield kept
                continue
            # Not cached, or the file is broken or was just deleted.
            item = next(fetched) if pair in absent else next(self.source.fetch_many([pair]))
            if isinstance(item, ImageTextPair):
                self._write(item)
                written = True
            yield item
        if written:
            self._files.make_room()

    def _read(self, key: str) -> ImageTextPair | None:
        if (body := self._files.read(key)) is None:
            return None
        head, _, data = body.partition(b"\n")
        try:
            about = json.loads(head)
            return ImageTextPair(key, decode_image(data), about["caption"], about["labels"], about["locator"], data)
        except (DataError, ValueError, KeyError):
            return None

    def _write(self, pair: ImageTextPair) -> None:
        data = pair.encoded
        if not data:
            buffer = io.BytesIO()
            pair.image.save(buffer, "PNG", compress_level=1)
            data = buffer.getvalue()
        about = {"caption": pair.caption, "labels": dict(pair.labels), "locator": pair.locator}
        self._files.write(pair.key, json.dumps(about).encode() + b"\n" + data)
