"""Errors for HTTP responses that a retry would not change, such as 401 or 404, each with a remedy."""

from __future__ import annotations

import requests

from mmmono.core.errors import BrokenPartError, DataError
from mmmono.data.hub import endpoint, is_hub, repository
from mmmono.data.remote_settings import AbsentError, ForbiddenError


def remedy(shown: str, response: requests.Response, with_token: bool) -> DataError:
    """Return the error to raise for a response that a retry would not change.

    Args:
        shown: the URL without secrets, for messages.
        response: the server's response.
        with_token: whether the request carried credentials.
    """
    status = f"answers {response.status_code} {response.reason}".rstrip()
    hub = is_hub(response.url)
    if response.status_code in (401, 403) and hub:
        return DataError(f"{shown} {status}: {_access(shown, response, with_token)}")
    if response.status_code == 401:
        return DataError(
            f"{shown} {status}: it wants credentials; give signed URLs, or 'pipe:curl ...' with the credentials, "
            "or local copies of the shards"
        )
    if response.status_code == 403:
        return ForbiddenError(shown, f"{status}: it may not be read, or its signature has expired; give fresh URLs")
    if response.status_code in (404, 410):
        where = f" (does {endpoint()}/{name} have it?)" if hub and (name := repository(response.url)) else ""
        return AbsentError(shown, f"{status}: it is not there{where}; check the pattern and the range of numbers")
    return BrokenPartError(shown, status)


def _access(shown: str, response: requests.Response, with_token: bool) -> str:
    page = f"{endpoint()}/{repository(response.url) or ''}".rstrip("/")
    if response.headers.get("X-Error-Code") == "GatedRepo" and with_token:
        return f"ask for access at {page} with the account of your token"
    if not with_token:
        return f"ask for access at {page} if it wants that, and set HF_TOKEN or run 'hf auth login'"
    if response.status_code == 401:
        return "the hub does not take this token: set HF_TOKEN to a valid one, or run 'hf auth login' again"
    return f"the token may not read it: ask for access at {page}, or use a token that has it (HF_TOKEN)"
