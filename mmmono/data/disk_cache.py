"""Files that are kept on disk up to a limit, so that they need not be fetched again."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from contextlib import suppress
from pathlib import Path

from mmmono.core.locks import lock_if_free

LOCK = ".lock"
DIGEST_BYTES = 16
_NAME = re.compile(r"\.?(?P<name>[0-9a-f]{32})(\.\d+\.\d+)?")
ROOM_LEFT = 0.1  # share of the limit that is freed at a time, so that cleanups are rare


class DiskCache:
    """Contents by their keys, each in a file of its own.

    Each file begins with a digest of the rest: truncated or changed files count as absent. Files are written atomically,
    and threads and processes may share the folder. If the folder is not writable, the cache only reads. Other files that lie
    in the folder are neither counted nor deleted.

    Args:
        folder: shared by all groups of keys, each with its own subfolder.
        limit: maximum total size of its files in `folder` in bytes; the least recently used ones are deleted.
        group: name of the subfolder.
    """

    def __init__(self, folder: Path, limit: int, group: str) -> None:
        self.folder = folder
        self.limit = limit
        self._own = folder / group
        self._written = limit  # bytes since there was last made room: each process looks at its first write

    def __contains__(self, key: str) -> bool:
        return self._file(key).exists()

    def read(self, key: str) -> bytes | None:
        """Return the content, and mark it as recently used; None if it is absent or broken."""
        file = self._file(key)
        try:
            content = file.read_bytes()
        except OSError:
            return None
        if content[:DIGEST_BYTES] != _digest(content[DIGEST_BYTES:]):
            return None
        with suppress(OSError):  # of another user's file, or on a disk that is only read
            os.utime(file)
        return content[DIGEST_BYTES:]

    def write(self, key: str, content: bytes) -> None:
        """Keep a content, and make room from time to time; nothing happens if the folder is not writable."""
        file = self._file(key)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(_digest(content) + content)
            temporary.replace(file)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return
        self._written += len(content)
        if self._written > ROOM_LEFT * self.limit:
            self.make_room()

    def make_room(self) -> None:
        """If the files are over the limit, delete the least recently used ones; only one process does so at a time."""
        self._written = 0
        with suppress(OSError), lock_if_free(self.folder / LOCK) as mine:
            if not mine:
                return
            own = (one for one in self.folder.glob("*/[0-9a-f][0-9a-f]/*") if _is_own(one))
            files = [found for one in own if (found := _stat(one)) is not None]
            size = sum(stat.st_size for _, stat in files)
            if size <= self.limit:
                return
            for file, stat in sorted(files, key=lambda found: found[1].st_mtime):
                if size <= (1 - ROOM_LEFT) * self.limit:
                    return
                file.unlink(missing_ok=True)
                size -= stat.st_size

    def _file(self, key: str) -> Path:
        name = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32]
        return self._own / name[:2] / name


def _is_own(file: Path) -> bool:
    """Whether a file is called as a content is, or as one whose writing was begun."""
    match = _NAME.fullmatch(file.name)
    return match is not None and match["name"].startswith(file.parent.name)


def _stat(file: Path) -> tuple[Path, os.stat_result] | None:
    """A file with its size and time; None for a folder, and for what another thread has just renamed."""
    try:
        return (file, file.stat()) if file.is_file() else None
    except FileNotFoundError:
        return None


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
