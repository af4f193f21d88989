"""Local copies of remote shards, shared by all models that read them.

    <folder>/<digest>/<name>.tar        the copy, present only when complete
    <folder>/<digest>/<name>.tar.json   its address, size and tag
    <folder>/<digest>/<name>.tar.part   an unfinished copy, resumed by the next process if this one dies

A copy is valid while its size equals the recorded one. Delete a copy to download a shard that was replaced remotely.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import BrokenPartError, DataError
from mmmono.core.files import user_path
from mmmono.core.locks import locked
from mmmono.data.object_store import ObjectFile
from mmmono.data.remote import RemoteFile
from mmmono.data.remote_settings import ReplacedError
from mmmono.data.shards import identity, shown, stem

CHUNK = 1 << 20


class RemoteOpener(Protocol):
    """Reader of remote shards that the cache uses."""

    def open_remote(self, shard: str, start: int = 0) -> IO[bytes]:
        """Open the shard at its original address, from `start` on."""

    def remote(self, shard: str) -> RemoteFile | ObjectFile | None:
        """Return the shared file of a remote shard; None for a command's output, which has no version to resume."""


class ShardCache:
    """Copies of remote shards in a folder, which several processes may use at once.

    Args:
        folder: created with the first copy.
        opener: reads the remote shards.
    """

    def __init__(self, folder: Path, opener: RemoteOpener) -> None:
        self.folder = user_path(folder).absolute()
        self.opener = opener

    def path(self, shard: str) -> Path:
        """Return the path of a shard's copy, whether it exists or not."""
        key = hashlib.sha256(identity(shard).encode()).hexdigest()[:12]
        return self.folder / key / f"{stem(shard)[:150]}.tar"

    def find(self, shard: str) -> Path | None:
        """Return the path of a complete copy, or None."""
        path = self.path(shard)
        try:
            size = json.loads(self._note(shard).read_text(encoding="utf-8"))["size"]
            return path if path.stat().st_size == size else None
        except (FileNotFoundError, NotADirectoryError):  # none, or another process has just removed it
            return None
        except (ValueError, KeyError, TypeError):
            return None

    def fetch(self, shard: str) -> Path:
        """Return the path of the copy, downloading it first if needed; one process downloads while others wait.

        Raises:
            BrokenPartError: the shard cannot be downloaded completely.
            DataError: the folder is not writable, or its disk is full.
        """
        path = self.path(shard)
        try:
            if found := self.find(shard):
                return found
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(Path(f"{path}.lock")):
                return self.find(shard) or self._fetch(shard, path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DataError(
                    f"no space left in {self.folder} for copies of shards: free some, point dataset.cache=/path/with/room "
                    "elsewhere, or stream with dataset.cache=false"
                ) from error
            raise DataError(
                f"cannot write copies of shards to {self.folder} ({error.strerror or error}): point "
                "dataset.cache=/writable/folder elsewhere, or stream with dataset.cache=false"
            ) from error

    def remove(self, shard: str) -> None:
        """Delete the copy."""
        self._note(shard).unlink(missing_ok=True)
        self.path(shard).unlink(missing_ok=True)

    def usage(self) -> tuple[int, int]:
        """Return the number of copies in the folder and their total bytes."""
        sizes = []
        for file in self.folder.glob("*/*.tar"):
            with suppress(FileNotFoundError):  # another process has just removed it
                sizes.append(file.stat().st_size)
        return len(sizes), sum(sizes)

    def _note(self, shard: str) -> Path:
        return self.path(shard).with_suffix(".tar.json")

    def _fetch(self, shard: str, path: Path) -> Path:
        part = path.with_suffix(".tar.part")
        remote = self.opener.remote(shard)
        begun = part.with_suffix(".part.json")  # size and tag of the file version that the partial copy belongs to
        if remote is not None and part.exists() and begun.exists():
            known = json.loads(begun.read_text(encoding="utf-8"))
            remote.size, remote.tag = known["size"], known["tag"]
        start = part.stat().st_size if remote is not None and remote.tag and part.exists() else 0
        try:
            self._copy(shard, part, start, remote, begun)
        except ReplacedError:
            assert remote is not None
            remote.size = remote.tag = None
            self._copy(shard, part, 0, remote, begun)
        except BaseException:
            if remote is None or not remote.tag:  # nothing could go on from it, and the disk may be full
                part.unlink(missing_ok=True)
            raise
        size = part.stat().st_size
        if remote is not None and remote.sha256 is not None and _sha256(part) != remote.sha256:
            part.unlink()
            raise BrokenPartError(shown(shard), "arrived with another checksum than its server states")
        tag = remote.tag if remote is not None else None
        path.unlink(missing_ok=True)  # of another size, or without a note
        write_text_atomically(
            self._note(shard), json.dumps({"shard": identity(shard), "size": size, "tag": tag}) + "\n"
        )
        part.replace(path)
        begun.unlink(missing_ok=True)
        return path

    def _copy(self, shard: str, part: Path, start: int, remote: RemoteFile | ObjectFile | None, begun: Path) -> None:
        with self.opener.open_remote(shard, start) as stream, part.open("r+b" if start else "wb") as file:
            file.seek(start)
            first = True
            read = getattr(stream, "read1", stream.read)  # writes whatever has arrived, even if the rest fails
            while data := read(CHUNK):
                if first:
                    self._check_room(remote, start)
                    if remote is not None:
                        write_text_atomically(begun, json.dumps({"size": remote.size, "tag": remote.tag}))
                    first = False
                file.write(data)
            file.truncate()

    def _check_room(self, remote: RemoteFile | ObjectFile | None, start: int) -> None:
        if remote is not None and remote.size is not None:
            missing = remote.size - start - shutil.disk_usage(self.folder).free
            if missing > 0:
                raise OSError(errno.ENOSPC, "No space left on device")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
