"""Connections that nothing is sent through, but whose end says that a process has died, whatever the others wait for."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress

BYE = b"."  # sent by rank 0 before it ends in order


class Lifelines:
    """Rank 0's ends: one for each other process that has connected.

    Args:
        size: number of processes; whoever does not say the rank of one of them, such as a port scanner, is not watched.

    Attributes:
        port: where the others connect.
        gone: ranks of the processes that were found dead.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._server = socket.create_server(("", 0), family=family, backlog=4096, dualstack_ipv6=dual)
        self._server.setblocking(False)
        self.port = int(self._server.getsockname()[1])
        self.gone: list[int] = []
        self._lines: dict[int, socket.socket] = {}

    def look(self) -> bool:
        """Take in those who have connected; return whether any process has died."""
        with suppress(BlockingIOError):
            while True:
                self._take(self._server.accept()[0])
        for rank, line in list(self._lines.items()):
            if _has_ended(line):
                self._lines.pop(rank).close()
                self.gone.append(rank)
        return bool(self.gone)

    def _take(self, line: socket.socket) -> None:
        try:
            line.settimeout(5)
            rank = int.from_bytes(line.recv(4), "big")
            line.setblocking(False)
            _notice_lost_machines(line)
        except OSError:  # whoever that was
            rank = 0
        if 0 < rank < self._size:
            self._lines[rank] = line
        else:
            line.close()

    def end(self) -> None:
        """Say that this process ends in order."""
        for line in self._lines.values():
            with suppress(OSError):
                line.send(BYE)
            line.close()
        self._server.close()


def hold_lifeline(address: str, port: int, rank: int) -> threading.Event:
    """Connect with rank 0, and end this process, with a line from rank 1, if rank 0 dies.

    Args:
        address, port: of rank 0.
        rank: of this process.

    Returns:
        An event that is set when rank 0 ends in order, or could not be reached: no more is known of it then.
    """
    ended = threading.Event()
    try:
        line = socket.create_connection((address, port), timeout=30)
        line.sendall(rank.to_bytes(4, "big"))
        line.settimeout(None)
        _notice_lost_machines(line)
    except OSError:
        ended.set()
        return ended
    threading.Thread(target=_wait, args=(line, ended, rank), name="lifeline", daemon=True).start()
    return ended


def _wait(line: socket.socket, ended: threading.Event, rank: int) -> None:
    try:
        last = line.recv(1)
    except OSError:
        last = b""
    if last != BYE:
        if rank == 1:
            gone = "process 0 of the training has gone"
            print(f"error: {gone}; run the same command again to go on", file=sys.stderr, flush=True)
        os._exit(1)
    ended.set()


def _has_ended(line: socket.socket) -> bool:
    try:
        return line.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _notice_lost_machines(line: socket.socket) -> None:
    """Let the system ask after 10 seconds of silence, and count the other one as gone after 20 more without an answer."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):  # macOS has other names
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
