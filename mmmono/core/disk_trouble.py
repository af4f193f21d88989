"""Says what to do about a disk that is full, or that must not be written or read."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from mmmono.core.errors import MmmonoError
from mmmono.core.files import unreadable

# Messages of full-disk errors without an errno: from safetensors, numpy's allocation and numpy's writing.
FULL_DISK = re.compile(r"No space left on device|Not enough free space to write|\d+ requested and \d+ written")


def explain_disk_trouble(error: BaseException, root: str | Path, setting: str = "artifacts") -> MmmonoError | None:
    """Return an error with the remedy for a full or unwritable disk, or None if `error` has another cause.

    Args:
        error: what writing has raised.
        root: the folder that was written to.
        setting: what names the folder.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    if numbers & {errno.ENOSPC, errno.EDQUOT} or any(FULL_DISK.search(str(link)) for link in chain):
        return MmmonoError(f"no space left under {root}: free some, or point {setting}=/path/with/room elsewhere")
    if isinstance(error, OSError) and error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG):
        return MmmonoError(f"cannot make {error.filename} ({error.strerror}): point {setting}=/path elsewhere")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        if isinstance(error.filename, str | Path) and (closed := unreadable(error.filename)) is not None:
            return MmmonoError(
                f"cannot read {closed} ({error.strerror}): ask its owner for the right, or point {setting}=/path elsewhere"
            )
        return MmmonoError(f"cannot write under {root} ({error.strerror}): point {setting}=/writable/path elsewhere")
    return None
