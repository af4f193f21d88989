"""Names of shards: in messages, in the keys of their pairs, and in fingerprints."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from tarfile import BLOCKSIZE
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from mmmono.core.fingerprints import file_fingerprint
from mmmono.core.text import escaped_bytes
from mmmono.data.hub import canonical

# Signature parameters of URLs, which change while the file stays the same: S3, GCS, CloudFront, Azure.
_SIGNATURES = re.compile(
    r"x-(amz|goog|oss|cos)-.*|signature|sig|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid|(access_?)?token|"
    r"s[eprtvsi]|sk[a-z]+|spr|response-.*|download",
    re.IGNORECASE,
)

# Parameters that name one of several versions of a file: S3, GCS, Azure.
_VERSIONS = re.compile(r"version(_?id)?|revision|generation|snapshot", re.IGNORECASE)


def copies(files: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of files that have one content, in order. Archives without a member are no copies of each other.

    Only files of equal size are read.
    """
    by_size: dict[int, list[Path]] = {}
    for file in files:
        by_size.setdefault(file.stat().st_size, []).append(file)
    by_content: dict[str, list[Path]] = {}
    for several in by_size.values():
        for file in several if len(several) > 1 else ():
            by_content.setdefault(file_fingerprint(file), []).append(file)
    return [same for same in by_content.values() if len(same) > 1 and _has_a_member(same[0])]


def _has_a_member(archive: Path) -> bool:
    with archive.open("rb") as file:
        return any(file.read(BLOCKSIZE))


def is_local(shard: str) -> bool:
    """Whether a shard is a path on this machine, rather than a URL or a command."""
    return not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|pipe:", shard)


def shown(shard: str) -> str:
    """Return a shard's name for messages: printable, and without a URL's password and query, which may be secrets."""
    named = re.sub(r"(://[^\s?'\"]+)\?[^\s'\"]*", r"\1", escaped_bytes(shard))
    return re.sub(r"(://[^\s/:@'\"]*):[^\s/@'\"]*@", r"\1@", named)


def stem(shard: str) -> str:
    """Return a shard's name in the keys of its pairs: its file name without .tar, independent of a URL's signature."""
    if shard.startswith("pipe:"):
        named = re.findall(r"([^\s/'\"=?]+)\.tar(?![\w.])", shard)
        name = named[-1] if named else f"pipe-{hashlib.sha256(shard.encode()).hexdigest()[:8]}"
    elif is_local(shard):
        name = Path(shard).name
    else:
        name = unquote(_split(identity(shard)).path.rstrip("/").rpartition("/")[2])
    return escaped_bytes(name.removesuffix(".tar").replace("/", "_")) or "shard"


def identity(shard: str) -> str:
    """Return what identifies a remote shard: its URL without password and signature.

    If the URL's path ends in .tar, the whole query is removed but for what names a version of the file, such as
    `versionId`; otherwise, as the query may name the file, only signature parameters.
    """
    if shard.startswith("pipe:"):
        return re.sub(r"(\.tar)\?[^\s'\"]*", r"\1", shard)
    parts = _split(canonical(shard))
    named = parts.path.endswith(".tar")
    given = parse_qsl(parts.query, keep_blank_values=True)
    kept = [one for one in given if (_VERSIONS.fullmatch(one[0]) if named else not _SIGNATURES.fullmatch(one[0]))]
    query = urlencode(kept)
    host = re.sub(r":[^@]*@", "@", parts.netloc)
    return parts._replace(netloc=host, query=query, fragment="").geturl()


def _split(url: str) -> SplitResult:
    """Split a URL; only those of http(s) have fragments, elsewhere # is a character of a name like others."""
    return urlsplit(url, allow_fragments=re.match("https?://", url) is not None)
