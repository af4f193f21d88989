"""Lists the files of a remote folder, each with its size and the version of its content.

| address | how its files are found | what tells their version |
|---|---|---|
| `s3://`, `gs://`, `az://`, `memory://`, ... | the store lists them, through fsspec | ETag, generation or time of change |
| `hf://datasets/owner/name[@revision]/folder` | the hub lists them | digests; read at the commit that was listed |
| `http(s)://` | links of the folder's page, or else numbers counted up | ETag or Last-Modified |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import count
from typing import TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit

from mmmono.core.errors import BrokenPartError, DataError, StoreError
from mmmono.data.hub import HubFolder
from mmmono.data.object_store import ObjectFile, Retries, file_system, in_words, namer, tag_of
from mmmono.data.remote import RemoteFile
from mmmono.data.remote_settings import AbsentError, ForbiddenError, RemoteSettings, ReplacedError
from mmmono.data.shards import is_local, shown

THREADS = 16  # requests at a time
PAGE = 1 << 24  # bytes of a folder's page that are looked at
WIDEST = 6  # digits to which numbers in file names may be padded

T = TypeVar("T")
R = TypeVar("R")


def is_remote(address: str) -> bool:
    """Whether a text is an address of another machine, and no path or command."""
    return not is_local(address) and not address.startswith("pipe:")


def is_http(address: str) -> bool:
    """Whether an address is one of http or https, which `mmmono.data.remote` reads."""
    return address.startswith(("http://", "https://"))


@dataclass(frozen=True)
class RemotePart:
    """One version of a remote file.

    Attributes:
        address: of the file.
        size: in bytes.
        version: what the server calls this version of its content.
        fixed: whether the address always means this version, as one with a commit of the hub does.
    """

    address: str
    size: int
    version: str
    fixed: bool = False

    @property
    def name(self) -> str:
        """Name of the file, without its folder."""
        return unquote(urlsplit(self.address).path.rpartition("/")[2])

    def file(self, settings: RemoteSettings) -> RemoteFile | ObjectFile:
        """Return what reads the file, and refuses other versions of it."""
        file = RemoteFile(self.address, None, settings) if is_http(self.address) else ObjectFile(self.address, settings)
        file.size, file.tag = self.size, None if self.fixed else self.version
        return file

    def read(self, file: RemoteFile | ObjectFile, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop).

        Args:
            file: what reads it.
            start, stop: positions in the file.

        Raises:
            StoreError: the file was replaced or removed since it was listed.
            BrokenPartError: it may not be read, or the transfer broke off too often.
            DataError: its host cannot be reached, or needs other credentials.
        """
        try:
            return file.read(start, stop) if isinstance(file, RemoteFile) else file.read_same(start, stop)
        except (AbsentError, ReplacedError) as error:
            raise StoreError(
                f"{shown(self.address)} is another file than when the store was opened, or gone: run the same again, which "
                "takes the store as it is now"
            ) from error


class RemoteFolder:
    """A folder on another machine.

    Args:
        address: of the folder, without a slash at its end.
        settings: time-outs and retries.

    Raises:
        ConfigError: an address of the hub has another form.
        DataError: there is no such repository of the hub, or the hub cannot be reached.
    """

    def __init__(self, address: str, settings: RemoteSettings) -> None:
        self.address = address
        self.settings = settings
        self._hub = HubFolder(address) if address.startswith("hf://") else None
        self._found = False  # whether a file was found by its number: what is refused then is not there

    def numbered(self, folder: str, prefix: str, suffix: str) -> list[RemotePart]:
        """Return the files `<prefix><number><suffix>` of a folder in this one; none if there is no such folder.

        Raises:
            StoreError: the server does not tell the version of a file, so that a change could not be noticed, or sends no
                parts of files.
            DataError: the host cannot be reached, needs other credentials or a package that is not installed, or the
                listing broke off too often.
        """
        address = f"{self.address}/{folder}"
        match = re.compile(rf"{re.escape(prefix)}[0-9]+{re.escape(suffix)}").fullmatch
        if self._hub is not None:
            files = [file for file in self._hub.files(folder) if match(file.path.rpartition("/")[2])]
            return [RemotePart(self._hub.url(file.path), file.size, file.version, fixed=True) for file in files]
        if is_http(address):
            parts, refused = _http_files(address, prefix, suffix, match, self.settings)
            if refused and not parts and not self._found:
                raise refused[0]
            self._found = self._found or bool(parts)
            return parts
        return _objects(address, match, self.settings)

    def read(self, name: str) -> bytes | None:
        """Return the whole content of a small file in this folder; None if there is no such file.

        Raises:
            DataError: see `numbered`.
        """
        try:
            if self._hub is not None:
                return _whole(self._hub.url(self._hub.inside(name)), self.settings)
            return _whole(f"{self.address}/{name}", self.settings)
        except AbsentError:
            return None
        except ForbiddenError:
            if self._found:
                return None
            raise


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return what a function makes of each item, several at a time, in order; the first error ends it."""
    with ThreadPoolExecutor(THREADS, "remote") as pool:
        try:
            return list(pool.map(work, items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _objects(folder: str, match: Callable[[str], object], settings: RemoteSettings) -> list[RemotePart]:
    system, path = file_system(folder)
    address = namer(folder, path)

    def listed() -> list[dict[str, object]]:
        system.invalidate_cache(path)
        try:
            return list(system.ls(path, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def asked(info: dict[str, object]) -> dict[str, object]:
        name = str(info["name"])
        single: dict[str, object] = Retries(address(name), settings).until_done(lambda: system.info(name))
        return single

    found = Retries(folder, settings).until_done(listed)
    files = [info for info in found if info.get("type") == "file" and match(str(info["name"]).rpartition("/")[2])]
    system.invalidate_cache(path)  # or the store would not be asked again
    if files and tag_of(asked(files[0])) != tag_of(files[0]):  # some tell less of a file, or otherwise, in lists
        files = in_threads(asked, files)
    parts = [(address(str(info["name"])), info) for info in files]
    return [RemotePart(name, int(str(info["size"])), _version(name, tag_of(info))) for name, info in parts]


def _http_files(
    folder: str, prefix: str, suffix: str, match: Callable[[str], object], settings: RemoteSettings
) -> tuple[list[RemotePart], list[ForbiddenError]]:
    """Files that the folder's page links to; without such a page, those with the numbers from 0 on, and what was refused."""
    names = [name for name in _linked(f"{folder}/", settings) if match(name)]
    if names:
        parts = in_threads(lambda name: _http_part(f"{folder}/{quote(name)}", settings), sorted(names))
        return [part for part in parts if part is not None], []
    refused: list[ForbiddenError] = []
    for width in range(1, WIDEST + 1):
        first = _http_part(f"{folder}/{prefix}{0:0{width}}{suffix}", settings, refused)
        if first is not None:
            return [first, *_counted(f"{folder}/{prefix}", width, suffix, settings)], []
    return [], refused


def _counted(start: str, width: int, suffix: str, settings: RemoteSettings) -> list[RemotePart]:
    """Files with the numbers from 1 on, up to the first that is not there."""
    found: list[RemotePart] = []
    for first in count(1, THREADS):
        some = in_threads(
            lambda number: _http_part(f"{start}{number:0{width}}{suffix}", settings, []), range(first, first + THREADS)
        )
        there = some.index(None) if None in some else THREADS
        found += [part for part in some[:there] if part is not None]
        if there < THREADS:
            return found
    return found


def _http_part(
    address: str, settings: RemoteSettings, refused: list[ForbiddenError] | None = None
) -> RemotePart | None:
    """Ask for a file's size and version; None if there is no such file.

    Args:
        address: of the file.
        settings: time-outs and retries.
        refused: takes the error if the file may not be read, which may mean that it is not there; None raises it.
    """
    file = RemoteFile(address, None, settings)
    try:
        with file.open(0, 1) as stream:
            stream.read(1)
    except AbsentError:
        return None
    except ForbiddenError as error:
        if refused is None:
            raise
        refused.append(error)
        return None
    if file.size is None:
        raise StoreError(
            f"{shown(address)} is empty, or its server does not tell how long it is: copy the store to a disk"
        )
    if not file.ranged:
        raise StoreError(
            f"{shown(address)}: its server sends whole files only (no HTTP ranges): copy the store to a disk"
        )
    return RemotePart(address, file.size, _version(address, file.tag))


def _whole(address: str, settings: RemoteSettings) -> bytes:
    file = RemoteFile(address, None, settings) if is_http(address) else ObjectFile(address, settings)
    with file.open() as stream:
        return stream.read()


def _version(address: str, tag: str | None) -> str:
    if tag is None:
        raise StoreError(
            f"{shown(address)}: its server tells no version of it (an ETag or a time), so that no change could be noticed: "
            "copy the store to a disk"
        )
    return tag


def _linked(page: str, settings: RemoteSettings) -> list[str]:
    """Names of the files in a folder that its page links to; none if there is no such page."""
    try:
        with RemoteFile(page, None, settings).open() as stream:
            text = stream.read(PAGE).decode("utf-8", "replace")
    except BrokenPartError:  # not there, or not to be listed
        return []
    except DataError as error:
        raise DataError(f"cannot list {shown(page)}: {in_words(error).partition(': ')[2]}") from error
    links = _Links()
    links.feed(text)
    paths = [urlsplit(urljoin(page, link)).path for link in links.found]
    here = urlsplit(page).path
    names = [unquote(path.removeprefix(here)) for path in paths if path.startswith(here)]
    return sorted({name for name in names if name and "/" not in name})


class _Links(HTMLParser):
    """Addresses that a page links to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the address of a link."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]
