"""Disk cache of images from remote sources, so that the next analysis does not download them again."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mmmono.core.errors import DataError
from mmmono.data.images import DECODER_VERSION, decode_image
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair

LOCK = ".lock"
DIGEST_BYTES = 16
ROOM_LEFT = 0.1  # share of the limit that is freed at a time, so that cleanups are rare


class ImageCache(PairSource):
    """A source that keeps every pair it fetches in a file and reads it from there next time.

    Each file begins with a digest of the rest: truncated or changed files are fetched anew. Files are written
    atomically, and processes may share the folder. If the folder is not writable, the cache only reads.

    Args:
        source: provides pairs that are not cached yet.
        folder: shared by all sources, each with its own subfolder.
        limit: maximum total size of the files in `folder` in bytes; the least recently used ones are deleted.
    """

    def __init__(self, source: PairSource, folder: Path, limit: int) -> None:
        self.source = source
        self.name = source.name
        self.folder = folder
        self.limit = limit
        self._own = folder / f"{source.fingerprint()}-{DECODER_VERSION}"

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
        absent = {pair for pair in requests if not self._file(pair[0]).exists()}
        fetched = self.source.fetch_many([pair for pair in requests if pair in absent])
        written = 0
        for pair in requests:
            kept = None if pair in absent else self._read(pair[0])
            if kept is not None:
                yield kept
                continue
            # Not cached, or the file is broken or was just deleted.
            item = next(fetched) if pair in absent else next(self.source.fetch_many([pair]))
            if isinstance(item, ImageTextPair):
                written += self._write(item)
            if written > ROOM_LEFT * self.limit:
                self._make_room()
                written = 0
            yield item
        if written:
            self._make_room()

    def _file(self, key: str) -> Path:
        name = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32]
        return self._own / name[:2] / name

    def _read(self, key: str) -> ImageTextPair | None:
        file = self._file(key)
        try:
            content = file.read_bytes()
            digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
            if digest != _digest(body):
                return None
            head, _, data = body.partition(b"\n")
            about = json.loads(head)
            pair = ImageTextPair(key, decode_image(data), about["caption"], about["labels"], about["locator"], data)
            os.utime(file)  # mark as recently used
        except (OSError, DataError, ValueError, KeyError):
            return None
        return pair

    def _write(self, pair: ImageTextPair) -> int:
        """Cache a pair; return the bytes written, 0 if the folder is not writable."""
        data = pair.encoded
        if not data:
            buffer = io.BytesIO()
            pair.image.save(buffer, "PNG", compress_level=1)
            data = buffer.getvalue()
        about = {"caption": pair.caption, "labels": dict(pair.labels), "locator": pair.locator}
        body = json.dumps(about).encode() + b"\n" + data
        file = self._file(pair.key)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(_digest(body) + body)
            temporary.replace(file)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return 0
        return len(body)

    def _make_room(self) -> None:
        """If the cache is over its limit, delete the least recently used files; only one process does so at a time."""
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                files = [
                    (entry, entry.stat()) for entry in self.folder.rglob("*") if entry.is_file() and entry.name != LOCK
                ]
                size = sum(stat.st_size for _, stat in files)
                if size <= self.limit:
                    return
                for file, stat in sorted(files, key=lambda found: found[1].st_mtime):
                    if size <= (1 - ROOM_LEFT) * self.limit:
                        return
                    file.unlink(missing_ok=True)
                    size -= stat.st_size
        except (Timeout, OSError):
            return


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
