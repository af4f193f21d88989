"""Reads http(s) URLs: verifies that transfers are complete, resumes broken ones, and sends tokens to their host only.

A transfer is complete when the announced length was received, or the last chunk arrived, or, if the server announced
neither, when the server confirms that no byte follows. Otherwise the rest is requested again from the byte where it
stopped, after a growing pause, until `RemoteSettings.retries` attempts in a row brought no new bytes.
"""

from __future__ import annotations

import io
import os
import random
import re
import socket
import threading
import time
from contextlib import suppress
from http.client import HTTPException
from typing import Any

import requests
import urllib3

from mmmono.core.errors import BrokenPartError, DataError
from mmmono.data.hub import hub_token, is_hub, origin
from mmmono.data.refusals import remedy
from mmmono.data.remote_settings import RemoteSettings, ReplacedError
from mmmono.data.shards import shown

BUFFER = 1 << 18
CONNECT_RETRIES = 2  # for a host that has never answered: it is probably unreachable rather than busy
REMEMBERED_SECONDS = 240  # for which a redirect's signed URL is reused; the hub signs for an hour
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_BROKEN = (OSError, HTTPException, urllib3.exceptions.HTTPError)
# Transfer errors that a retry cannot fix.
_HOPELESS = (
    requests.exceptions.TooManyRedirects,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)


class RemoteFile:
    """A file behind a URL, read as one stream or in ranges over persistent connections.

    Args:
        url: an http(s) URL, including any signature.
        token: bearer token for the URL's own host. The hub's token is sent to the hub without being given here.
        settings: time-outs and retries.
    """

    def __init__(self, url: str, token: str | None = None, settings: RemoteSettings | None = None) -> None:
        self.url = url
        self.token = token
        self.settings = settings or RemoteSettings()
        self.size: int | None = None
        self.tag: str | None = None
        self.sha256: str | None = None
        self.ranged: bool | None = None  # whether the server sends parts of it; None if not yet asked for one
        self._direct: tuple[str, float] | None = None

    @property
    def shown(self) -> str:
        """URL for messages: without its password and query, which may be secrets."""
        return shown(self.url)

    def open(self, start: int = 0, stop: int | None = None) -> io.BufferedReader:
        """Stream the bytes [start, stop), by default to the end of the file. Errors are raised while reading.

        Raises:
            BrokenPartError: the file does not exist, may not be read, or the transfer broke off too often.
            DataError: the host cannot be reached, or needs other credentials.
        """
        return io.BufferedReader(RemoteStream(self, start, stop), BUFFER)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop). Raises like `open`, and BrokenPartError if the file is shorter."""
        with self.open(start, stop) as stream:
            data = stream.read(stop - start)
        if len(data) < stop - start:
            raise ReplacedError(self.shown, f"has no {stop} bytes: was it changed since it was extracted?")
        return data

    def request(self, byte_range: str | None) -> requests.Response:
        """Send one GET and follow redirects; range requests first try the redirect target of an earlier request."""
        headers = {"User-Agent": "mmmono", "Accept-Encoding": "identity"}
        if byte_range is not None:
            headers["Range"] = byte_range
            direct = self._direct  # other threads may change it meanwhile
            if direct is not None and time.monotonic() < direct[1]:
                response = self._get(direct[0], headers)
                if response.status_code in (200, 206, 416):
                    return response
                response.close()
            self._direct = None
        response = self._get(self.url, headers)
        if response.history and response.status_code in (200, 206):
            self._direct = response.url, time.monotonic() + REMEMBERED_SECONDS
            self.sha256 = self.sha256 or _sha256(response.history)
        return response

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        token = self.token if self.token and origin(url) == origin(self.url) else None
        token = token or (hub_token() if is_hub(url) else None)
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        return _sessions.here().get(url, headers=headers | authorization, stream=True, timeout=self.settings.timeout)

    def check_same(self, size: int | None, tag: str | None) -> None:
        """Raise ReplacedError if the whole file's size or tag differs from earlier responses."""
        if (self.size is not None and size is not None and size != self.size) or (
            self.tag is not None and tag is not None and tag != self.tag
        ):
            raise ReplacedError(self.shown, "was replaced by another file while it was read: run the same again")
        self.size = size if self.size is None else self.size
        self.tag = tag if self.tag is None else self.tag


class RemoteStream(io.RawIOBase):
    """The bytes of a remote file from one position on; created by `RemoteFile.open`."""

    def __init__(self, file: RemoteFile, start: int, stop: int | None) -> None:
        self._file = file
        self._position = start
        self._stop = stop
        self._response: requests.Response | None = None
        self._failures = 0
        self._ended = False
        self._silent_end: int | None = None  # position where a body of unannounced length ended

    def readable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the stream and its response."""
        self._hang_up()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into the buffer and return their number; 0 at the end."""
        view = memoryview(buffer).cast("B")
        while not self._ended and (self._stop is None or self._position < self._stop):
            try:
                if self._response is None and not self._connect():
                    break
                assert self._response is not None
                data = self._response.raw.read1(len(view))
            except _HOPELESS as error:
                raise DataError(f"cannot read {self._file.shown}: {error}") from error
            except _BROKEN as error:
                self._wait(error)
                continue
            if data:
                view[: len(data)] = data
                self._position += len(data)
                self._failures = 0
                return len(data)
            if self._at_end():
                break
        self._ended = True
        return 0

    def _connect(self) -> bool:
        """Request the bytes from the current position on; return False if there are none."""
        byte_range = None
        if self._position or self._stop is not None:
            byte_range = f"bytes={self._position}-{'' if self._stop is None else self._stop - 1}"
        response = self._file.request(byte_range)
        _reached.add(origin(self._file.url))
        if response.status_code == 416 and self._is_end(response):
            response.close()
            return False
        if response.status_code in _BUSY:
            response.close()
            raise _BusyError(response)
        if response.status_code not in (200, 206):
            response.close()
            if response.status_code == 416:
                self._file.check_same(_size_beyond(response), None)
            raise remedy(self._file.shown, response, bool(response.request.headers.get("Authorization")))
        self._response = response
        if byte_range is not None:
            self._file.ranged = response.status_code == 206
        tag = (response.headers.get("ETag") or "").removeprefix("W/") or response.headers.get("Last-Modified")
        self._file.check_same(_whole_size(response), tag)
        skipped = self._position - _first_byte(
            response, self._position
        )  # everything before the position, if the server ignores ranges
        if skipped < 0:
            raise BrokenPartError(self._file.shown, "is answered with other bytes than those that were asked for")
        while skipped > 0:
            if not (data := response.raw.read1(min(skipped, BUFFER))):
                raise ConnectionError(f"ended {skipped} bytes early")
            skipped -= len(data)
        return True

    def _is_end(self, response: requests.Response) -> bool:
        return self._position in (self._file.size, self._silent_end, _size_beyond(response))

    def _at_end(self) -> bool:
        """Whether a finished body reached the file's end; unannounced lengths are confirmed by another request."""
        assert self._response is not None
        announced = "Content-Length" in self._response.headers or self._response.raw.chunked
        self._hang_up()
        if announced or self._silent_end == self._position:
            ends = [end for end in (self._stop, self._file.size) if end is not None]
            if ends and self._position < min(ends):
                self._wait(ConnectionError("the answer was shorter than the file"))
                return False
            return True
        self._silent_end = self._position
        return False

    def _hang_up(self) -> None:
        if self._response is not None:
            with suppress(Exception):  # a broken connection may fail to close
                self._response.close()
        self._response = None

    def _wait(self, error: Exception) -> None:
        """Pause before the next attempt. Raises BrokenPartError or, if unreachable, DataError after the last."""
        self._hang_up()
        self._failures += 1
        settings = self._file.settings
        absent = _cannot_connect(error)
        patient = not absent or origin(self._file.url) in _reached
        if self._failures > (settings.retries if patient else min(CONNECT_RETRIES, settings.retries)):
            self._give_up(error, absent)
        pause = settings.pause_after(self._failures)
        if isinstance(error, _BusyError) and error.retry_after is not None:
            pause = min(error.retry_after, 10 * settings.longest_pause) + random.uniform(0, pause)
        time.sleep(pause)

    def _give_up(self, error: Exception, absent: bool) -> None:
        if isinstance(error, _BusyError):
            raise BrokenPartError(
                self._file.shown, f"answers {error}, {self._failures} times in a row: try again later"
            ) from error
        if absent:
            raise DataError(
                f"cannot reach {self._file.shown} ({_root(error)}): try again later, or give a copy on this machine"
            ) from error
        of = f" of {self._file.size}" if self._file.size is not None else ""
        raise BrokenPartError(
            self._file.shown,
            f"broke off at byte {self._position}{of}, {self._failures} times in a row ({_root(error)})",
        ) from error


class _BusyError(OSError):
    """A response that asks to try again later."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__(f"{response.status_code} {response.reason}")
        self.retry_after: float | None = None
        if value := response.headers.get("Retry-After"):
            with suppress(urllib3.exceptions.InvalidHeader):
                self.retry_after = urllib3.util.Retry().parse_retry_after(value)


class _Sessions(threading.local):
    """One session with persistent connections per thread, never shared with a forked process."""

    def __init__(self) -> None:
        self._session: requests.Session | None = None
        self._process = 0

    def here(self) -> requests.Session:
        if self._session is None or self._process != os.getpid():
            self._session, self._process = requests.Session(), os.getpid()
        return self._session


_sessions = _Sessions()
_reached: set[tuple[str, str, int]] = set()  # origins that have answered this process


def _cannot_connect(error: BaseException) -> bool:
    """Whether no connection to the host could be made."""
    return isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.SSLError) or isinstance(
        _chain(error)[-1], urllib3.exceptions.NewConnectionError | ConnectionRefusedError | socket.gaierror
    )


def _first_byte(response: requests.Response, asked: int) -> int:
    """Return the file position of the body's first byte; the requested one if the server does not say."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status_code != 206:
        return 0
    return int(match[1]) if match else asked


def _size_beyond(response: requests.Response) -> int | None:
    """Return the size of a file whose server was asked for bytes beyond its end; None if it does not say."""
    match = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _whole_size(response: requests.Response) -> int | None:
    if response.status_code == 206:
        match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        return int(match[1]) if match else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _sha256(history: list[Any]) -> str | None:
    """Return the content's digest, which the hub sends with redirects of large files."""
    tags = [answer.headers.get("X-Linked-ETag", "").strip('"') for answer in history]
    return next((tag for tag in tags if re.fullmatch(r"[0-9a-f]{64}", tag)), None)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and those it wraps, the outermost first; urllib3 keeps them as arguments, requests as causes."""
    chain = [error]
    while len(chain) < 16:
        last = chain[-1]
        within = [getattr(last, "reason", None), *last.args, last.__cause__, last.__context__]
        inner = next((e for e in within if isinstance(e, BaseException) and e not in chain), None)
        if inner is None:
            break
        chain.append(inner)
    return chain


def _root(error: BaseException) -> str:
    """Return the innermost error's message, which names the problem without the addresses around it."""
    reason = next((e for e in reversed(_chain(error)) if not isinstance(e, ValueError)), error)
    return " ".join(str(reason).split()) or type(reason).__name__
