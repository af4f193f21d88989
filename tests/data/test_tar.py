"""Tar archives of any layout: nothing lost, everything found again, no end taken for a whole archive."""

from __future__ import annotations

import io
import itertools
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmmono.core.errors import BrokenPartError
from mmmono.core.text import escaped_bytes
from mmmono.data import ImageTextPair, SkippedPair, WebDatasetPairs
from mmmono.data.sample_pairs import SampleReading
from mmmono.data.tar import BrokenTarError, Sample, read_samples, split_name
from tests.data.test_webdataset import jpeg

JPEG = jpeg((10, 20, 30), 8)


@dataclass(frozen=True)
class Member:
    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE


def archive(members: list[Member], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.size, info.type = len(member.data), member.kind
            info.linkname = "elsewhere" if member.kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
            tar.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue()


component = st.text(st.sampled_from("ab1é猫# .'"), min_size=1, max_size=6) | st.just("long" * 40)
base = st.one_of(component, st.builds(lambda n: f"{n:04d}", st.integers(0, 9)))
key = st.builds(lambda folders, name: "/".join([*folders, name]), st.lists(component, max_size=2), base).filter(
    lambda k: not any(part in ("", ".", "..") or part != part.strip() for part in k.split("/"))
)
extension = st.sampled_from(["jpg", "JPG", "png", "txt", "json", "cls", "0.jpg", "seg.png", "1.txt"])
member = st.builds(
    lambda k, e, big, kind: (
        Member(
            f"{k}.{e}", {"g": JPEG, "t": b"words " * (40 if big else 1), "n": b'{"caption": "c"}'}[e[-1].lower()], kind
        )
        if e != "cls"
        else Member(f"{k}.{e}", b"7")
    ),
    key,
    extension,
    st.booleans(),
    st.sampled_from([tarfile.REGTYPE] * 8 + [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE]),
)
members = st.lists(member, max_size=14).map(
    lambda found: [Member(m.name, b"" if m.kind != tarfile.REGTYPE else m.data, m.kind) for m in found]
)
formats = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(members=members, form=formats, key_end=st.sampled_from(["first_dot", "last_dot"]))
def test_samples_are_what_lies_together(members: list[Member], form: int, key_end: str) -> None:
    data = archive(members, form)
    samples = [
        sample
        for sample in read_samples(io.BytesIO(data), key_end=key_end, reads=lambda _: True)  # type: ignore[arg-type]
        if isinstance(sample, Sample)
    ]
    named = [(split, m) for m in members if (split := split_name(m.name, key_end))]  # type: ignore[arg-type]
    assert [name for sample in samples for name in sample.names.values()] == [m.name for _, m in named]
    for before, after in itertools.pairwise(samples):
        assert before.end <= after.offset
        assert before.key != after.key or set(before.names) & set(after.names)
    for sample in samples:
        assert set(sample.files) | set(sample.special) == set(sample.names)
        piece = io.BytesIO(data[sample.offset : sample.end])
        found = read_samples(piece, base=sample.offset, whole=False, key_end=key_end, reads=lambda _: True)  # type: ignore[arg-type]
        assert next(again for again in found if isinstance(again, Sample)) == sample
    headers = [s for s in read_samples(io.BytesIO(data), key_end=key_end) if isinstance(s, Sample)]  # type: ignore[arg-type]
    assert [(s.key, s.offset, s.names) for s in headers] == [(s.key, s.offset, s.names) for s in samples]


@quick
@given(members=members, form=formats, captions=st.sampled_from(["first", "all"]))
def test_every_sample_is_a_pair_or_counted_and_every_pair_is_found_again(
    tmp_path: Path, members: list[Member], form: int, captions: str
) -> None:
    (tmp_path / "s.tar").write_bytes(archive(members, form))
    source = WebDatasetPairs(str(tmp_path / "s.tar"), SampleReading(captions=captions))  # type: ignore[arg-type]
    items = list(source.read(0))
    pairs = [item for item in items if isinstance(item, ImageTextPair)]
    skips = [item for item in items if isinstance(item, SkippedPair)]
    keys = {f"s/{split[0]}" for m in members if (split := split_name(m.name))}
    covered = {source.group(pair.key) for pair in pairs} | {skip.key for skip in skips}
    assert all(any(c == k or c.startswith(f"{k}.") for c in covered) for k in keys)
    assert len({pair.key for pair in pairs}) == len(pairs)
    for pair, again in zip(pairs, source.fetch_many([(p.key, p.locator) for p in pairs]), strict=True):
        assert isinstance(again, ImageTextPair)
        found = source.fetch(pair.key)
        assert (again.key, again.caption, found.caption, found.locator) == (
            pair.key,
            pair.caption,
            pair.caption,
            pair.locator,
        )


def test_a_pair_is_found_again_around_a_file_that_belongs_to_none(tmp_path: Path) -> None:
    """Such as what macOS leaves: `.1.jpg` has no key."""
    members = [Member("1.jpg", JPEG), Member(".1.jpg", JPEG), Member("1.txt", b"a dog")]
    (tmp_path / "s.tar").write_bytes(archive(members, tarfile.PAX_FORMAT))
    source = WebDatasetPairs(str(tmp_path / "s.tar"))
    (pair,) = (item for item in source.read(0) if isinstance(item, ImageTextPair))
    assert source.fetch(pair.key, pair.locator).caption == "a dog"
    (again,) = source.fetch_many([(pair.key, pair.locator)])
    assert isinstance(again, ImageTextPair)
    assert again.caption == "a dog"


@quick
@given(members=st.lists(member, min_size=1, max_size=6), form=formats, share=st.floats(0, 1))
def test_no_beginning_of_an_archive_passes_for_a_whole_one(members: list[Member], form: int, share: float) -> None:
    members = [Member(m.name, b"" if m.kind != tarfile.REGTYPE else m.data, m.kind) for m in members]
    data = archive(members, form)
    end = len(data)
    while not any(data[end - tarfile.BLOCKSIZE : end]):
        end -= tarfile.BLOCKSIZE
    cut = int(share * end)
    for reads in (None, lambda _: True):
        with pytest.raises(BrokenTarError):
            list(read_samples(io.BytesIO(data[:cut]), reads=reads))
        list(read_samples(io.BytesIO(data[: end + tarfile.BLOCKSIZE]), reads=reads))


LONG_NAMES = [Member(f"{'long' * 40}/{number}.jpg", JPEG) for number in range(2)]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_archives_that_stop_anywhere_in_a_long_name_are_cut_off(form: int) -> None:
    data = archive(LONG_NAMES, form)
    (_, second) = (sample.offset for sample in read_samples(io.BytesIO(data)) if isinstance(sample, Sample))
    for cut in range(second, second + 4 * tarfile.BLOCKSIZE):
        for reads in (None, lambda _: True):
            with pytest.raises(BrokenTarError):
                list(read_samples(io.BytesIO(data[:cut]), reads=reads))


def test_what_python_takes_for_the_end_is_a_damaged_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.13 does with a long name that is cut off, and 3.11.7 does not."""
    headers = []

    def refused(self: tarfile.TarInfo, tar: tarfile.TarFile) -> tarfile.TarInfo:
        headers.append(self)
        if len(headers) == 2:
            raise tarfile.InvalidHeaderError("invalid header")
        return proceed(self, tar)

    proceed = tarfile.TarInfo._proc_pax  # type: ignore[attr-defined]
    data = archive(LONG_NAMES)
    (_, second) = (sample.offset for sample in read_samples(io.BytesIO(data)) if isinstance(sample, Sample))
    monkeypatch.setattr(tarfile.TarInfo, "_proc_pax", refused)
    with pytest.raises(BrokenTarError, match=r"a header in it is damaged \(invalid header\)"):
        list(read_samples(io.BytesIO(data[: second + tarfile.BLOCKSIZE])))


@quick
@given(members=st.lists(member, min_size=1, max_size=4), where=st.floats(0, 1), bits=st.integers(1, 255))
def test_damaged_archives_never_end_in_a_traceback(
    tmp_path: Path, members: list[Member], where: float, bits: int
) -> None:
    members = [Member(m.name, b"" if m.kind != tarfile.REGTYPE else m.data, m.kind) for m in members]
    data = bytearray(archive(members))
    data[int(where * (len(data) - 1))] ^= bits
    (tmp_path / "s.tar").write_bytes(data)
    with suppress(BrokenPartError):
        assert all(
            isinstance(item, ImageTextPair | SkippedPair) for item in WebDatasetPairs(str(tmp_path / "s.tar")).read(0)
        )


def test_sparse_files_are_whole(tmp_path: Path) -> None:
    """GNU's sparse format 0.1, as `tar --sparse --format=gnu` writes it, is read as the file with its holes."""
    import shutil
    import subprocess

    if shutil.which("tar") is None:
        pytest.skip("no tar program here")
    image = tmp_path / "0.jpg"
    image.write_bytes(JPEG)
    with image.open("r+b") as file:
        file.truncate(1 << 20)  # a hole that decoders do not mind
    (tmp_path / "0.txt").write_text("sparse")
    (tmp_path / "1.jpg").write_bytes(JPEG)
    (tmp_path / "1.txt").write_text("after it")
    for form in ("gnu", "posix"):
        command = ["tar", "-C", str(tmp_path), "--sparse", f"--format={form}", "-cf", str(tmp_path / "s.tar")]
        subprocess.run([*command, "0.jpg", "0.txt", "1.jpg", "1.txt"], check=True)
        source = WebDatasetPairs(str(tmp_path / "s.tar"))
        pairs = [item for item in source.read(0) if isinstance(item, ImageTextPair)]
        assert [pair.caption for pair in pairs] == ["sparse", "after it"]
        assert [source.fetch(p.key, p.locator).caption for p in pairs] == ["sparse", "after it"]


@given(st.text(st.characters()) | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_escaped_names_are_utf8_and_left_alone_where_it_is_already(text: str) -> None:
    escaped_bytes(text).encode("utf-8")
    assert escaped_bytes(escaped_bytes(text)) == escaped_bytes(text)
    if not any(0xD800 <= ord(c) < 0xE000 for c in text):
        assert escaped_bytes(text) == text
