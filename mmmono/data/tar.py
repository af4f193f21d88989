"""Samples in a tar stream: the files of one sample lie next to each other and share their name up to a dot.

A stream counts as read to its end only where the archive's own end mark was met and nothing but zeros follows it:
`tarfile` alone takes a stream that stops between two files, or inside a header, for a whole archive.
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
MOST_PADDING = 1 << 20  # bytes; tar programs fill up records of 10 KiB, with --blocking-factor more

# How files begin that are sometimes called .tar, and what to say of them.
_OTHER_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "is gzip: unpack it (pictures are found again by their position, which needs a plain tar)"),
    (b"BZh", "is bzip2: unpack it (pictures are found again by their position, which needs a plain tar)"),
    (b"\xfd7zXZ", "is xz: unpack it (pictures are found again by their position, which needs a plain tar)"),
    (b"\x28\xb5\x2f\xfd", "is zstd: unpack it (pictures are found again by their position, which needs a plain tar)"),
    (b"PK\x03\x04", "is a zip file: repack it as a plain tar"),
    (b"version https://git-lfs", "is a git-lfs pointer in place of the file: fetch it with 'git lfs pull'"),
    (b"<", "is a web page or XML in place of a tar: look at what its address answers"),
)
_IMAGE_MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|BM|II\*\0|MM\0\*|RIFF....WEBP", re.DOTALL)


@dataclass
class Sample:
    """The files of one sample that lie next to each other.

    Attributes:
        key: their common name, folders included.
        offset: where the first of their headers begins, in bytes from the archive's beginning.
        end: where the last file's data and padding end.
        names: of all files by extension, lower case.
        files: contents by extension, of those that were wanted.
        special: what the members without contents are, by extension: links, devices.
    """

    key: str
    offset: int
    end: int = 0
    names: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    special: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NamelessPicture:
    """A picture whose file name has no part before or after a dot, so that no sample can have it."""

    name: str


class BrokenTarError(Exception):
    """The stream is no tar archive, or ends before the archive does. The message is the rest of a sentence."""


class _Member(tarfile.TarInfo):
    """A header that has to be a header: only a block of zeros ends the archive."""

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
    """Key and lower-case extension of a file in an archive; None where it has no part before or after the dot.

    Folders belong to the key. `first_dot` is WebDataset's rule: `a/b.left.jpg` is `left.jpg` of sample `a/b`;
    by `last_dot` it is `jpg` of sample `a/b.left`.
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, extension = base.partition(".") if key_end == "first_dot" else base.rpartition(".")
    if not dot or not stem or not extension:
        return None
    return escaped_bytes(f"{folder}{slash}{stem}"), escaped_bytes(extension.lower())


def is_litter(name: str) -> bool:
    """Whether a member is what macOS puts beside the files of a folder, or what a tar program left there."""
    path = PurePosixPath(name)
    return path.name.startswith("._") or path.name == ".DS_Store" or "__MACOSX" in path.parts


def read_samples(
    stream: IO[bytes],
    *,
    base: int = 0,
    whole: bool = True,
    key_end: KeyEnd = "first_dot",
    wanted: Callable[[str], bool] | None = None,
) -> Iterator[Sample | NamelessPicture]:
    """Yield the samples of a tar stream, each as its files lie next to each other.

    Args:
        stream: begins at a header.
        base: where in the archive the stream begins.
        whole: the stream goes on to the archive's end, which has to be there; otherwise it may stop between two files.
        key_end: which dot of a file's name ends the key.
        wanted: says by extension whose contents are read; None reads none, and seeks where the stream can.

    Raises:
        BrokenTarError: the stream is no tar archive, is cut off or damaged, or other data follows the archive's end.
    """
    try:
        yield from _read_samples(stream, base, whole, key_end, wanted)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise BrokenTarError(f"is cut off or damaged: {error}") from error


def _read_samples(
    stream: IO[bytes], base: int, whole: bool, key_end: KeyEnd, wanted: Callable[[str], bool] | None
) -> Iterator[Sample | NamelessPicture]:
    sample: Sample | None = None
    tar = _open(stream, whole, seek=wanted is None and stream.seekable())
    for member in tar:
        if member.isdir() or is_litter(member.name):
            continue
        split = split_name(member.name, key_end)
        if split is None:
            if wanted is not None and member.isfile() and _IMAGE_MAGIC.match(_contents(tar, member)):
                yield NamelessPicture(escaped_bytes(member.name))
            continue
        key, extension = split
        # The same extension twice is another sample of the same key: what it means is the caller's to say.
        if sample is None or sample.key != key or extension in sample.names:
            if sample is not None:
                yield sample
            sample = Sample(key, base + member.offset)
        sample.names[extension] = escaped_bytes(member.name)
        if not member.isfile():
            sample.special[extension] = "a link" if member.islnk() or member.issym() else "no regular file"
        elif wanted is not None and wanted(extension):
            sample.files[extension] = _contents(tar, member)
        sample.end = base + tar.offset
    if sample is not None:
        yield sample
    if whole:
        _check_rest(tar)


def _open(stream: IO[bytes], whole: bool, seek: bool) -> tarfile.TarFile:
    """The archive, as a stream or header by header; nothing has to be closed but the stream, which is the caller's."""
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
    """After the end mark there may be padding, and nothing else."""
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
    """A stream whose first bytes can be looked at before they are read."""

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
