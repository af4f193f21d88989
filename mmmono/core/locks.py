"""A lock between processes that also holds on file systems which refuse locks of files.

Where `flock` works, it is the lock. Some network and cluster file systems refuse it, some grant it to everyone, and some
grant it once on each machine; there, processes take turns by claims (mmmono/core/claims.py), which need only that one
process alone can create a file. A process on another machine that has died holds such a lock for two more minutes.

Whether `flock` keeps processes of this machine out is tried. Whether it keeps out those of other machines cannot be: that
is read from the kind of the file system and the options that it was mounted with.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from mmmono.core.claims import EXPIRY, Claims

LOOK = 0.5  # seconds between two attempts to take a claimed lock
PATIENCE = 5.0  # seconds of waiting after which a line says so
MOUNTS = Path("/proc/self/mounts")  # Linux's list of file systems; elsewhere nothing is known of them
# File systems whose flock holds within each machine alone: always, or if mounted with one of the options. BeeGFS can be
# told to lock globally, in a file of its own that users may not read.
_ALWAYS_LOCAL = {"gpfs", "beegfs", "fuse.sshfs"}
_LOCAL_IF = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock"},
    "gfs2": {"localflocks", "lockproto=lock_nolock"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
}


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock of a name; wait until no other process holds it, and say so if that takes long.

    Args:
        file: the lock's file, which stays; its folder must exist.

    Raises:
        FileNotFoundError: its folder is removed.
    """
    if flock_holds(file.parent):
        lock, told = FileLock(file), False
        while not lock.is_locked:
            try:
                lock.acquire(timeout=PATIENCE)
            except Timeout:
                _check_there(file.parent)
                if not told:
                    _say_waiting(file)
                told = True
        try:
            yield
        finally:
            lock.release()
        return
    with Claims(_claims(file)) as claims:
        since: float | None = time.monotonic()
        while not claims.take(0):
            _check_there(claims.folder)
            if since is not None and time.monotonic() - since >= PATIENCE:
                _say_waiting(file)
                since = None
            time.sleep(LOOK)
        yield


def _check_there(folder: Path) -> None:
    """Raise FileNotFoundError if a folder has been removed: a lock in it would be waited for without end."""
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def _say_waiting(file: Path) -> None:
    """Say what a process waits for, which may take hours."""
    print(f"another process works on {file.with_suffix('')}: waiting for it to end", file=sys.stderr)


@contextmanager
def lock_if_free(file: Path) -> Iterator[bool]:
    """Hold the lock of a name unless another process holds it; yield whether this one does.

    Args:
        file: as for `locked`.
    """
    if not flock_holds(file.parent):
        with Claims(_claims(file)) as claims:
            yield claims.take(0)
        return
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@cache
def flock_holds(folder: Path) -> bool:
    """Whether `flock` keeps a second holder out, in files of a folder, on this machine and, if it is known, on others."""
    if flock_is_local(folder):
        return False
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock-") as first:
        second = os.open(first.name, os.O_RDWR)  # flock belongs to the opening of a file, not to the process
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
        except OSError:  # not supported
            return False
        finally:
            os.close(second)


def flock_is_local(folder: Path) -> bool:
    """Whether a folder's file system is known to keep locks of files from other machines."""
    kind, options = _mounted(folder.resolve())
    return kind in _ALWAYS_LOCAL or not options.isdisjoint(_LOCAL_IF.get(kind, ()))


def _mounted(folder: Path) -> tuple[str, set[str]]:
    """Return the kind of a folder's file system and its options; "" and none where the system has no list of them."""
    found, deepest = ("", set[str]()), -1
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return found
    for line in lines:
        _, place, kind, options, *_ = line.split()
        for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            place = place.replace(code, sign)
        if (
            folder.is_relative_to(place) and len(Path(place).parts) >= deepest
        ):  # of two at one place, the later one is seen
            found, deepest = (kind, set(options.split(","))), len(Path(place).parts)
    return found


@cache
def _say_so() -> None:
    """Say once in a process that locks of files do not hold."""
    print(
        "flock does not keep processes on other machines out of this file system: they take turns by files instead; what a "
        f"process held that died on another machine is free after {EXPIRY:.0f} s",
        file=sys.stderr,
    )


def _claims(file: Path) -> Path:
    """Folder of the claims that stand for a lock, which is made if it is missing."""
    _say_so()
    folder = file.with_name(f"{file.name}.claims")
    folder.mkdir(exist_ok=True)
    return folder
