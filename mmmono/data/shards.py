"""Which shards a pattern means, and what they are called."""

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

# Parameters of URLs that sign, and change from one day to the next while the file stays: S3, GCS, CloudFront, Azure.
_SIGNATURES = re.compile(
    r"x-(amz|goog|oss|cos)-.*|signature|sig|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid|(access_?)?token|"
    r"s[eprtvsi]|sk[a-z]+|spr|response-.*|download",
    re.IGNORECASE,
)


def expand_shards(patterns: str | Sequence[str]) -> list[str]:
    """Paths and URLs of shards, in order.

    A path that is there is taken as it is; otherwise brace ranges (`{0000..0004}`), `::` and wildcards are expanded. A
    folder means all its .tar files.

    Raises:
        DataError: a pattern matches no file, or a named local shard is not there.
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
    """Whether a shard is a path of this machine, rather than a URL or a command."""
    return not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|pipe:", shard)


def shown(shard: str) -> str:
    """A shard as messages may show it: without the query of a URL, which may be a secret, and printable."""
    return re.sub(r"(://[^\s?'\"]+)\?[^\s'\"]*", r"\1", escaped_bytes(shard))


def stem(shard: str) -> str:
    """What a shard is called in the keys of its pairs: its file's name without .tar, whatever signature its URL carries."""
    if shard.startswith("pipe:"):
        named = re.findall(r"([^\s/'\"=?]+)\.tar(?![\w.])", shard)
        name = named[-1] if named else f"pipe-{hashlib.sha256(shard.encode()).hexdigest()[:8]}"
    elif is_local(shard):
        name = Path(shard).name
    else:
        name = unquote(urlsplit(identity(shard)).path.rstrip("/").rpartition("/")[2])
    return escaped_bytes(name.removesuffix(".tar").replace("/", "_")) or "shard"


def identity(shard: str) -> str:
    """What identifies a remote shard: its URL without what signs it.

    Of a URL whose path names a .tar the whole query is left out; of others, which may name the file in their query, the
    parameters that sign.
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
    """A pattern in which the leading folders that exist by their very names mean only themselves."""
    parts = Path(pattern).parts
    known = 0
    while known < len(parts) and Path(*parts[: known + 1]).exists():
        known += 1
    return str(Path(*(glob.escape(part) for part in parts[:known]), *parts[known:]))


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False
