"""The Hugging Face hub's addresses and tokens, for data."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, urlsplit

import huggingface_hub

from mmmono.core.errors import ConfigError

PUBLIC_HUB = "https://huggingface.co"
_HF_ADDRESS = re.compile(r"hf://(?:(datasets|spaces)/)?([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the public hub."""
    return (os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/")


def hub_token() -> str | None:
    """The token in HF_TOKEN, or the one that `hf auth login` has stored."""
    return huggingface_hub.get_token()


def is_hub(url: str) -> bool:
    """Whether a URL is the hub's own, the one host that is sent the token."""
    return origin(url) in (origin(endpoint()), origin(PUBLIC_HUB))


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: what decides where credentials may go."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def repository(url: str) -> str | None:
    """The repository that a hub's file URL belongs to, such as `datasets/pixparse/cc3m-wds`."""
    match = re.match(r"/((?:datasets/|spaces/)?[^/]+/[^/]+)/resolve/", urlsplit(url).path)
    return match[1] if match else None


def resolve(address: str) -> str:
    """`hf://datasets/org/name@revision/path` as the URL of that file. Raises ConfigError on other forms."""
    match = _HF_ADDRESS.fullmatch(address)
    if match is None:
        raise ConfigError(f"{address} is no file on the hub: write hf://datasets/<owner>/<name>[@revision]/<path>")
    kind, name, revision, path = match.groups()
    folder = f"{kind}/" if kind else ""
    return f"{endpoint()}/{folder}{name}/resolve/{quote(revision or 'main', safe='')}/{quote(path)}"


def canonical(url: str) -> str:
    """A hub URL as it is on the public hub, so that features from a mirror are the same features."""
    here = endpoint()
    return PUBLIC_HUB + url.removeprefix(here) if url.startswith(f"{here}/") else url
