"""Which answers go wrong in a rehearsal with faults: each file the first time that it is asked for, one after its kind."""

from __future__ import annotations

from zlib import crc32

from tests.rehearsal.serving import Fault

OVERLOADED = Fault("status", status=503)
TOO_MANY = Fault("status", status=429, headers={"Retry-After": "1"})
BROKEN = Fault("status", status=500)
STALL_SECONDS = 5.0  # longer than the clients of the rehearsal wait
OF_BODIES = (
    OVERLOADED,
    Fault("drop", after=0.5),  # closed as if the file were complete
    TOO_MANY,
    Fault("drop", after=0.3, reset=True),
    Fault("stall", after=0.2, seconds=STALL_SECONDS),
    BROKEN,
)
OF_ANSWERS = (OVERLOADED, TOO_MANY, BROKEN)


def first_answer_fails(server: str, method: str, path: str, before: int) -> Fault | None:
    """A fault for the first request of every file, picked by its path, so that two rehearsals have the same ones."""
    if before or (server == "hub" and "/resolve" not in path):
        return None
    number = crc32(f"{server} {method} {path}".encode())
    kinds = OF_BODIES if server == "content" and method == "GET" else OF_ANSWERS
    return kinds[number % len(kinds)]


def every_answer_fails(server: str, method: str, path: str, before: int) -> Fault | None:
    """As an outage does that does not end: for what must be refused."""
    return OVERLOADED if server == "content" else None
