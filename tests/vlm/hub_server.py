"""A model hub on loopback, as much of it as downloads need, that fails on demand as the real one does."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "a" * 40


@dataclass
class Fault:
    """What goes wrong with requests whose `METHOD path` matches: a status, or a connection that ends after some bytes."""

    match: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    after: int = -1
    how: str = "rst"


@dataclass
class Hub:
    """Files by `org/name/file` at the newest commit and at `older` ones, faults to come, and the requests so far with the
    bytes they began at.

    Answers of the hub's API, as JSON, are in `api` by their paths; without any it answers 404.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    api: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    log: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""
    commit: str = COMMIT
    older: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def push(self, files: dict[str, bytes]) -> None:
        """Replace files of all repositories by a new commit."""
        self.older[self.commit] = self.files
        self.files, self.commit = {**self.files, **files}, f"{len(self.older):040x}"

    def fault(self, request: str) -> Fault | None:
        """The next fault for a request, which then has one time less."""
        for fault in self.faults:
            if fault.times and re.search(fault.match, request):
                fault.times -= 1
                return fault
        return None


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub at `hub.url`, for as long as the block lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            start = int(re.sub(r"\D", "", self.headers.get("Range", "0").split("-")[0]))
            hub.log.append((f"{self.command} {self.path}", start))
            fault = hub.fault(f"{self.command} {self.path}")
            if fault is not None and fault.status:
                self._reply(fault.status, b"{}", fault.headers)
            elif fault is not None and fault.after < 0:
                self._drop(fault.how)
            elif (path := self.path.split("?")[0]) in hub.api:
                self._reply(200, hub.api[path], {"Content-Type": "application/json"})
            elif self.path == "/":
                self._reply(200, b"hub")
            else:
                self._file(start, fault)

        def _file(self, start: int, fault: Fault | None) -> None:
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            name = f"{match[1]}/{match[3]}" if match else ""
            commit = match[2] if match and match[2] in hub.older else hub.commit
            files = hub.older.get(commit, hub.files)
            if name not in files:
                known = match and any(file.startswith(f"{match[1]}/") for file in files)
                code = "EntryNotFound" if known else "RepoNotFound"
                self._reply(404 if known else 401, b"", {"X-Error-Code": code, "X-Repo-Commit": commit})
                return
            content = files[name]
            headers = {
                "X-Repo-Commit": commit,
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                "Accept-Ranges": "bytes",
            }
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._reply(206 if start else 200, content[start:], headers, fault)

        def _reply(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, fault: Fault | None = None
        ) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault is None:
                self.wfile.write(body)
                return
            self.wfile.write(body[: fault.after])
            self.wfile.flush()
            time.sleep(0.1)  # what was sent arrives before the reset does
            self._drop(fault.how)

        def _drop(self, how: str) -> None:
            if how == "stall":
                time.sleep(3)
            elif how == "rst":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close() if how == "rst" else self.connection.shutdown(socket.SHUT_RDWR)

    return Handler
