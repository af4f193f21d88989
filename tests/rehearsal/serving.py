"""The servers of the rehearsal: what they share, and how an answer goes wrong."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

CHUNK = 1 << 16


@dataclass(frozen=True)
class Fault:
    """What goes wrong with an answer.

    Attributes:
        kind: `status`, `drop` or `stall`.
        status: of the answer in place of the right one.
        headers: of that answer.
        reset: a dropped connection is reset, instead of closed as if the file were complete.
        after: share of the body that is sent before it is dropped or stalls.
        seconds: that the body stalls.
    """

    kind: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    reset: bool = False
    after: float = 0.5
    seconds: float = 0.0


@dataclass
class Request:
    """An answered request."""

    server: str
    method: str
    path: str
    status: int
    sent: int = 0
    fault: str = ""


class Log(Protocol):
    """What a server asks before an answer, and tells after it."""

    lock: threading.Lock
    requests: list[Request]

    def fault(self, server: str, method: str, path: str) -> Fault | None:
        """What goes wrong with this request."""


class Server(ThreadingHTTPServer):
    """With a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are nothing to report."""


def serve(handler: type[Handler], log: Log, port: int = 0) -> Server:
    """Start a server on a port of loopback; 0 is a free one."""
    server = Server(("127.0.0.1", port), type(handler.__name__, (handler,), {"log": log}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Handler(BaseHTTPRequestHandler):
    """Answers requests, once a fault has had its turn; each server has a class of its own."""

    protocol_version = "HTTP/1.1"
    server_name = ""
    log: Any  # a Log; what else a server asks is its own matter

    def log_message(self, *args: object) -> None:
        pass

    @property
    def plain_path(self) -> str:
        return urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_HEAD(self) -> None:
        self.handle_with_faults()

    def do_GET(self) -> None:
        self.handle_with_faults()

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.handle_with_faults()

    def handle_with_faults(self) -> None:
        self.fault = self.log.fault(self.server_name, self.command, self.plain_path)
        if self.fault and self.fault.kind == "status":
            return self.reply(self.fault.status, b'{"error": "overloaded"}', self.fault.headers)
        self.answer()

    def answer(self) -> None:
        raise NotImplementedError

    def json(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.note(status, len(body))

    def note(self, status: int, sent: int) -> None:
        kind = self.fault.kind if self.fault else ""
        with self.log.lock:
            self.log.requests.append(Request(self.server_name, self.command, self.plain_path, status, sent, kind))

    def send_file(self, path: Path, headers: dict[str, str]) -> None:
        """A file or a range of it, broken off or stalling if that is the fault."""
        data = path.read_bytes()
        first, last, status = 0, len(data) - 1, 200
        headers = {**headers, "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
            if first >= len(data):
                return self.reply(416, headers={"Content-Range": f"bytes */{len(data)}"})
            status, headers = 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
        body = data[first : last + 1]
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        sent = 0 if self.command == "HEAD" else self._send(body)
        self.note(status, sent)

    def _send(self, body: bytes) -> int:
        fault = self.fault
        broken = int(len(body) * fault.after) if fault and fault.kind in ("drop", "stall") else None
        with suppress(ConnectionError):
            for start in range(0, len(body), CHUNK):
                chunk = body[start : start + CHUNK]
                if broken is not None and start + len(chunk) > broken:
                    self.wfile.write(chunk[: broken - start])
                    self.wfile.flush()
                    assert fault is not None
                    if fault.kind == "drop":
                        self._drop(fault.reset)
                        return broken
                    time.sleep(fault.seconds)
                    chunk, broken = chunk[broken - start :], None
                self.wfile.write(chunk)
        return len(body)

    def _drop(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
