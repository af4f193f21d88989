"""Fingerprints of files: digests over their whole content, remembered so that no file is read twice.

A digest is XXH3 (128 bits) of the content, piece by piece, so that several threads read one large file. It says nothing
about where the file lies or when it was written. What was computed is kept in this process and in the user's cache
folder under the file's path, size, times and inode: any change to a file changes one of them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import xxhash

from mmmono.core.progress import progress_bar

PIECE = 1 << 24
# A file changed this recently may change again without a change of its times, which file systems keep in steps.
SETTLED_SECONDS = 2.0
# From this size on, reading takes long enough to be told.
WORTH_A_BAR = 4 << 30
_THREADS = min(8, os.cpu_count() or 1)
_DIGEST = re.compile("[0-9a-f]{32}")
_remembered: dict[str, str] = {}


def file_fingerprint(path: str | Path) -> str:
    """Digest of a file's whole content, 32 hexadecimal digits. Raises OSError if it cannot be read."""
    path = Path(path)
    return _recall([path], lambda: _read_all({"": path}))


def files_fingerprint(files: Mapping[str, Path]) -> str:
    """Digest of the names and the whole contents of many files; names are the mapping's keys, in any order.

    Raises OSError if one cannot be read.
    """
    named = dict(sorted(files.items()))
    return _recall(named.values(), lambda: _read_all(named), names=named)


def folder_fingerprint(folder: str | Path, pattern: str = "**/*") -> str:
    """Digest of a folder's files that match a pattern: their names within it and their contents; hidden ones left out.

    Raises OSError if one cannot be read.
    """
    folder = Path(folder)
    files = {path.relative_to(folder): path for path in folder.glob(pattern) if path.is_file()}
    hidden = {name for name in files if any(part.startswith(".") for part in name.parts)}
    return files_fingerprint({name.as_posix(): path for name, path in files.items() if name not in hidden})


def weights_identity(name: str) -> str:
    """What tells a model apart that is given by its id on a hub or by a folder: the id, or the folder's whole content."""
    return folder_fingerprint(name) if Path(name).is_dir() else name


def _recall(paths: Iterable[Path], compute: Callable[[], str], names: Iterable[str] = ()) -> str:
    """What was computed for these files as they are now, or what is computed for them now."""
    key = xxhash.xxh3_128()
    for name in names:
        key.update(f"{name}\n".encode(errors="surrogateescape"))
    newest = 0.0
    for path in paths:
        status = path.stat()
        state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
        key.update(f"{path.absolute()}\n{state}\n".encode(errors="surrogateescape"))
        newest = max(newest, status.st_mtime, status.st_ctime)
    settled = time.time() - newest > SETTLED_SECONDS
    address = key.hexdigest()
    if settled and (known := _remembered.get(address) or _from_cache(address)):
        _remembered[address] = known
        return known
    digest = compute()
    if settled:
        _remembered[address] = digest
        _to_cache(address, digest)
    return digest


def _read_all(files: Mapping[str, Path]) -> str:
    """One digest over the pieces of all files; of one file without a name it is the content's alone."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    pieces = [(path, start) for name, path in files.items() for start in range(0, max(1, sizes[name]), PIECE)]
    whole = xxhash.xxh3_128()
    for name, size in sizes.items():
        whole.update(f"{name}\n{size}\n".encode(errors="surrogateescape"))
    with _bar(sum(sizes.values())) as advance, ThreadPoolExecutor(_THREADS) as pool:
        for digest in pool.map(_piece_digest, pieces, chunksize=16 if len(pieces) > 1000 else 1):
            whole.update(digest)
            advance()
    return whole.hexdigest()


def _piece_digest(piece: tuple[Path, int]) -> bytes:
    path, start = piece
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        digest, left = xxhash.xxh3_128(), PIECE
        while left and (read := file.read(min(left, 1 << 20))):
            digest.update(read)
            left -= len(read)
    return digest.digest()


def _bar(size: int) -> AbstractContextManager[Callable[[], Any]]:
    if size < WORTH_A_BAR:
        return nullcontext(lambda: None)
    return _PieceBar(size)


class _PieceBar:
    """A progress bar over pieces; what it gives is called once a piece."""

    def __init__(self, size: int) -> None:
        self._bar = progress_bar()
        self._task = self._bar.add_task(f"fingerprint of {size / 1e9:.0f} GB", total=None)

    def __enter__(self) -> Callable[[], Any]:
        self._bar.start()
        return lambda: self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _cache_file(address: str) -> Path:
    """Where a digest is kept; raises RuntimeError where the user has no home."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "mmmono" / "fingerprints" / address[:2] / address[2:]


def _from_cache(address: str) -> str | None:
    try:
        text = _cache_file(address).read_text()
    except (OSError, RuntimeError, ValueError):
        return None
    return text if _DIGEST.fullmatch(text) else None


def _to_cache(address: str, digest: str) -> None:
    """Keep a digest where that is possible; whole or not at all, whatever other processes do."""
    temporary = None
    try:
        file = _cache_file(address)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.{time.monotonic_ns()}")
        temporary.write_text(digest)
        temporary.replace(file)
    except (OSError, RuntimeError):
        if temporary is not None:
            temporary.unlink(missing_ok=True)
