"""Opens a shard from a local disk, over http(s), from an object store or from a command's output.

Addresses of http(s) are read by `mmmono.data.remote`, those of all other schemes through fsspec by
`mmmono.data.object_store`. Both resume interrupted transfers.
"""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import webdataset

from mmmono.core.errors import BrokenPartError
from mmmono.data.object_store import ObjectFile, in_words
from mmmono.data.remote import RemoteFile
from mmmono.data.remote_settings import RemoteSettings
from mmmono.data.shard_cache import ShardCache
from mmmono.data.shards import is_local, shown


class ShardOpener:
    """Opens shards at any position, and remembers size and version of remote ones.

    Args:
        token: bearer token for the shards' hosts; the hub's own token is found without it.
        settings: time-outs and retries for remote hosts.
        cache: folder for whole copies of remote shards; None streams them.
    """

    def __init__(
        self, token: str | None = None, settings: RemoteSettings | None = None, cache: str | Path | None = None
    ) -> None:
        self.token = token
        self.settings = settings or RemoteSettings()
        self.cache = ShardCache(Path(cache), self) if cache is not None else None
        self._remote: dict[str, RemoteFile | ObjectFile] = {}

    def open(self, shard: str, start: int = 0) -> IO[bytes]:
        """Open the shard's bytes from `start` on; with a cache, from its local copy.

        Raises:
            BrokenPartError: the shard does not exist, may not be read, or its transfer broke off too often.
            DataError: its host cannot be reached, or its scheme needs a package that is not installed.
        """
        local = self.local(shard, whole=start == 0)
        if local is None:
            return self.open_remote(shard, start)
        try:
            file = local.open("rb")
        except OSError as error:
            raise BrokenPartError(shown(shard), f"cannot be opened ({error.strerror})") from error
        file.seek(start)
        return file

    def local(self, shard: str, whole: bool) -> Path | None:
        """Return a shard's local file, or None if there is none; `whole` first downloads it into the cache."""
        if is_local(shard):
            return Path(shard)
        if self.cache is None:
            return None
        return self.cache.fetch(shard) if whole else self.cache.find(shard)

    def open_remote(self, shard: str, start: int = 0) -> IO[bytes]:
        """Open the shard at its original address, bypassing the cache."""
        if (file := self.remote(shard)) is not None:
            return file.open(start)
        stream = io.BufferedReader(_Guarded(webdataset.gopen(shard), shown(shard)))
        _skip(stream, start)
        return stream

    def read(self, shard: str, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop). Raises like `open`, and BrokenPartError if the shard is shorter."""
        remote = self.remote(shard) if self.local(shard, whole=False) is None else None
        if remote is not None:
            return remote.read(start, stop)
        with self.open(shard, start) as stream:
            try:
                data = stream.read(stop - start)
            except OSError as error:  # of a local disk; remote streams raise BrokenPartError themselves
                raise BrokenPartError(shown(shard), f"cannot be read ({in_words(error)})") from error
        if len(data) < stop - start:
            raise BrokenPartError(shown(shard), f"has no {stop} bytes: was it changed since it was extracted?")
        return data

    def remote(self, shard: str) -> RemoteFile | ObjectFile | None:
        """Return the shared file of a remote shard, which knows its size and version; None for a command's output."""
        if shard.startswith("pipe:"):
            return None
        if shard not in self._remote:
            http = shard.startswith(("http://", "https://"))
            self._remote[shard] = (
                RemoteFile(shard, self.token, self.settings) if http else ObjectFile(shard, self.settings)
            )
        return self._remote[shard]

    def forget(self, shard: str) -> None:
        """Delete the cached copy of a broken shard, so that it is downloaded again."""
        if self.cache is not None and not is_local(shard):
            self.cache.remove(shard)


class _Guarded(io.RawIOBase):
    """A stream of another library whose errors are turned into BrokenPartError."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._ended:
            return 0
        view = memoryview(buffer).cast("B")
        try:
            data = self._stream.read(len(view))
            if not data:
                self._ended = True
                self._stream.close()  # waits for the command, which may have failed
        except Exception as error:  # of whichever library opened it
            raise BrokenPartError(self._name, f"broke off ({in_words(error)})") from error
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        with suppress(Exception):  # closing a command before its output ends raises an error
            self._stream.close()
        super().close()


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0:
        data = stream.read(min(count, 1 << 20))
        if not data:
            raise BrokenPartError("the command's output", f"ended {count} bytes early: was the shard changed?")
        count -= len(data)
