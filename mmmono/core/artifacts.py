"""Everything computed lives under one root, addressed by the configuration that made it.

An artifact is a directory `<root>/<kind>/<name>-<digest>/` where `digest` hashes its *recipe*: the JSON-able mapping
of everything that determines its content. It is built in `<...>.partial` and renamed when whole, so that a
half-written artifact is never mistaken for a finished one. Builders that can go on where they stopped find their
earlier work in the partial directory. A file lock lets processes of a sweep that need the same artifact build it once.
A recipe also holds the version of its kind of artifact (mmmono/core/versions.py), so that what an earlier version made
is not found any more. Beside the recipe lies what made it, which does not change its address: the versions of the
software, and how long it took.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from mmmono.core.errors import ConfigError, MissingArtifactError, MmmonoError
from mmmono.core.fingerprints import file_fingerprint as file_fingerprint
from mmmono.core.provenance import provenance
from mmmono.core.text import file_name
from mmmono.core.timing import timed
from mmmono.core.versions import is_current, versioned

RECIPE_FILE = "recipe.json"
VERSIONS_FILE = "versions.json"
PARTIAL = ".partial"
# How a full disk sounds without an error number: from safetensors, from numpy's allocation, from numpy's writing.
FULL_DISK = ("No space left on device", "Not enough free space to write", " requested and ")


def digest(recipe: Mapping[str, Any], length: int = 10) -> str:
    """Hex digest of a recipe, independent of the order of its keys."""
    canonical = json.dumps(recipe, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


def write_text_atomically(path: Path, text: str) -> None:
    """Write a file that is either whole or absent, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: where it lies, what made it, and whether this call built it."""

    path: Path
    recipe: Mapping[str, Any]
    built: bool

    @property
    def digest(self) -> str:
        """Digest of the recipe, for the recipes of what is derived from this artifact."""
        return digest(self.recipe)

    @property
    def made_at(self) -> float:
        """When it was finished, in seconds since the epoch."""
        return (self.path / RECIPE_FILE).stat().st_mtime

    @property
    def versions(self) -> dict[str, str]:
        """The software that made it; empty where that was not kept."""
        file = self.path / VERSIONS_FILE
        return json.loads(file.read_text()) if file.exists() else {}

    @property
    def kind(self) -> str:
        """The folder under the root that it lies in, such as `features`."""
        return self.path.parent.name


class Artifacts:
    """The `artifacts/` root: finds what is there and builds what is not.

    Args:
        root: the folder.
        rebuild: kind of artifact to build again even where it is there, once each.
        listener: told of every artifact when it is built or found, so that a tracker can record it.

    Attributes:
        builds: whether what is not there is made; where it is not, nothing that only making needs should be loaded.

    Raises:
        ConfigError: the root is none, or a file.
    """

    builds = True

    def __init__(
        self, root: str | Path, rebuild: str | None = None, listener: Callable[[Artifact], None] | None = None
    ) -> None:
        if not root or Path(root).is_file():
            raise ConfigError(f"artifacts={root} is no folder: give the root of everything computed, artifacts=/path")
        self.root = Path(root)
        self.rebuild = rebuild
        self.listener = listener
        self._rebuilt: set[Path] = set()

    def path(self, kind: str, name: str, recipe: Mapping[str, Any]) -> Path:
        """Where the artifact made by `recipe` lies, whether it exists or not."""
        return self.root / kind / f"{file_name(name)}-{digest(versioned(kind, name, recipe))}"

    def build(
        self, kind: str, name: str, recipe: Mapping[str, Any], make: Callable[[Path], None], resumable: bool = False
    ) -> Artifact:
        """Return the artifact, calling `make(partial_directory)` first if it does not exist yet.

        Args:
            kind: folder under the root, such as `features`.
            name: readable prefix of the directory's name.
            recipe: everything that determines the content.
            make: writes the content into the directory it is given.
            resumable: keep an interrupted build's partial directory for the next attempt instead of emptying it.

        Raises:
            MmmonoError: the disk is full or not writable. Whatever `make` raises passes through.
        """
        final, recipe = self.path(kind, name, recipe), versioned(kind, name, recipe)
        try:
            if not self._is_to_rebuild(final) and (final / RECIPE_FILE).exists():
                # Whole artifacts are not written to any more: no lock, so that a root may be one that only can be read.
                return self._told(Artifact(final, recipe, built=False))
            final.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{final}.lock"):
                artifact = self._build_locked(final, recipe, make, resumable)
        except MmmonoError:
            raise
        except Exception as error:
            if (explained := explain_disk_trouble(error, self.root)) is None:
                raise
            raise explained from error
        return self._told(artifact)

    def _told(self, artifact: Artifact) -> Artifact:
        if self.listener is not None:
            self.listener(artifact)
        return artifact

    def _is_to_rebuild(self, final: Path) -> bool:
        return final.parent.name == self.rebuild and final not in self._rebuilt

    def find(self, kind: str, pattern: str = "*") -> Iterator[Artifact]:
        """Finished artifacts of a kind whose names match, in the order of their names; none of an earlier version."""
        for path in sorted(self.root.glob(f"{kind}/{pattern}/{RECIPE_FILE}")):
            folder = path.parent
            if folder.suffix != PARTIAL:
                recipe = json.loads(path.read_text())
                if is_current(folder.parent.name, folder.name, recipe):
                    yield Artifact(folder, recipe, built=False)

    def made_from(self, recipe: Mapping[str, Any]) -> list[Artifact]:
        """The artifacts under the root whose digests a recipe names, such as the features a dictionary was trained on."""
        named = set(_strings(recipe))
        return [artifact for artifact in self.find("*") if artifact.path.name.rpartition("-")[2] in named]

    def _build_locked(
        self, final: Path, recipe: Mapping[str, Any], make: Callable[[Path], None], resumable: bool
    ) -> Artifact:
        rebuild = self._is_to_rebuild(final)
        if (final / RECIPE_FILE).exists() and not rebuild:
            return Artifact(final, recipe, built=False)
        partial = final.with_name(final.name + PARTIAL)
        if partial.exists() and (rebuild or not resumable):
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        with timed(partial):
            make(partial)
        write_text_atomically(partial / VERSIONS_FILE, json.dumps(provenance(), indent=2) + "\n")
        write_text_atomically(partial / RECIPE_FILE, json.dumps(recipe, indent=2, sort_keys=True, default=str) + "\n")
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        self._rebuilt.add(final)
        return Artifact(final, recipe, built=True)


class FinishedArtifacts(Artifacts):
    """The same root, looked at and not added to."""

    builds = False

    def build(
        self, kind: str, name: str, recipe: Mapping[str, Any], make: Callable[[Path], None], resumable: bool = False
    ) -> Artifact:
        """Return the artifact. Raises MissingArtifactError where it would have to be built."""
        path = self.path(kind, name, recipe)
        if not (path / RECIPE_FILE).exists():
            raise MissingArtifactError(f"{path} is not there")
        return Artifact(path, versioned(kind, name, recipe), built=False)


def _strings(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _strings(value)


def explain_disk_trouble(error: BaseException, root: str | Path) -> MmmonoError | None:
    """What to do about a disk that is full or cannot be written; None if the error is another."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    if numbers & {errno.ENOSPC, errno.EDQUOT} or any(word in str(link) for link in chain for word in FULL_DISK):
        return MmmonoError(f"no space left under {root}: free some, or point artifacts=/path/with/room elsewhere")
    if isinstance(error, OSError) and error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG):
        return MmmonoError(f"cannot make {error.filename} ({error.strerror}): point artifacts=/path elsewhere")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return MmmonoError(f"cannot write under {root} ({error.strerror}): point artifacts=/writable/path elsewhere")
    return None
