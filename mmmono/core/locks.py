"""A lock between processes that also holds on file systems which refuse locks of files.

Where `flock` works, it is the lock. Some network and cluster file systems refuse it, and some grant it to everyone; there,
processes take turns by claims (mmmono/core/claims.py), which need only that one process alone can create a file. A
process on another machine that has died holds such a lock for two more minutes. A `flock` that holds within each machine
alone, as some mounts of NFS and Lustre have it, is not noticed: two machines may then do the same work, and the first result
stays.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock

from mmmono.core.claims import Claims

LOOK = 0.5  # seconds between two attempts to take a claimed lock


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock of a name; wait until no other process holds it.

    Args:
        file: the lock's file, which stays; its folder must exist.
    """
    if flock_holds(file.parent):
        with FileLock(file):
            yield
        return
    folder = file.with_name(f"{file.name}.claims")
    folder.mkdir(exist_ok=True)
    with Claims(folder) as claims:
        while not claims.take(0):
            time.sleep(LOOK)
        yield


@cache
def flock_holds(folder: Path) -> bool:
    """Whether `flock` keeps a second holder out, in files of a folder."""
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
