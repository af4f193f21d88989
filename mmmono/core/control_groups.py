"""Control groups, by which containers and clusters' jobs have less of a machine than there is (man 7 cgroups)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path

ROOT = Path("/")


def memory_limits(root: Path = ROOT) -> Iterator[int]:
    """Yield the limits of memory that this process has, in bytes."""
    for folder in _folders("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError):
                if (limit := _read(folder / name)) != "max":
                    yield int(limit)


def core_limits(root: Path = ROOT) -> Iterator[int]:
    """Yield the numbers of cores whose time this process may use up, rounded up."""
    for folder in _folders("cpu", root):
        with suppress(OSError):
            quota, period = _read(folder / "cpu.max").split()
            if quota != "max":
                yield ceil(int(quota) / int(period))
        with suppress(OSError):
            if (share := int(_read(folder / "cpu.cfs_quota_us"))) > 0:  # -1 if there is no limit
                yield ceil(share / int(_read(folder / "cpu.cfs_period_us")))


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's groups, and of those around them, that may limit something, of both versions."""
    try:
        groups = _read(root / "proc/self/cgroup").splitlines()
    except OSError:  # not Linux
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        place = top / path.lstrip("/")  # in a container often the path outside, which is not there
        for folder in (place, *place.parents):
            yield folder
            if folder == top:
                break


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip()
