"""Reads objects of other stores through fsspec (`s3://`, `gs://`, `az://`, `sftp://`, `memory://`, ...).

fsspec and the package of the scheme, such as s3fs, do the transfers. A read that breaks off is taken up again at the byte
where it stopped, by opening the object there, after a growing pause, until `RemoteSettings.retries` attempts in a row
brought no new bytes. Time-outs are those of the scheme's package.

http(s) and hf:// addresses do not come here. Their reader, `mmmono.data.remote`, does what fsspec's HTTP file system
does not: it tells a body that was cut short from a complete one, checks that a resumed file is still the same one, obeys
`Retry-After`, and sends credentials to no other host. It also needs no aiohttp.
"""

from __future__ import annotations

import glob
import io
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import IO, Any, TypeVar

from mmmono.core.errors import BrokenPartError, DataError
from mmmono.data.remote import BUFFER
from mmmono.data.remote_settings import AbsentError, RemoteSettings, ReplacedError
from mmmono.data.shards import shown

T = TypeVar("T")
# What stores call the version of an object's content, the most reliable first.
_TAGS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")
# A retry cannot help against these.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError)


class ObjectFile:
    """An object behind an address of any scheme that fsspec knows, read as one stream or in ranges.

    Args:
        address: such as `s3://bucket/train-0000.tar`.
        settings: pauses and retries.

    Attributes:
        size: bytes of the object; None before it was first opened.
        tag: version of its content, if the store tells one; None before it was first opened.
        sha256: None, as stores tell no such digest.
    """

    def __init__(self, address: str, settings: RemoteSettings | None = None) -> None:
        self.address = address
        self.settings = settings or RemoteSettings()
        self.size: int | None = None
        self.tag: str | None = None
        self.sha256: str | None = None

    def open(self, start: int = 0) -> io.BufferedReader:
        """Stream the bytes from `start` to the end. Errors are raised while reading.

        Raises:
            BrokenPartError: the object does not exist, may not be read, was replaced meanwhile, or broke off too often.
            DataError: the scheme is unknown, or needs a package or credentials that are not there.
        """
        return io.BufferedReader(ObjectStream(self, start), BUFFER)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop). Raises like `open`, and BrokenPartError if the object is shorter."""
        system, path = file_system(self.address)
        retries = Retries(self.address, self.settings)
        data: bytes = retries.until_done(lambda: system.cat_file(path, start=start, end=stop))
        if len(data) < stop - start:
            raise ReplacedError(shown(self.address), f"has no {stop} bytes: was it changed since it was extracted?")
        return data

    def read_same(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop) of the version of earlier calls. Raises like `read`, and ReplacedError."""
        try:
            data = self.read(start, stop)
        except BrokenPartError:
            Retries(self.address, self.settings).until_done(self.check_same)  # which may be why
            raise
        # Asked afterwards: what is the same version now was it when it was read.
        Retries(self.address, self.settings).until_done(self.check_same)
        return data

    def open_once(self, start: int) -> IO[bytes]:
        """Open the object at a position, without retries, and check that it is the one of earlier calls."""
        self.check_same()
        system, path = file_system(self.address)
        stream: IO[bytes] = system.open(path, "rb")
        if start:
            stream.seek(start)
        return stream

    def check_same(self) -> None:
        """Raise ReplacedError if size or tag differ from those of earlier calls."""
        system, path = file_system(self.address)
        system.invalidate_cache(path.rpartition("/")[0])  # listings are kept, and may be old
        info = system.info(path)
        size, tag = info.get("size"), tag_of(info)
        for known, now in ((self.size, size), (self.tag, tag)):
            if known is not None and now is not None and known != now:
                raise ReplacedError(shown(self.address), "was replaced while it was read: run the same again")
        self.size = size if self.size is None else self.size
        self.tag = tag if self.tag is None else self.tag


class ObjectStream(io.RawIOBase):
    """The bytes of an object from one position on; created by `ObjectFile.open`."""

    def __init__(self, file: ObjectFile, start: int) -> None:
        self._file = file
        self._position = start
        self._stream: IO[bytes] | None = None
        self._retries = Retries(file.address, file.settings)

    def readable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the stream and the object behind it."""
        self._hang_up()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into the buffer and return their number; 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self._retries.until_done(lambda: self._read(len(view)))
        view[: len(data)] = data
        self._position += len(data)
        if data:
            self._retries.failures = 0
        return len(data)

    def _read(self, count: int) -> bytes:
        try:
            if self._stream is None:
                self._stream = self._file.open_once(self._position)
            data = self._stream.read(count)
            size = self._file.size
            if not data and size is not None and self._position < size:
                raise EOFError(f"it ended at byte {self._position} of {size}")
            if not data or self._position + len(data) == size:
                self._file.check_same()  # some packages ask for one range after the other, of whatever is there then
        except BaseException:
            self._hang_up()
            raise
        return data

    def _hang_up(self) -> None:
        if self._stream is not None:
            with suppress(Exception):  # a broken connection may fail to close
                self._stream.close()
        self._stream = None


class Retries:
    """Repeats what fails, with growing pauses, until it failed too often in a row."""

    def __init__(self, address: str, settings: RemoteSettings) -> None:
        self.name = shown(address)
        self.settings = settings
        self.failures = 0

    def until_done(self, attempt: Callable[[], T]) -> T:
        """Return the attempt's result. Raises BrokenPartError or DataError where no further attempt can help."""
        while True:
            try:
                return attempt()
            except DataError:
                raise
            except Exception as error:  # each store's package raises its own errors
                self._check_hope(error)
                self.failures += 1
                if self.failures > self.settings.retries:
                    hint = ""
                    if "Bad Request" in str(error):  # all that S3 says to a HEAD request with credentials that ran out
                        hint = ": if credentials have expired, renew them, and run the same again"
                    raise BrokenPartError(
                        self.name, f"cannot be read, {self.failures} times in a row ({in_words(error)}){hint}"
                    ) from error
                time.sleep(self.settings.pause_after(self.failures))

    def _check_hope(self, error: Exception) -> None:
        if isinstance(error, FileNotFoundError):
            raise AbsentError(self.name, "is not there; check the pattern and the range of numbers") from error
        if "Credential" in type(error).__name__:
            raise DataError(
                f"{self.name} needs credentials ({in_words(error)}): set them where its package looks for them, for "
                "example AWS_PROFILE, or GOOGLE_APPLICATION_CREDENTIALS; for a public bucket of S3, FSSPEC_S3_ANON=true"
            ) from error
        if isinstance(error, PermissionError):
            raise BrokenPartError(
                self.name,
                f"cannot be read ({in_words(error)}): set credentials that may, or renew those that have expired, where its "
                "package looks for them, for example AWS_PROFILE, or GOOGLE_APPLICATION_CREDENTIALS",
            ) from error
        if isinstance(error, _FINAL):
            raise BrokenPartError(self.name, f"cannot be read ({in_words(error)})") from error


def file_system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path in it.

    Raises:
        DataError: the scheme is unknown, or its package is not installed.
    """
    import fsspec  # imported lazily: rarely needed

    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None)
        remedy = f"pip install {missing.replace('_', '-')}" if missing else str(error)
        raise DataError(f"{shown(address)} needs a package that is not installed: {remedy}") from error
    except ValueError as error:
        raise DataError(
            f"cannot open {shown(address)}: {error}; give paths, http(s)://, hf://, s3://, gs://, or pipe:<command>"
        ) from error
    except Exception as error:  # some file systems connect when they are made
        raise DataError(f"cannot open {shown(address)} ({in_words(error)})") from error
    return system, path


def tag_of(info: Mapping[str, Any]) -> str | None:
    """Return the version of an object's content, by what its file system says of it; None if that tells none."""
    tag = next((info[name] for name in _TAGS if info.get(name) is not None), None)
    if isinstance(tag, datetime):  # a time of change, which some tell as a number elsewhere
        tag = tag.timestamp()
    if isinstance(tag, float):
        return f"{tag:.6f}"
    return None if tag is None else str(tag).removeprefix("W/").strip('"')


def find_objects(pattern: str) -> list[str]:
    """Return the addresses that a pattern with wildcards matches, sorted; a pattern that ends in `/` means its .tar files.

    Raises:
        DataError: the store cannot be listed, its scheme is unknown, or its package is not installed.
    """
    pattern = f"{pattern}*.tar" if pattern.endswith("/") else pattern
    if not glob.has_magic(pattern):
        return [pattern]
    system, path = file_system(pattern)
    address = namer(pattern, path)
    found = Retries(pattern, RemoteSettings()).until_done(
        lambda: [path] if system.exists(path) else sorted(system.glob(path))
    )
    return [address(name) for name in found]


def namer(address: str, path: str) -> Callable[[str], str]:
    """Return what makes addresses of the paths in a store from the address and the path of one of them.

    The path follows scheme and host, if there is one. Azure's path begins with the container, which its address may have in
    front of the host: `abfs://container@account.dfs.core.windows.net/folder` is `container/folder`.
    """
    if address.endswith(path):
        before = address.removesuffix(path)
        return lambda name: f"{before}{name}"
    container, _, inner = path.partition("/")
    before = address.removesuffix(inner)
    return lambda name: f"{before}{name.removeprefix(f'{container}/')}"


def in_words(error: Exception) -> str:
    """Return type and message of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
