"""Models on the hub at one commit: which files there are, and a digest of each, without downloading weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import _CACHED_NO_EXIST, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled

from mmmono.core.errors import ModelError
from mmmono.core.fingerprints import file_fingerprint
from mmmono.vlm.hub import download, hub_reason


class NotReachableError(ModelError):
    """A file is not cached, and the hub cannot be reached."""


@dataclass(frozen=True)
class Repository:
    """A model's repository at one commit.

    Attributes:
        name: its id on the hub.
        commit: hash of the commit, so that all files belong together.
        folder: the commit's folder in the cache, which holds the files downloaded so far.
        cache_dir: folder for downloads; None is the hub's own cache.
    """

    name: str
    commit: str
    folder: Path
    cache_dir: str | None = None
    _known: dict[str, str | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, address: str, file: str, cache_dir: str | None = None) -> Repository:
        """Find a repository's current commit by downloading one small file, or take the cached commit without a network.

        Args:
            address: `organisation/name`, or `organisation/name@revision` for a branch, a tag, a commit or `refs/pr/1`.
            file: the file, such as `config.json`.
            cache_dir: folder for downloads; None is the hub's own cache.

        Raises:
            ModelError: there is no such repository, revision or file, or it cannot be reached.
        """
        name, _, revision = address.partition("@")
        folder = download(name, [file], cache_dir, revision or None).parent
        return cls(name, folder.name, folder, cache_dir)

    def download(self, *files: str) -> Path:
        """Return the first of several files that the repository has, downloaded unless cached; see `hub.download`.

        The hub is asked only for what the cache does not know: files of a commit do not change.
        """
        for file in files:
            cached = self._cached(file)
            if isinstance(cached, str):
                return Path(cached)
            if cached is None:
                break
        return download(self.name, files, self.cache_dir, self.commit)

    def digest(self, file: str) -> str | None:
        """Return the hub's digest of a file's content; None if the repository has no such file. Downloads nothing.

        Call it within `hub_or_cache`, which decides once for several files whether the hub can be reached.

        Raises:
            NotReachableError: the hub cannot be reached, and the file is not cached.
            ModelError: the hub refuses to answer.
        """
        if file not in self._known:
            self._known[file] = self._look_up(file)
        return self._known[file]

    def first(self, *files: str) -> tuple[str, str] | None:
        """Return name and digest of the first of several files that the repository has; None if it has none of them.

        Without a network, files that are not cached count as missing; NotReachableError is raised if none is cached.
        """
        unreachable = None
        for file in files:
            try:
                if (found := self.digest(file)) is not None:
                    return file, found
            except NotReachableError as error:
                unreachable = unreachable or error
        if unreachable is not None:
            raise unreachable
        return None

    def _look_up(self, file: str) -> str | None:
        cached = self._cached(file)
        if cached is _CACHED_NO_EXIST:
            return None
        content = Path(cached).resolve() if isinstance(cached, str) else None
        if content is not None and content.parent.name == "blobs":
            return content.name  # the cache calls contents by their digests
        try:
            return get_hf_file_metadata(hf_hub_url(self.name, file, revision=self.commit)).etag or self.commit
        except Exception as error:  # the client raises its own errors, its HTTP library's and the system's
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                return None
            if content is not None:
                return file_fingerprint(content)
            kind = NotReachableError if isinstance(error, OfflineModeIsEnabled) else ModelError
            raise kind(f"cannot look up {file} of {self.name}: {hub_reason(error)}") from error

    def _cached(self, file: str) -> Any:
        """Path of a cached file, `_CACHED_NO_EXIST` if the cache knows that there is none, or None."""
        return try_to_load_from_cache(self.name, file, cache_dir=self.cache_dir, revision=self.commit)
