"""Downloads from the hub that outlast a bad network, and one line about what stood in their way.

Every library here that loads weights (open_clip, timm, transformers, diffusers, Sentence Transformers) fetches them
through huggingface_hub. That resumes after a closed connection, a time-out or a 429, but neither after a connection that
was reset nor after a server's error in the middle of things; the client given to it here does.
"""

from __future__ import annotations

import errno
import importlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any

from huggingface_hub import constants, get_session, hf_hub_download, set_client_factory
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mmmono.core.errors import ModelError

PROBE_SECONDS = 5.0
ATTEMPTS = 5
WAIT_SECONDS = 1.0
LONGEST_WAIT = 60.0
SERVER_ERRORS = (500, 502, 503, 504)

# The HTTP library of the installed huggingface_hub: httpx, or its successor.
_http: Any = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])


class _ResumableStream(_http.SyncByteStream):
    """A body whose reset connection reads like a closed one, after which huggingface_hub goes on where it stopped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except _http.NetworkError as error:
            raise _http.RemoteProtocolError(f"connection lost: {error}") from error

    def close(self) -> None:
        self._stream.close()


class PatientClient(_http.Client):
    """An HTTP client that asks again where a reading request met a reset connection or a server's error."""

    def send(self, request: Any, *, stream: bool = False, **settings: Any) -> Any:
        """Send a request as httpx does; the errors of the last attempt are raised or returned."""
        reading = request.method in ("GET", "HEAD")
        for left in reversed(range(ATTEMPTS if reading else 1)):
            try:
                response = super().send(request, stream=stream, **settings)
            except (_http.ReadError, _http.WriteError, _http.RemoteProtocolError) as error:
                if not left:
                    # What opens a download is tried again by huggingface_hub only if the connection was closed.
                    raise _http.RemoteProtocolError(f"connection lost: {error}", request=request) from error
                time.sleep(WAIT_SECONDS)
                continue
            # huggingface_hub itself repeats HEAD, and first looks whether the file is in its cache.
            wait = _wait_seconds(response, ATTEMPTS - 1 - left)
            if request.method != "GET" or response.status_code not in SERVER_ERRORS or not left or wait > LONGEST_WAIT:
                break
            response.close()
            time.sleep(wait)
        if stream:
            response.stream = _ResumableStream(response.stream)
        return response


@cache
def be_patient() -> None:
    """Make huggingface_hub use a `PatientClient` from now on, in this process."""
    known = get_session()
    hooks = known.event_hooks

    def make() -> Any:
        return PatientClient(event_hooks=hooks, follow_redirects=True, timeout=known.timeout)

    set_client_factory(make)


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Within this block downloads are resumed, and files come from the cache alone if the hub gives no answer.

    Without it every file is asked for six times, over some twenty seconds, before a cached copy is used or the
    failure is reported.
    """
    be_patient()
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def download(repository: str, names: Sequence[str], cache_dir: str | None = None) -> Path:
    """The first of some files that a repository of the hub has, from the cache or downloaded.

    Raises:
        ModelError: it has none of them, or cannot be reached, and what to do about it.
    """
    with hub_or_cache():
        try:
            for name in names[:-1]:
                try:
                    return Path(hf_hub_download(repository, name, cache_dir=cache_dir))
                except EntryNotFoundError as error:
                    if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
                        raise
            return Path(hf_hub_download(repository, names[-1], cache_dir=cache_dir))
        except Exception as error:  # the client raises its own, its HTTP library's and the system's errors
            reason = hub_reason(error)
            raise ModelError(f"cannot download {' or '.join(names)} of {repository}: {reason}") from error


def hub_reason(error: BaseException) -> str:
    """What stood in the way of a download, and what to do about it, in one line."""
    chain = _chain(error)
    for link in chain:
        if reason := _reason_of(link):
            return reason
    if any(isinstance(link, LocalEntryNotFoundError | OfflineModeIsEnabled) for link in chain):
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() in constants.ENV_VARS_TRUE_VALUES:
            return "it is not in the cache, and HF_HUB_OFFLINE is set: unset it, or fetch it with 'hf download'"
        return (
            f"it is not in the cache, and {constants.ENDPOINT} cannot be reached: check the network, or fetch it where "
            "there is one with 'hf download'"
        )
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _reason_of(error: BaseException) -> str | None:
    token = "'hf auth login' or HF_TOKEN"
    if isinstance(error, GatedRepoError):
        return f"it is gated: accept its terms on its page at {constants.ENDPOINT}, and log in with {token}"
    if isinstance(error, DisabledRepoError):
        return "it was withdrawn: choose another copy"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such repository, or it is private or withdrawn: check the name, and log in with {token}"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision of it: check the name"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return "it has no such file: check the name"
    if isinstance(error, HFValidationError):
        return "this is no id on the hub, which looks like organisation/name"
    if isinstance(error, HfHubHTTPError):
        return _reason_of_status(error.response.status_code, token)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left under {constants.HF_HOME}: free some, or set HF_HOME to a folder with room"
    if isinstance(error, _http.TimeoutException):
        return "the connection stalled again and again: try again, or set HF_HUB_DOWNLOAD_TIMEOUT to more seconds"
    if isinstance(error, _http.NetworkError | _http.RemoteProtocolError):
        return "the connection was lost again and again: try again"
    return None


def _reason_of_status(status: int, token: str) -> str | None:
    if status == 401:
        return f"the token is not accepted: log in anew with {token}"
    if status == 403:
        return f"access is denied: use a token that may read it, {token}"
    if status == 429:
        return f"the hub takes no more requests for now: try again later, or log in with {token}"
    return f"the hub answers {status}: try again later" if status >= 500 else None


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and what it came from; libraries raise their own in place of the client's."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _wait_seconds(response: Any, before: int) -> float:
    """As long as the server asks for, or twice as long each time."""
    try:
        return float(response.headers.get("Retry-After", ""))
    except ValueError:
        return min(LONGEST_WAIT, WAIT_SECONDS * 2**before)


def _hub_answers() -> bool:
    """Whether the hub answers in time; looking its name up, for which no client has a time-out, counts too."""
    answered = Event()

    def ask() -> None:
        try:
            get_session().head(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT, timeout=PROBE_SECONDS)
        except Exception:  # each version of the hub's client raises its own HTTP library's errors
            return
        answered.set()

    probe = Thread(target=ask, daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return answered.is_set()
