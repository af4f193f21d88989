"""Claims: which of several processes works on which part of a common job, on one machine or on many.

All that the processes share is a folder, and all that they need of its file system is that only one of them can create
a file of a given name (`O_CREAT | O_EXCL`, which also holds on NFS and GPFS, where locks often do not):

    <folder>/<part>.0, <part>.1, ...     claims of a part; each holds its owner's token, and the last one counts
    <folder>/<token>.alive               an owner's sign of life: touched again and again, removed when it has ended

Whoever creates `<part>.0` owns the part. A process takes over a part of an owner that has died by creating the next
number. Whether one on another machine has died, it sees by a sign of life that stays the same while its own clock goes
on: when a file was touched is on some file systems said by the machine that touched it, whose clock may be wrong. An
owner confirms that a part is still its own by creating the next number too, before it puts its results in place. Only one
of the two can succeed. So a process that was stopped for long and was taken for dead does no harm when it wakes: it cannot
confirm its claim, and drops its results.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

BEAT = 10.0  # seconds between two signs of life
EXPIRY = 120.0  # seconds of silence after which an owner on another machine counts as dead; file systems may cache 60
_seen: dict[Path, tuple[float, float]] = {}  # by sign of life: its time, and since when this machine has seen no other


class Claims:
    """One process's claims. Use it as a context: within it the process gives signs of life.

    Child processes may take parts in its name with a copy of this object.

    Args:
        folder: where the processes meet; must exist.
        beat: seconds between two signs of life.
        expiry: seconds of silence, from when it is first noticed, after which an owner counts as dead. An owner on this
            machine counts as dead as soon as its process is gone.
    """

    def __init__(self, folder: Path, beat: float = BEAT, expiry: float = EXPIRY) -> None:
        self.folder = folder
        self.beat = beat
        self.expiry = expiry
        self.token = uuid4().hex[:16]
        self._end: threading.Event | None = None
        self._signs: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        seen = {sign: known for sign, known in _seen.copy().items() if sign.parent == self.folder}
        return {**self.__dict__, "_end": None, "_signs": None, "seen": seen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for sign, known in state.pop("seen").items():
            _seen.setdefault(sign, known)
        self.__dict__.update(state)

    def __enter__(self) -> Self:
        self._give_sign()
        self._end = threading.Event()
        self._signs = threading.Thread(target=self._keep_alive, args=(self._end,), name="signs of life", daemon=True)
        self._signs.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._end is not None
        assert self._signs is not None
        self._end.set()
        self._signs.join()
        with suppress(OSError):
            self._alive(self.token).unlink(missing_ok=True)

    def _give_sign(self) -> None:
        sign = self.folder / f"{self.token}.tmp"
        with suppress(FileNotFoundError):  # the job is complete, and nothing can be claimed any more
            sign.write_text(json.dumps({"machine": machine_identity(), "pid": os.getpid()}), encoding="utf-8")
            sign.replace(self._alive(self.token))

    def _keep_alive(self, end: threading.Event) -> None:
        while not end.wait(self.beat):
            with suppress(OSError):
                try:
                    os.utime(self._alive(self.token))
                except FileNotFoundError:  # this process was silent for so long that it was taken for dead
                    self._give_sign()

    @property
    def gone(self) -> bool:
        """Whether the folder was removed, because another process has completed the job."""
        return not self.folder.is_dir()

    def take(self, part: int) -> bool:
        """Claim a part; return whether it is this process's now, as it is if it was before."""
        number, owner = self._last(part)
        if owner == self.token:
            return True
        return self._is_over(part, number, owner) and self._create(part, number + 1)

    def is_free(self, part: int) -> bool:
        """Whether `take` would probably succeed: nobody has claimed the part, or its owner has died."""
        number, owner = self._last(part)
        return owner == self.token or self._is_over(part, number, owner)

    def confirm(self, part: int) -> bool:
        """Return whether a part is still this process's own: nobody takes it over then, until it ends or is silent."""
        number, owner = self._last(part)
        return owner == self.token and self._create(part, number + 1)

    def _alive(self, token: str) -> Path:
        return self.folder / f"{token}.alive"

    def _claim(self, part: int, number: int) -> Path:
        return self.folder / f"{part}.{number}"

    def _create(self, part: int, number: int) -> bool:
        try:
            file = os.open(self._claim(part, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except (FileExistsError, FileNotFoundError):  # another process was faster, or the job is complete
            return False
        try:
            os.write(file, self.token.encode())
        except OSError:  # such as a full disk: nobody could tell whose the part is, and all would wait
            self._claim(part, number).unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        return True

    def _last(self, part: int) -> tuple[int, str | None]:
        """Number and owner of a part's last claim; -1 and None if there is none."""
        if (number := self._last_number(part)) < 0:
            return -1, None
        try:
            return number, self._claim(part, number).read_text(encoding="utf-8")
        except FileNotFoundError:  # the job is complete
            return -1, None

    def _last_number(self, part: int) -> int:
        """Number of a part's last claim, found by few looks: a lock that was taken a thousand times has as many claims."""
        last, step = -1, 1
        while self._claim(part, last + step).exists():
            last, step = last + step, 2 * step
        while step > 1:  # last + step is not there
            step //= 2
            last += step if self._claim(part, last + step).exists() else 0
        return last

    def _is_over(self, part: int, number: int, owner: str | None) -> bool:
        """Whether nobody claims a part any more; if so, other processes need not wait to see it."""
        if owner is None:
            return True
        sign = self._alive(owner) if owner else self._claim(part, number)  # "": created, its token not yet written
        try:
            last = sign.stat().st_mtime
            dead = bool(owner) and _is_dead(json.loads(sign.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return True
        if not (dead or self._is_silent(sign, last)):
            return False
        if owner:
            with suppress(OSError):
                sign.unlink(missing_ok=True)
        return True

    def _is_silent(self, sign: Path, last: float) -> bool:
        """Whether a sign of life has been the same for long."""
        now = time.monotonic()
        seen, since = _seen.setdefault(sign, (last, now))
        if seen != last:
            _seen[sign] = last, now
        return seen == last and now - since > self.expiry


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether a process is known not to run any more; only known of processes of this machine."""
    if owner["machine"] != machine_identity():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    with suppress(OSError):  # killed, but its parent has not yet asked how it ended
        return Path(f"/proc/{owner['pid']}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "ZX"
    return False


@cache
def machine_identity() -> str:
    """Identify the set of processes that know each other by their numbers: a machine since its start, or a container."""
    marks = [socket.gethostname()]
    with suppress(OSError):
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
    with suppress(OSError):
        marks.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(marks)
