"""An HTTP server on loopback that fails as real ones do, when it is asked to."""

from __future__ import annotations

import hashlib
import http.server
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar


@dataclass
class Fault:
    """What happens to one request: an answer of this status, or a body that ends, stalls or comes without a length.

    Attributes:
        status, headers: of an answer without the file.
        after: bytes of the body that are sent before `how` happens.
        how: `fin`, `rst`, `stall` (for `seconds`, then FIN), or `silent`: not even a status.
        path: part of the paths it happens to.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after: int | None = None
    how: str = "fin"
    seconds: float = 0.0
    path: str = ""


@dataclass
class Request:
    path: str
    byte_range: str | None
    authorization: str | None
    status: int = 0
    sent: int = 0


class FlakyServer(http.server.ThreadingHTTPServer):
    """Serves `files` by path, one fault of `faults` a request, and remembers the `requests`.

    Attributes:
        token: bearer token that is required, if any; `strict` answers 400 to any other credentials, as signed URLs do.
        framing: `length`, `chunked` (the fault cuts off between chunks), or `none` (HTTP/1.0 as it was).
        ranged: whether ranges are honoured.
        tagged: whether versions are told.
        redirects: path → address.
        absent: status for what is not there; 403 from buckets that may not be listed.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[Handler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.connections = 0
        self.redirects: dict[str, str] = {}
        self.token: str | None = None
        self.strict = False
        self.framing = "length"
        self.ranged = True
        self.tagged = True
        self.absent = 404
        self.extra: dict[str, str] = {}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, path: str) -> Fault:
        with self.lock:
            for fault in self.faults:
                if fault.path in path:
                    self.faults.remove(fault)
                    return fault
        return Fault()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


Server = TypeVar("Server", bound=FlakyServer)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyServer

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.request_.status = status
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        server = self.server
        path = self.path.partition("?")[0]
        self.request_ = Request(self.path, self.headers.get("Range"), self.headers.get("Authorization"))
        with server.lock:
            server.requests.append(self.request_)
        fault = server.fault(self.path)
        if fault.how == "silent":
            self._drop("fin")
        elif fault.status is not None:
            self._answer(fault.status, fault.headers)
        elif server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            self._answer(401, server.extra)
        elif server.strict and self.headers.get("Authorization"):
            self._answer(400)
        elif path in server.redirects:
            self._answer(302, {"Location": server.redirects[path]})
        elif path not in server.files:
            self._answer(server.absent, server.extra)
        else:
            self._send(server.files[path], fault)

    def _send(self, data: bytes, fault: Fault) -> None:
        server = self.server
        first, last, status = 0, len(data) - 1, 200
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", self.request_.byte_range or "") if server.ranged else None
        if ranged:
            first, last, status = int(ranged[1]), min(last, int(ranged[2] or last)), 206
            if first >= len(data):
                self._answer(416, {"Content-Range": f"bytes */{len(data)}"})
                return
        body = data[first : last + 1]
        self.request_.status = status
        if server.framing == "none":
            self.protocol_version = "HTTP/1.0"
            self.close_connection = True
        self.send_response(status)
        if server.tagged:
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:16]}"')
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        if server.framing == "length":
            self.send_header("Content-Length", str(len(body)))
        elif server.framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = body if fault.after is None else body[: fault.after]
        for start in range(0, len(sent), 4096):
            piece = sent[start : start + 4096]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if server.framing == "chunked" else piece)
            self.request_.sent += len(piece)
        if fault.after is not None:
            self.wfile.flush()
            time.sleep(fault.seconds)
            self._drop(fault.how)
        elif server.framing == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def _drop(self, how: str) -> None:
        self.close_connection = True
        if how == "rst":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve until the context ends."""
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def flaky_server() -> Iterator[FlakyServer]:
    with serving(FlakyServer()) as server:
        yield server
