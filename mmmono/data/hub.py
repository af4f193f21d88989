"""Addresses and tokens of the Hugging Face hub, for data."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import huggingface_hub

from mmmono.core.errors import ConfigError, DataError
from mmmono.core.text import message_of

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


def find_files(pattern: str) -> list[str]:
    """Return the URLs of the files of a repository that a pattern matches, such as `hf://datasets/org/name/*.tar`, sorted.

    Only a pattern with wildcards, or with a slash at its end, which means the folder's .tar files, asks the hub.

    Raises:
        ConfigError: the pattern has another form.
        DataError: the repository cannot be listed.
    """
    pattern = f"{pattern}*.tar" if pattern.endswith("/") else pattern
    if not glob.has_magic(pattern):
        return [resolve(pattern)]
    kind, name, revision, path = _parts(pattern)
    api = huggingface_hub.HfApi(endpoint=endpoint(), token=hub_token())
    try:
        files = api.list_repo_files(name, revision=revision, repo_type=kind.removesuffix("s") if kind else None)
    except Exception as error:  # which HTTP library raises it depends on the version of huggingface_hub
        reason = message_of(error, 300)
        raise DataError(
            f"cannot list the files of {pattern} ({reason}): give their names, with {{0000..0015}}"
        ) from error
    repository = pattern.removesuffix(path)
    return [resolve(f"{repository}{file}") for file in sorted(files) if _matches(file, path)]


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        path: in the repository.
        size: in bytes.
        version: digest of its content.
    """

    path: str
    size: int
    version: str


class HubFolder:
    """A folder of a repository, at the commit that its revision means now.

    Args:
        address: such as `hf://datasets/org/name@revision/folder`.

    Raises:
        ConfigError: the address has another form.
        DataError: there is no such repository or revision, it may not be read, or the hub cannot be reached.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._kind, self._name, revision, path = _parts(f"{address.rstrip('/')}/.")
        self._path = path.removesuffix(".").rstrip("/")  # "" for the repository itself
        self._api = huggingface_hub.HfApi(endpoint=endpoint(), token=hub_token())
        with self._explained():
            info = self._api.repo_info(self._name, revision=revision, repo_type=self._type)
        self.commit = str(info.sha)

    def inside(self, name: str) -> str:
        """Return the path in the repository of something in the folder."""
        return f"{self._path}/{name}" if self._path else name

    def files(self, name: str) -> list[HubFile]:
        """Return the files of a folder in this one; none if there is none. Raises DataError if they cannot be listed."""
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        with self._explained():
            try:
                tree = self._api.list_repo_tree(
                    self._name, self.inside(name), revision=self.commit, repo_type=self._type
                )
                found = list(tree)
            except EntryNotFoundError:
                return []
        files = [file for file in found if isinstance(file, RepoFile)]
        return [HubFile(file.path, file.size, file.lfs.sha256 if file.lfs else file.blob_id) for file in files]

    def url(self, path: str) -> str:
        """Return the URL of a file at the folder's commit."""
        kind = f"{self._kind}/" if self._kind else ""
        return resolve(f"hf://{kind}{self._name}@{self.commit}/{path}")

    @property
    def _type(self) -> str | None:
        return self._kind.removesuffix("s") if self._kind else None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # which HTTP library raises it depends on the version of huggingface_hub
            reason = message_of(error, 300)
            raise DataError(
                f"cannot list {self.address} ({reason}): check its name; for what is private or gated set HF_TOKEN, or run "
                "'hf auth login'"
            ) from error


def _matches(file: str, pattern: str) -> bool:
    """Whether each folder and the name of a file match those of a pattern."""
    names, patterns = file.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatch.fnmatchcase, names, patterns))


def resolve(address: str) -> str:
    """Return the URL of `hf://datasets/org/name@revision/path`. Raises ConfigError if the address has another form."""
    kind, name, revision, path = _parts(address)
    folder = f"{kind}/" if kind else ""
    return f"{endpoint()}/{folder}{name}/resolve/{quote(revision or 'main', safe='')}/{quote(path)}"


def _parts(address: str) -> tuple[str | None, str, str | None, str]:
    """Return kind, repository, revision and path of a hub address. Raises ConfigError if it has another form."""
    match = _HF_ADDRESS.fullmatch(address)
    if match is None:
        raise ConfigError(f"{address} is no file on the hub: write hf://datasets/<owner>/<name>[@revision]/<path>")
    return match[1], match[2], match[3], match[4]


def canonical(url: str) -> str:
    """Return a hub URL with the public hub's address, so that features from a mirror count as the same features."""
    here = endpoint()
    return PUBLIC_HUB + url.removeprefix(here) if url.startswith(f"{here}/") else url
