"""Paths that a user gives, and the files of a folder, through links as well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """Return a path with the home folder in place of `~` or `~name`; where nobody is called so, it stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises RuntimeError for unknown names


def unreadable(path: str | Path) -> Path | None:
    """Return the file, or the first of the folders that it lies in, that this user must not read; None if there is none.

    Of what does not exist, the folders that exist are looked at.
    """
    path = Path(path).absolute()
    for part in (*reversed(path.parents), path):
        if not os.path.lexists(part):
            return None
        needed = os.X_OK if part.is_dir() and part != path else os.R_OK
        if not os.access(part, needed):
            return part
    return None


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder and in the folders below it that are not hidden, nor in a hidden folder.

    Links to folders are followed, but no folder is entered from within itself, as a link to a parent folder would do.
    Links to nothing count as files.

    Args:
        folder: where to begin; if it is no folder, there are no files.
    """
    entered = {folder: frozenset({folder.resolve()})}
    for parent, folders, names in os.walk(folder, followlinks=True):
        above = entered.pop(Path(parent))
        inside = {name: Path(parent, name).resolve() for name in sorted(folders) if name[0] != "."}
        folders[:] = [name for name, real in inside.items() if real not in above]
        entered |= {Path(parent, name): above | {inside[name]} for name in folders}
        yield from (Path(parent, name) for name in names if name[0] != ".")
