"""Reads samples from a tar stream: the files of one sample are adjacent and share their name up to a dot.

A stream counts as complete only if it has the archive's end mark, followed by nothing but zeros: `tarfile` alone
accepts a stream that stops between two files, or inside a header, as a whole archive.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, Literal

from mmmono.core.text import escaped_bytes

KeyEnd = Literal["first_dot", "last_dot"]
BLOCK = tarfile.BLOCKSIZE
MOST_PADDING = 1 << 20  # bytes; tar programs pad to records of 10 KiB, or more with --blocking-factor

# First bytes of other files that are sometimes named .tar, and the error messages for them.
_OTHER_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "is gzip: unpack it (images are found again by their position, which needs a plain tar)"),
    (b"BZh", "is bzip2: unpack it (images are found again by their position, which needs a plain tar)"),
    (b"\xfd7zXZ", "is xz: unpack it (images are found again by their position, which needs a plain tar)"),
    (b"\x28\xb5\x2f\xfd", "is zstd: unpack it (images are found again by their position, which needs a plain tar)"),
    (b"PK\x03\x04", "is a zip file: repack it as a plain tar"),
    (b"version https://git-lfs", "is a git-lfs pointer in place of the file: fetch it with 'git lfs pull'"),
    (b"<", "is a web page or XML in place of a tar: look at what its address answers"),
)
_IMAGE_MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|BM|II\*\0|MM\0\*|RIFF....WEBP", re.DOTALL)


@dataclass
class Sample:
    """Adjacent files of one sample.

    Attributes:
        key: common name, folders included.
        offset: position of the first file's header, in bytes from the archive's beginning.
        end: position after the last file's data and padding.
        names: member names of all files by extension, which is in lower case.
        files: contents by extension, of the requested files only.
        special: description of members without contents (links, devices) by extension.
    """

    key: str
    offset: int
    end: int = 0
    names: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    special: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NamelessImage:
    """An image whose file name has nothing before or after the dot, so that it belongs to no sample."""

    name: str


class BrokenTarError(Exception):
    """The stream is not a complete tar archive. The message is a predicate, such as `is empty`."""


class _Member(tarfile.TarInfo):
    """A header parser for which only a block of zeros ends the archive; other invalid headers are errors.

    `tarfile` takes some of them for the end, such as, in Python 3.13 and Debian's 3.11, long names that are cut off.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header in it is damaged ({error})") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == BLOCK and not any(buf):
                raise
            raise tarfile.ReadError(
                "it stops without its end mark" if len(buf) < BLOCK else f"a header in it is damaged ({error})"
            ) from error


def split_name(name: str, key_end: KeyEnd = "first_dot") -> tuple[str, str] | None:
    """Return key and lower-case extension of a member; None if its name has nothing before or after the dot.

    Folders belong to the key. `first_dot` is WebDataset's rule: `a/b.left.jpg` is `left.jpg` of sample `a/b`;
    with `last_dot` it is `jpg` of sample `a/b.left`.
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, extension = base.partition(".") if key_end == "first_dot" else base.rpartition(".")
    if not dot or not stem or not extension:
        return None
    return escaped_bytes(f"{folder}{slash}{stem}"), escaped_bytes(extension.lower())


def is_litter(name: str) -> bool:
    """Whether a member is one of the extra files that macOS adds to folders and archives."""
    path = PurePosixPath(name)
    return path.name.startswith("._") or path.name == ".DS_Store" or "__MACOSX" in path.parts


def read_samples(
    stream: IO[bytes],
    *,
    base: int = 0,
    whole: bool = True,
    key_end: KeyEnd = "first_dot",
    reads: Callable[[str], bool] | None = None,
) -> Iterator[Sample | NamelessImage]:
    """Yield the samples of a tar stream; files that share a key but are not adjacent are separate samples.

    Args:
        stream: begins at a header.
        base: position in the archive where the stream begins, in bytes.
        whole: the stream reaches to the archive's end, which must be present; otherwise it may stop between two files.
        key_end: which dot of a file's name ends the key.
        reads: tells by extension whether a file's contents are read; None reads none, and seeks if the stream can.

    Raises:
        BrokenTarError: the stream is not a tar archive, is cut off or damaged, or other data follows the archive's end.
    """
    try:
        yield from _read_samples(stream, base, whole, key_end, reads)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise BrokenTarError(f"is cut off or damaged: {error}") from error


def _read_samples(
    stream: IO[bytes], base: int, whole: bool, key_end: KeyEnd, reads: Callable[[str], bool] | None
) -> Iterator[Sample | NamelessImage]:
    sample: Sample | None = None
    tar = _open(stream, whole, seek=reads is None and stream.seekable())
    for member in tar:
        if member.isdir() or is_litter(member.name):
            continue
        split = split_name(member.name, key_end)
        if split is None:
            if reads is not None and member.isfile() and _IMAGE_MAGIC.match(_contents(tar, member)):
                yield NamelessImage(escaped_bytes(member.name))
            continue
        key, extension = split
        # A repeated extension starts another sample with the same key; the caller decides what to do with it.
        if sample is None or sample.key != key or extension in sample.names:
            if sample is not None:
                yield sample
            sample = Sample(key, base + member.offset)
        sample.names[extension] = escaped_bytes(member.name)
        if not member.isfile():
            sample.special[extension] = "a link" if member.islnk() or member.issym() else "no regular file"
        elif reads is not None and reads(extension):
            sample.files[extension] = _contents(tar, member)
        sample.end = base + tar.offset
    if sample is not None:
        yield sample
    if whole:
        _check_rest(tar)


def _open(stream: IO[bytes], whole: bool, seek: bool) -> tarfile.TarFile:
    """Open the archive, streaming or seeking; only the caller's stream has to be closed."""
    opened: Any = stream if seek else _Rewound(stream)
    if whole:
        head = opened.read(BLOCK) if seek else opened.peek(BLOCK)
        _check_beginning(head)
        if seek:
            opened.seek(0)
    member = _Member if whole else tarfile.TarInfo
    return tarfile.open(
        fileobj=opened, mode="r:" if seek else "r|", tarinfo=member, encoding="utf-8", errors="surrogateescape"
    )


def _contents(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) < member.size:
        raise EOFError(f"{escaped_bytes(member.name)} is not whole")
    return data


def _check_beginning(head: bytes) -> None:
    if not head:
        raise BrokenTarError("is empty")
    for magic, what in _OTHER_FORMATS:
        if head.startswith(magic) and not _has_checksum(head):
            raise BrokenTarError(what)
    if any(head) and not _has_checksum(head):
        raise BrokenTarError("is no tar archive" if len(head) == BLOCK else "is cut off: it has not even one header")


def _has_checksum(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _check_rest(tar: tarfile.TarFile) -> None:
    """Raise BrokenTarError if anything but padding follows the end mark."""
    assert tar.fileobj is not None
    zeros = 0
    while rest := tar.fileobj.read(1 << 16):
        zeros += len(rest)
        if rest.count(0) < len(rest):
            raise BrokenTarError(
                "goes on after its end mark: it is damaged, or several archives in one file, which have to be joined "
                "with 'tar --concatenate'"
            )
    if zeros > MOST_PADDING:
        raise BrokenTarError(f"ends in {zeros} bytes of zeros: a download that was not finished")


class _Rewound:
    """A stream whose first bytes can be peeked at."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._head = b""

    def peek(self, size: int) -> bytes:
        while len(self._head) < size and (data := self._stream.read(size - len(self._head))):
            self._head += data
        return self._head

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._stream.read(size)
        head, self._head = (self._head, b"") if size < 0 else (self._head[:size], self._head[size:])
        return head + (self._stream.read(-1) if size < 0 else b"")
