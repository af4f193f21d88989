"""Pictures that came over a network, kept on disk, so that the next analysis fetches none of them again."""

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
ROOM_LEFT = 0.1  # share of the limit that is freed at a time, so that not every picture looks for room


class PictureCache(PairSource):
    """A source whose pairs are read again from files, one a pair, wherever they were read again before.

    Each file begins with a digest of the rest: one that is cut off or changed is fetched anew. Files are whole when they
    are there, and processes may share the folder. A folder that cannot be written is a cache that stays as it is.

    Args:
        source: where pairs come from that are not kept yet.
        folder: shared by all sources; each has a folder of its own in it.
        limit: bytes that all files in `folder` may have together; those that were not used for longest are removed.
    """

    def __init__(self, source: PairSource, folder: Path, limit: int) -> None:
        self.source = source
        self.name = source.name
        self.folder = folder
        self.limit = limit
        self._own = folder / f"{source.fingerprint()}-{DECODER_VERSION}"

    def fingerprint(self) -> str:
        """The source's."""
        return self.source.fingerprint()

    def parts(self) -> Sequence[str]:
        """The source's."""
        return self.source.parts()

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """As the source reads it: whole parts are not kept."""
        return self.source.read(part)

    def __len__(self) -> int:
        return len(self.source)

    def group(self, key: str) -> str:
        """The source's."""
        return self.source.group(key)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """From its file, or from the source."""
        (item,) = self.fetch_many([(key, locator)])
        if isinstance(item, SkippedPair):
            raise DataError(item.reason)
        return item

    def fetch_many(self, wanted: Sequence[tuple[str, str]]) -> Iterator[ImageTextPair | SkippedPair]:
        """From their files; all others from the source in one go, and into files."""
        absent = {pair for pair in wanted if not self._file(pair[0]).exists()}
        fetched = self.source.fetch_many([pair for pair in wanted if pair in absent])
        written = 0
        for pair in wanted:
            kept = None if pair in absent else self._read(pair[0])
            if kept is not None:
                yield kept
                continue
            # It is not kept, or cut off, or was removed a moment ago.
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
            os.utime(file)  # it is in use
        except (OSError, DataError, ValueError, KeyError):
            return None
        return pair

    def _write(self, pair: ImageTextPair) -> int:
        """Bytes written; 0 where the folder cannot be written."""
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
        """Remove what was not used for longest, if there is too much; one process at a time does."""
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
