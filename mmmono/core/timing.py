"""Build time and machine of an artifact, stored beside it; run time estimates use them."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

from mmmono.core.cores import usable_cores

TIMING_FILE = "timing.json"
SHARED_FILES = "timing-*.json"  # of processes that share the work, until the artifact is finished
# Seconds of the artifacts that were built within the innermost build that is going on.
_inside: ContextVar[list[float] | None] = ContextVar("inside", default=None)


@dataclass(frozen=True)
class Timing:
    """Build time of an artifact.

    Attributes:
        seconds: total of all attempts, interrupted ones included.
        machine: description of the machine of the last attempt.
        inside: those of `seconds` in which other artifacts were built, which this one needed and were not there.
        earlier: those of its own seconds that interrupted attempts took.
    """

    seconds: float
    machine: str
    inside: float = 0.0
    earlier: float = 0.0

    @property
    def own(self) -> float:
        """Seconds that this artifact alone took; those of all artifacts add up."""
        return max(0.0, self.seconds - self.inside)

    @property
    def latest(self) -> float:
        """Those of its own seconds that the last attempt took."""
        return max(0.0, self.own - self.earlier)


def read_timing(folder: Path) -> Timing | None:
    """Return an artifact's build time, those of processes that shared the work added up; None if it was not stored."""
    found = []
    for file in (folder / TIMING_FILE, *sorted(folder.glob(SHARED_FILES))):
        with suppress(OSError, ValueError, TypeError):
            found.append(Timing(**json.loads(file.read_text(encoding="utf-8"))))
    if not found:
        return None
    seconds, inside, earlier = (sum(of) for of in zip(*((t.seconds, t.inside, t.earlier) for t in found), strict=True))
    return Timing(seconds, found[-1].machine, inside, earlier)


@contextmanager
def timed(folder: Path, shared: bool = False) -> Iterator[None]:
    """Add the duration of this block to the build time in the folder, also if an error or interrupt ends the block.

    Args:
        folder: of the artifact.
        shared: whether other processes do so at the same time. Each then writes a file of its own, and the process that
            finishes the artifact adds them up.
    """
    begun = time.monotonic()
    around, here = _inside.get(), [0.0]
    token = _inside.set(here)
    try:
        yield
    finally:
        _inside.reset(token)
        seconds, inside = time.monotonic() - begun, here[0]
        if around is not None:
            around[0] += seconds
        earlier = [] if shared else list(folder.glob(SHARED_FILES))
        interrupted = 0.0
        if not shared and (before := read_timing(folder)) is not None:
            seconds, inside = seconds + before.seconds, inside + before.inside
            interrupted = before.earlier if earlier else before.own  # those that shared the work are no attempts
        unique = uuid4().hex[:16]
        temporary = folder / f".{TIMING_FILE}.{unique}.tmp"
        try:
            temporary.write_text(
                json.dumps(asdict(Timing(round(seconds, 3), machine(), round(inside, 3), round(interrupted, 3))))
                + "\n",
                encoding="utf-8",
            )
            temporary.replace(folder / (SHARED_FILES.replace("*", unique) if shared else TIMING_FILE))
            for file in earlier:
                file.unlink(missing_ok=True)
        except OSError:  # a full disk: failing to store the time must not hide the error that is being raised
            temporary.unlink(missing_ok=True)


@contextmanager
def others_built() -> Iterator[None]:
    """Count the duration of this block as time in which other artifacts were built.

    Threads that the block starts with a copy of its context count theirs nowhere else.
    """
    begun = time.monotonic()
    around = _inside.get()
    token = _inside.set([0.0])
    try:
        yield
    finally:
        _inside.reset(token)
        if around is not None:
            around[0] += time.monotonic() - begun


def machine() -> str:
    """Describe this machine without its name: processor, cores, and the GPU if PyTorch is loaded and sees one."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name(0) if torch is not None and torch.cuda.is_available() else ""
    return f"{_processor()}, {usable_cores()} cores" + (f", {gpu}" if gpu else "")


@cache
def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
