"""Expansion of shard patterns, and names of shards."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from webdataset.shardlists import expand_urls

from mmmono.core.errors import DataError
from mmmono.core.text import escaped_bytes
from mmmono.data.hub import canonical, resolve

# Signature parameters of URLs, which change while the file stays the same: S3, GCS, CloudFront, Azure.
_SIGNATURES = re.compile(
    r"x-(amz|goog|oss|cos)-.*|signature|sig|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid|(access_?)?token|"
    r"s[eprtvsi]|sk[a-z]+|spr|response-.*|download",
    re.IGNORECASE,
)


def expand_shards(patterns: str | Sequence[str]) -> list[str]:
    """Return the paths and URLs that shard patterns mean, in order.

    An existing path is taken literally; otherwise brace ranges (`{0000..0004}`), `::` and wildcards are expanded. A
    folder means all its .tar files.

    Raises:
        DataError: a pattern matches no file, or a named local shard does not exist.
    """
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for name in [pattern] if _exists(pattern) else expand_urls(pattern):
            matches = _matches(re.sub(r"^file:(//)?", "", name))
            missing = [match for match in matches if is_local(match) and not Path(match).is_file()]
            if missing or not matches:
                raise DataError(
                    f"dataset.shards={pattern} matches no file{f': {missing[0]} is not there' if missing else ''} "
                    f"(looked in {Path.cwd()}): give paths, URLs, or ranges such as 'data/train-{{0000..0004}}.tar'"
                )
            found += matches
    if not found:
        raise DataError("dataset.shards is empty: give paths or URLs of tar shards")
    return found


def is_local(shard: str) -> bool:
    """Whether a shard is a path on this machine, rather than a URL or a command."""
    return not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|pipe:", shard)


def shown(shard: str) -> str:
    """Return a shard's name for messages: printable, and without a URL's query, which may contain secrets."""
    return re.sub(r"(://[^\s?'\"]+)\?[^\s'\"]*", r"\1", escaped_bytes(shard))


def stem(shard: str) -> str:
    """Return a shard's name in the keys of its pairs: its file name without .tar, independent of a URL's signature."""
    if shard.startswith("pipe:"):
        named = re.findall(r"([^\s/'\"=?]+)\.tar(?![\w.])", shard)
        name = named[-1] if named else f"pipe-{hashlib.sha256(shard.encode()).hexdigest()[:8]}"
    elif is_local(shard):
        name = Path(shard).name
    else:
        name = unquote(urlsplit(identity(shard)).path.rstrip("/").rpartition("/")[2])
    return escaped_bytes(name.removesuffix(".tar").replace("/", "_")) or "shard"


def identity(shard: str) -> str:
    """Return what identifies a remote shard: its URL without the signature.

    If the URL's path ends in .tar, the whole query is removed; otherwise, as the query may name the file, only
    signature parameters.
    """
    if shard.startswith("pipe:"):
        return re.sub(r"(\.tar)\?[^\s'\"]*", r"\1", shard)
    parts = urlsplit(canonical(shard))
    kept = [] if parts.path.endswith(".tar") else parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([(key, value) for key, value in kept if not _SIGNATURES.fullmatch(key)])
    return parts._replace(query=query, fragment="").geturl()


def _matches(name: str) -> list[str]:
    if name.startswith("hf://"):
        return [resolve(name)]
    if not is_local(name):
        return [name]
    if Path(name).is_dir():
        return sorted(str(file) for file in Path(name).iterdir() if file.suffix == ".tar")
    if not Path(name).exists() and glob.has_magic(name):
        return sorted(glob.glob(_with_literal_folders(name)))
    return [name]


def _with_literal_folders(pattern: str) -> str:
    """Escape wildcards in the leading folders of a pattern that exist under exactly these names."""
    parts = Path(pattern).parts
    known = 0
    while known < len(parts) and Path(*parts[: known + 1]).exists():
        known += 1
    return str(Path(*(glob.escape(part) for part in parts[:known]), *parts[known:]))


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long, or contains NUL
        return False
