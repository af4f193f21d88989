"""Downloads from the hub that resume after network errors, and one-line explanations when they fail.

All libraries here that load weights (open_clip, timm, transformers, diffusers, Sentence Transformers) download them
with huggingface_hub. It resumes after a closed connection, a time-out or a 429, but not after a connection reset or a
server error during a download; the HTTP client that this module installs does.
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

from huggingface_hub import constants, get_session, get_token, hf_hub_download, set_client_factory
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
from mmmono.core.text import first_line

PROBE_SECONDS = 5.0
ATTEMPTS = 5
WAIT_SECONDS = 1.0
LONGEST_WAIT = 60.0
SERVER_ERRORS = (500, 502, 503, 504)

# The HTTP library of the installed huggingface_hub: httpx, or its successor.
_http: Any = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])


class _ResumableStream(_http.SyncByteStream):
    """A response body that reports a reset connection as a closed one, after which huggingface_hub resumes."""

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
    """An HTTP client that repeats GET and HEAD after a reset connection, and GET also after a server error."""

    def send(self, request: Any, *, stream: bool = False, **settings: Any) -> Any:
        """Send a request as httpx does; raise or return what the last attempt gave."""
        reading = request.method in ("GET", "HEAD")
        for left in reversed(range(ATTEMPTS if reading else 1)):
            try:
                response = super().send(request, stream=stream, **settings)
            except (_http.ReadError, _http.WriteError, _http.RemoteProtocolError) as error:
                if not left:
                    # huggingface_hub repeats the first request of a download only after a closed connection.
                    raise _http.RemoteProtocolError(f"connection lost: {error}", request=request) from error
                time.sleep(WAIT_SECONDS)
                continue
            # huggingface_hub repeats HEAD itself, after looking for the file in its cache.
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
    """Make huggingface_hub use a `PatientClient` from now on in this process."""
    known = get_session()
    hooks = known.event_hooks

    def make() -> Any:
        return PatientClient(event_hooks=hooks, follow_redirects=True, timeout=known.timeout)

    set_client_factory(make)


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Resume downloads within this block, and use only cached files if the hub does not answer.

    Otherwise huggingface_hub requests every file six times, over some twenty seconds, before it uses a cached copy or
    reports the failure.
    """
    be_patient()
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def download(repository: str, names: Sequence[str], cache_dir: str | None = None, revision: str | None = None) -> Path:
    """Return the first of several files that a hub repository has, from the cache or downloaded.

    Args:
        repository: its id on the hub.
        names: file names, in order of preference.
        cache_dir: folder for downloads; None is the hub's own cache.
        revision: a branch, tag or commit; None is the main branch.

    Raises:
        ModelError: the repository has none of them or cannot be reached; the message contains the remedy.
    """
    with hub_or_cache():
        try:
            for name in names[:-1]:
                try:
                    return Path(hf_hub_download(repository, name, revision=revision, cache_dir=cache_dir))
                except EntryNotFoundError as error:
                    if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
                        raise
            return Path(hf_hub_download(repository, names[-1], revision=revision, cache_dir=cache_dir))
        except Exception as error:  # the client raises its own errors, its HTTP library's and the system's
            reason = hub_reason(error)
            raise ModelError(f"cannot download {' or '.join(names)} of {repository}: {reason}") from error


def hub_reason(error: BaseException) -> str:
    """Return one line on why a download failed and what to do about it."""
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
    return first_line(error)


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
    if status == 401 and get_token() is None:
        return f"there is no such repository, or it is private: check the name, and log in with {token}"
    if status == 401:
        return f"the token is not accepted: log in anew with {token}"
    if status == 403:
        return f"access is denied: use a token that may read it, {token}"
    if status == 429:
        return f"the hub takes no more requests for now: try again later, or log in with {token}"
    if status == 404:  # of a mirror, which does not say what is missing
        return "there is no such repository, revision or file: check the names"
    return f"the hub answers {status}: try again later" if status >= 500 else None


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and its causes; libraries wrap the client's errors in their own."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _wait_seconds(response: Any, before: int) -> float:
    """Return the seconds that the server asks to wait, or else an exponentially growing pause."""
    try:
        return float(response.headers.get("Retry-After", ""))
    except ValueError:
        return min(LONGEST_WAIT, WAIT_SECONDS * 2**before)


def _hub_answers() -> bool:
    """Whether the hub answers in time. The time limit includes the name lookup, for which clients have none."""
    answered = Event()

    def ask() -> None:
        try:
            get_session().head(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT, timeout=PROBE_SECONDS)
        except Exception:  # depends on the HTTP library of the installed version
            return
        answered.set()

    probe = Thread(target=ask, daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return answered.is_set()
