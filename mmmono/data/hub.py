"""Addresses and tokens of the Hugging Face hub, for data."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, urlsplit

import huggingface_hub

from mmmono.core.errors import ConfigError

PUBLIC_HUB = "https://huggingface.co"
_HF_ADDRESS = re.compile(r"hf://(?:(datasets|spaces)/)?([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")


def endpoint() -> str:
    """Return the hub's address: HF_ENDPOINT, or the public hub."""
    return (os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/")


def hub_token() -> str | None:
    """Return the token in HF_TOKEN, or the one stored by `hf auth login`; None if there is neither."""
    return huggingface_hub.get_token()


def is_hub(url: str) -> bool:
    """Whether a URL's host is the hub's, the only host that receives the token."""
    return origin(url) in (origin(endpoint()), origin(PUBLIC_HUB))


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL, which decide where credentials may be sent."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def repository(url: str) -> str | None:
    """Return the repository of a hub's file URL, such as `datasets/pixparse/cc3m-wds`; None for other URLs."""
    match = re.match(r"/((?:datasets/|spaces/)?[^/]+/[^/]+)/resolve/", urlsplit(url).path)
    return match[1] if match else None


def resolve(address: str) -> str:
    """Return the URL of `hf://datasets/org/name@revision/path`. Raises ConfigError if the address has another form."""
    match = _HF_ADDRESS.fullmatch(address)
    if match is None:
        raise ConfigError(f"{address} is no file on the hub: write hf://datasets/<owner>/<name>[@revision]/<path>")
    kind, name, revision, path = match.groups()
    folder = f"{kind}/" if kind else ""
    return f"{endpoint()}/{folder}{name}/resolve/{quote(revision or 'main', safe='')}/{quote(path)}"


def canonical(url: str) -> str:
    """Return a hub URL with the public hub's address, so that features from a mirror count as the same features."""
    here = endpoint()
    return PUBLIC_HUB + url.removeprefix(here) if url.startswith(f"{here}/") else url
