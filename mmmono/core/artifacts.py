"""Storage of everything computed, in one folder, addressed by the configuration that made it.

An artifact is a directory `<root>/<kind>/<name>-<digest>/`, where `digest` is a hash of its *recipe*: the JSON-able
mapping of everything that determines its content. It is built in `<...>.partial` and renamed when complete, so a
half-written artifact is never mistaken for a finished one. Builders that can resume find their earlier work in the
partial directory. A lock makes processes of a sweep that need the same artifact build it once. A recipe also holds
the version of its kind of artifact (mmmono/core/versions.py), so artifacts of an earlier version are not found any
more. Software versions and build time are stored beside the recipe and do not change the address.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from mmmono.core.disk_trouble import explain_disk_trouble
from mmmono.core.errors import ConfigError, MissingArtifactError, MmmonoError
from mmmono.core.fingerprints import file_fingerprint as file_fingerprint
from mmmono.core.locks import locked
from mmmono.core.provenance import provenance
from mmmono.core.saved import RECIPE_FILE as RECIPE_FILE
from mmmono.core.saved import read_json_object
from mmmono.core.text import file_name
from mmmono.core.timing import timed
from mmmono.core.versions import is_current, versioned

VERSIONS_FILE = "versions.json"
PARTIAL = ".partial"
REPLACED = f"-replaced{PARTIAL}"


def digest(recipe: Mapping[str, Any], length: int = 10) -> str:
    """Return the hex digest of a recipe, independent of the order of its keys."""
    canonical = json.dumps(recipe, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


def address(kind: str, name: str, recipe: Mapping[str, Any]) -> str:
    """Return the digest in the folder name of the artifact with this recipe: of the recipe and its kind's version."""
    return digest(versioned(kind, name, recipe))


def write_text_atomically(path: Path, text: str) -> None:
    """Write a file that is either complete or absent, whenever the process dies; its folder must exist.

    Processes may do so at once, also on machines that number them alike, as containers do.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:16]}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder, its recipe, and whether this call built it."""

    path: Path
    recipe: Mapping[str, Any]
    built: bool

    @property
    def digest(self) -> str:
        """Digest of the recipe; recipes of derived artifacts contain it."""
        return digest(self.recipe)

    @property
    def made_at(self) -> float:
        """Time of completion, in seconds since the epoch; now, while another process makes it anew."""
        try:
            return (self.path / RECIPE_FILE).stat().st_mtime
        except FileNotFoundError:
            return time.time()

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the software that built it, by name; empty if they were not stored. Raises StoreError if broken."""
        file = self.path / VERSIONS_FILE
        return read_json_object(file) if file.exists() else {}

    @property
    def kind(self) -> str:
        """Folder under the root that contains it, such as `features`."""
        return self.path.parent.name


@dataclass(frozen=True)
class SharedWork:
    """What one of several processes does to build an artifact together with others, each in the partial directory.

    Attributes:
        begin: makes the folders that the processes share; called by one process at a time.
        work: does this process's share, beside the others; returns whether the shares of all are done.
        finish: completes the artifact; called by one process, once all shares are done.
    """

    begin: Callable[[Path], None]
    work: Callable[[Path], bool]
    finish: Callable[[Path], None]


class Artifacts:
    """The `artifacts/` root: finds existing artifacts and builds missing ones.

    Args:
        root: the folder.
        rebuild: kinds of artifacts to rebuild even if they exist, once per artifact.
        listener: called with every artifact that is built or found, so that a tracker can record it.

    Attributes:
        builds: whether missing artifacts are built. If False, callers should load nothing that only building needs.

    Raises:
        ConfigError: the root is empty or a file.
    """

    builds = True

    def __init__(
        self, root: str | Path, rebuild: Collection[str] = (), listener: Callable[[Artifact], None] | None = None
    ) -> None:
        if not root or Path(root).is_file():
            raise ConfigError(f"artifacts={root} is no folder: give the root of everything computed, artifacts=/path")
        self.root = Path(root)
        self.rebuild = rebuild
        self.listener = listener
        self._rebuilt: set[Path] = set()

    def path(self, kind: str, name: str, recipe: Mapping[str, Any]) -> Path:
        """Return the folder of the artifact with this recipe, whether it exists or not."""
        return self.root / kind / f"{file_name(name)}-{address(kind, name, recipe)}"

    def has(self, kind: str, name: str, recipe: Mapping[str, Any]) -> bool:
        """Whether the artifact with this recipe is there."""
        return (self.path(kind, name, recipe) / RECIPE_FILE).exists()

    def build(
        self, kind: str, name: str, recipe: Mapping[str, Any], make: Callable[[Path], None], resumable: bool = False
    ) -> Artifact:
        """Return the artifact; if it does not exist yet, first call `make(partial_directory)`.

        Args:
            kind: folder under the root, such as `features`.
            name: readable prefix of the directory's name.
            recipe: everything that determines the content.
            make: writes the content into the given directory.
            resumable: keep an interrupted build's partial directory for the next attempt instead of emptying it.

        Raises:
            MmmonoError: the disk is full or not writable, or the folder is removed while it is made. Other errors from
                `make` pass through.
        """
        final, recipe = self.path(kind, name, recipe), versioned(kind, name, recipe)
        with self._trouble_explained(final):
            if not self._is_to_rebuild(final) and (final / RECIPE_FILE).exists():
                # Finished artifacts never change: no lock is needed, so the root may be read-only.
                return self._announced(Artifact(final, recipe, built=False))
            with self._locked(final):
                artifact = self._build_locked(final, recipe, make, resumable)
        return self._announced(artifact)

    def build_together(self, kind: str, name: str, recipe: Mapping[str, Any], job: SharedWork) -> Artifact | None:
        """Do one process's share of building an artifact; the process that finds all shares done completes it.

        The lock is held only to begin and to complete, so that processes work beside each other.

        Args:
            kind, name, recipe: see `build`.
            job: this process's share. Its `work` must bear that another process completes the artifact meanwhile, and
                with it removes the partial directory.

        Returns:
            The artifact, or None if other processes still work on it.

        Raises:
            ConfigError: artifacts of this kind are to be rebuilt, which only one process can do.
        """
        final = self.path(kind, name, recipe)
        partial = final.with_name(final.name + PARTIAL)
        if self._is_to_rebuild(final):
            raise ConfigError(f"several processes cannot rebuild one artifact with +force=true: remove {final} instead")
        with self._trouble_explained(final):
            if self.builds and self._begun(final, partial, job):
                with timed(partial, shared=True):
                    done = job.work(partial)
                if not done and not (final / RECIPE_FILE).exists():
                    return None
        return self.build(kind, name, recipe, job.finish, resumable=True)

    def _begun(self, final: Path, partial: Path, job: SharedWork) -> bool:
        """Begin the common job, unless the artifact is there; return whether there is something to do."""
        if (final / RECIPE_FILE).exists():
            return False
        with self._locked(final):
            if (final / RECIPE_FILE).exists() or (partial / RECIPE_FILE).exists():  # which only has to be put in place
                return False
            partial.mkdir(exist_ok=True)
            job.begin(partial)
        return True

    @contextmanager
    def _locked(self, final: Path) -> Iterator[None]:
        """Hold the lock of an artifact."""
        final.parent.mkdir(parents=True, exist_ok=True)
        with locked(Path(f"{final}.lock")):
            yield

    @contextmanager
    def _trouble_explained(self, final: Path) -> Iterator[None]:
        try:
            yield
        except MmmonoError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and not final.parent.is_dir():  # while its lock was waited for
                raise _removed(final.parent) from error
            if (explained := explain_disk_trouble(error, self.root)) is None:
                raise
            raise explained from error

    def _announced(self, artifact: Artifact) -> Artifact:
        if self.listener is not None:
            self.listener(artifact)
        return artifact

    def _is_to_rebuild(self, final: Path) -> bool:
        return final.parent.name in self.rebuild and final not in self._rebuilt

    def find(self, kind: str, pattern: str = "*") -> Iterator[Artifact]:
        """Yield finished artifacts of a kind whose names match, sorted by name; skip those of an earlier version.

        Raises:
            StoreError: the recipe of one is broken.
        """
        for path in sorted(self.root.glob(f"{kind}/{pattern}/{RECIPE_FILE}")):
            folder = path.parent
            if folder.suffix != PARTIAL:
                try:
                    recipe = read_json_object(path)
                except FileNotFoundError:  # another process rebuilds it
                    continue
                if is_current(folder.parent.name, folder.name, recipe):
                    yield Artifact(folder, recipe, built=False)

    def made_from(self, recipe: Mapping[str, Any]) -> list[Artifact]:
        """Return the artifacts whose digests a recipe contains, such as the features a dictionary was trained on."""
        named = set(_strings(recipe))
        return [artifact for artifact in self.find("*") if artifact.path.name.rpartition("-")[2] in named]

    def _build_locked(
        self, final: Path, recipe: Mapping[str, Any], make: Callable[[Path], None], resumable: bool
    ) -> Artifact:
        rebuild = self._is_to_rebuild(final)
        if (final / RECIPE_FILE).exists() and not rebuild:
            return Artifact(final, recipe, built=False)
        partial = final.with_name(final.name + PARTIAL)
        if not rebuild and (partial / RECIPE_FILE).exists():  # its process was killed before the last step
            return self._put_in_place(partial, final, recipe)
        if rebuild or not resumable:
            _remove(partial, wholly=True)
        partial.mkdir(exist_ok=True)
        try:
            with timed(partial):
                make(partial)
            write_text_atomically(partial / VERSIONS_FILE, json.dumps(provenance(), indent=2) + "\n")
            made_from = json.dumps(recipe, indent=2, sort_keys=True, default=str) + "\n"
            write_text_atomically(partial / RECIPE_FILE, made_from)
        except BaseException as error:
            gone = isinstance(error, Exception) and not partial.is_dir()
            if not resumable:  # the next attempt would only empty it
                _remove(partial)
            if not gone:
                raise
            if rebuild or not (final / RECIPE_FILE).exists():
                raise _removed(partial) from error
            return Artifact(final, recipe, built=False)  # made meanwhile, see below
        if not rebuild and (final / RECIPE_FILE).exists():  # made meanwhile: the lock holds on one machine alone
            _remove(partial)
            return Artifact(final, recipe, built=False)
        return self._put_in_place(partial, final, recipe)

    def _put_in_place(self, partial: Path, final: Path, recipe: Mapping[str, Any]) -> Artifact:
        """Publish a complete folder; one that it replaces is missing for as short as can be."""
        with suppress(FileNotFoundError):
            final.rename(final.with_name(f"{final.name}.{uuid4().hex[:8]}{REPLACED}"))
        partial.rename(final)
        for replaced in final.parent.glob(f"{final.name}.*{REPLACED}"):  # also of a process that was killed
            _remove(replaced)
        self._rebuilt.add(final)
        return Artifact(final, recipe, built=True)


class FinishedArtifacts(Artifacts):
    """The same root, read-only: returns existing artifacts and builds none."""

    builds = False

    def build(
        self, kind: str, name: str, recipe: Mapping[str, Any], make: Callable[[Path], None], resumable: bool = False
    ) -> Artifact:
        """Return the artifact. Raises MissingArtifactError if it does not exist."""
        path = self.path(kind, name, recipe)
        if not (path / RECIPE_FILE).exists():
            raise MissingArtifactError(f"{path} is not there")
        return Artifact(path, versioned(kind, name, recipe), built=False)


def _remove(folder: Path, wholly: bool = False) -> None:
    """Remove what is no artifact, if it is there: first what would make a half look whole, if this process is killed.

    What cannot be removed stays, such as files that a process reads from a network's disk, unless it has to go `wholly`.
    """
    if folder.exists():
        (folder / RECIPE_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=not wholly)


def _removed(folder: Path) -> MmmonoError:
    return MmmonoError(f"{folder} was removed while a process worked in it: run the same command again")


def _strings(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _strings(value)
