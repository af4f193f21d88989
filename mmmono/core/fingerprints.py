"""Fingerprints of files: digests of their whole content, cached so that unchanged files are not read again.

A digest is XXH3 (128 bits) over the digests of fixed-size pieces, so several threads can read one large file. It does
not depend on the file's path or times. Digests are cached in this process and in the user's cache folder, keyed by the
file's path, size, times, inode and device: any change to a file changes one of them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import xxhash

from mmmono.core.errors import ModelError
from mmmono.core.files import visible_files
from mmmono.core.progress import progress_bar

PIECE = 1 << 24
# A file changed this recently may change again with the same timestamps, because file systems round them.
SETTLED_SECONDS = 2.0
# From this many bytes, reading takes long enough for a progress bar.
WORTH_A_BAR = 4 << 30
_THREADS = min(8, os.cpu_count() or 1)
_DIGEST = re.compile("[0-9a-f]{32}")
_remembered: dict[str, str] = {}


def file_fingerprint(path: str | Path) -> str:
    """Return the digest of a file's content, 32 hexadecimal digits. Raises OSError if it cannot be read."""
    path = Path(path)
    return _recall([path], lambda: _read_all({"": path}))


def files_fingerprint(files: Mapping[str, Path]) -> str:
    """Return the digest of the names (the mapping's keys, in any order) and whole contents of several files.

    Raises OSError if one cannot be read.
    """
    named = dict(sorted(files.items()))
    return _recall(named.values(), lambda: _read_all(named), names=named)


def folder_fingerprint(folder: str | Path) -> str:
    """Return the digest of the relative names and contents of a folder's visible files; see `visible_files`.

    Raises OSError if one cannot be read.
    """
    folder = Path(folder)
    return files_fingerprint({f.relative_to(folder).as_posix(): f for f in visible_files(folder) if f.is_file()})


def files_state(files: Iterable[Path]) -> str:
    """Return a digest of the sizes and times of files, which a write or a replacement changes.

    Permissions and links do not count, and no content is read. Nor do inodes and devices, which network file systems may
    number anew while a command runs. A file that is not there is a state as well.
    """
    key = xxhash.xxh3_128()
    for file in files:
        try:
            status = file.stat()
        except OSError:
            key.update(b"absent\n")
        else:
            key.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return key.hexdigest()


def weights_identity(name: str) -> str:
    """Return what identifies a model: the hub id itself, or the digest of the content if `name` is a folder."""
    return folder_fingerprint(name) if Path(name).is_dir() else name


@contextmanager
def unchanged(known: object, identify: Callable[[], object], what: str) -> Iterator[None]:
    """Enclose the reading of files that must be those that an artifact's recipe names.

    Args:
        known: what identified the files when the recipe was made.
        identify: returns what identifies them now; called after they were read.
        what: the files, in the plural, for the message.

    Raises:
        ModelError: the files were changed meanwhile, as a checkpoint that a training overwrites.
    """
    yield
    if identify() != known:
        raise ModelError(
            f"{what} were changed after this command had begun: run the same again, on a copy if they change often"
        )


def _recall(paths: Iterable[Path], compute: Callable[[], str], names: Iterable[str] = ()) -> str:
    """Return the cached digest of these files in their current state, or compute and cache it."""
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
    """Digest of the names, sizes and pieces of all files."""
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
    """A progress bar over pieces; entering it returns the function to call after each piece."""

    def __init__(self, size: int) -> None:
        self._bar = progress_bar()
        self._task = self._bar.add_task(f"fingerprint of {size / 1e9:.0f} GB", total=None)

    def __enter__(self) -> Callable[[], Any]:
        self._bar.start()
        return lambda: self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _cache_file(address: str) -> Path:
    """File that caches a digest. Raises RuntimeError if the user has no home folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "mmmono" / "fingerprints" / address[:2] / address[2:]


def _from_cache(address: str) -> str | None:
    try:
        text = _cache_file(address).read_text(encoding="utf-8")
    except (OSError, RuntimeError, ValueError):
        return None
    return text if _DIGEST.fullmatch(text) else None


def _to_cache(address: str, digest: str) -> None:
    """Cache a digest atomically; do nothing if the cache cannot be written."""
    temporary = None
    try:
        file = _cache_file(address)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.{time.monotonic_ns()}")
        temporary.write_text(digest, encoding="utf-8")
        temporary.replace(file)
    except (OSError, RuntimeError):
        if temporary is not None:
            temporary.unlink(missing_ok=True)
