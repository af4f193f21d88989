"""Reads remote files by ranges: in blocks, several at a time, ahead of their use, and once if a disk has room for them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from mmmono.data.disk_cache import DiskCache
from mmmono.data.object_store import ObjectFile
from mmmono.data.remote import RemoteFile
from mmmono.data.remote_folder import THREADS, RemotePart
from mmmono.data.remote_settings import RemoteSettings
from mmmono.data.shards import identity

BLOCK = 1 << 20  # bytes of a request: enough to hide what a request costs, few enough for single rows
AT_ONCE = 16  # blocks that a range is read ahead: of a long one, or of several, all would push each other out of memory
IN_MEMORY = 256  # blocks that are held at most, apart from those that are being read


@dataclass(frozen=True)
class BlockSettings:
    """Where remote files are kept once they were read.

    Attributes:
        remote: time-outs and retries.
        folder: folder for blocks of them, which processes may share; None keeps none on a disk.
        limit: bytes in that folder at most; those that were not used for longest make room.
    """

    remote: RemoteSettings = field(default_factory=RemoteSettings)
    folder: Path | None = None
    limit: int = 0


class BlockReader:
    """Reads ranges of remote files. Threads may share it, and processes may have copies.

    Args:
        settings: time-outs, and what is kept on a disk.
    """

    def __init__(self, settings: BlockSettings | None = None) -> None:
        self.settings = settings or BlockSettings()
        kept = self.settings.folder is not None and self.settings.limit > 0
        self._disk = DiskCache(Path(self.settings.folder or ""), self.settings.limit, "blocks") if kept else None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, str, int], Future[bytes]] = OrderedDict()
        self._files: dict[str, RemoteFile | ObjectFile] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()
        self._failed = False  # whether a block could not be read, since something was last asked for

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "_disk": self._disk}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def read(self, part: RemotePart, start: int, stop: int) -> bytearray:
        """Return the bytes [start, stop) of a file. Raises like `RemotePart.read`."""
        data, numbers = bytearray(), _numbers(start, stop)
        ahead = iter(numbers)
        for number in islice(ahead, AT_ONCE):
            self._block(part, number)
        for number in numbers:
            first = number * BLOCK
            data += memoryview(self._content(part, number))[max(0, start - first) : stop - first]
            for later in islice(ahead, 1):
                self._block(part, later)
        return data

    def _content(self, part: RemotePart, number: int) -> bytes:
        while True:
            self._failed = False
            try:
                return self._block(part, number).result()
            except _GivenUpError:
                continue

    def expect(self, part: RemotePart, start: int, stop: int) -> None:
        """Begin to read the bytes [start, stop) of a file, which `read` will be asked for soon."""
        for number in _numbers(start, stop):
            self._block(part, number)

    def _block(self, part: RemotePart, number: int) -> Future[bytes]:
        key = (part.address, part.version, number)
        if self._process != os.getpid():  # forked: threads do not follow
            self._begin()
        with self._lock:
            if (found := self._blocks.get(key)) is not None:
                self._blocks.move_to_end(key)
                return found
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, "remote")
            found = self._blocks[key] = self._pool.submit(self._load, part, number)
            if (excess := len(self._blocks) - IN_MEMORY) > 0:
                for old in [key for key, block in self._blocks.items() if block.done()][:excess]:
                    del self._blocks[old]
        found.add_done_callback(lambda block: self._drop(key, block))
        return found

    def _drop(self, key: tuple[str, str, int], block: Future[bytes]) -> None:
        """Forget a block that could not be read, so that it is tried again."""
        if (failure := block.exception()) is not None:
            with self._lock:
                self._failed = self._failed or not isinstance(failure, _GivenUpError)
                self._blocks.pop(key, None)

    def _load(self, part: RemotePart, number: int) -> bytes:
        if self._failed:
            raise _GivenUpError
        name = f"{identity(part.address)}\n{part.version}\n{part.size}\n{number}"
        stop = min((number + 1) * BLOCK, part.size)
        if (
            self._disk is not None
            and (kept := self._disk.read(name)) is not None
            and len(kept) == stop - number * BLOCK
        ):
            return kept
        if (file := self._files.get(part.address)) is None:
            file = self._files[part.address] = part.file(self.settings.remote)
        data = part.read(file, number * BLOCK, stop)
        if self._disk is not None:
            self._disk.write(name, data)
        return data


class _GivenUpError(Exception):
    """A block was not read ahead, because another one could not be read: so a run that fails ends without waiting."""


def _numbers(start: int, stop: int) -> range:
    """Numbers of the blocks that have some of the bytes [start, stop)."""
    return range(start // BLOCK, -(-stop // BLOCK)) if stop > start else range(0)
