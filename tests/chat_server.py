"""A server on loopback that speaks OpenAI's protocol, and can misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

SILENCE = 0  # in place of a status: no reply
Reply = Callable[[dict[str, object]], tuple[int, bytes]]


def completion(word: str) -> bytes:
    message = {"role": "assistant", "content": word}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    ).encode()


class Endpoint:
    """A server on loopback that gives its replies in turn, the last one from then on."""

    def __init__(self, replies: list[Reply]) -> None:
        self.requests: list[dict[str, object]] = []
        self.headers: dict[str, str] = {}
        self.answer_with(*replies)
        self._closed = threading.Event()
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    reply = outer._replies.pop(0) if len(outer._replies) > 1 else outer._replies[0]
                    outer.requests.append(body)
                status, content = reply(body)
                if status == SILENCE:
                    outer._closed.wait()
                    return
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    for name, value in outer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                except BrokenPipeError:  # whoever asked has given up
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer_with(self, *replies: Reply) -> None:
        """Give other replies from now on."""
        self._replies = list(replies)

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()


def never(_: dict[str, object]) -> tuple[int, bytes]:
    """No reply, however long a busy machine keeps whoever asked from looking at the clock."""
    return SILENCE, b""


def says(word: str) -> Reply:
    return lambda _: (200, completion(word))


@contextmanager
def endpoints(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Endpoint]]:
    """What starts servers with some replies; clients ask them again at once, and they end with the context."""
    pytest.importorskip("openai", reason="the judge extra brings the client")
    for delay in ("INITIAL_RETRY_DELAY", "MAX_RETRY_DELAY"):
        monkeypatch.setattr(f"openai._base_client.{delay}", 0.0)
    started: list[Endpoint] = []

    def start(*replies: Reply) -> Endpoint:
        started.append(Endpoint(list(replies)))
        return started[-1]

    yield start
    for endpoint in started:
        endpoint.close()
