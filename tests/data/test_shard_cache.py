"""Copies of remote shards on disk."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing as mp
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmmono.core.errors import BrokenPartError, DataError
from mmmono.data import ImageTextPair, WebDatasetPairs, shard_cache
from mmmono.data.opening import ShardOpener
from mmmono.data.remote_settings import RemoteSettings
from tests.data.flaky_server import Fault, FlakyServer, flaky_server
from tests.data.test_tar import JPEG, Member, archive

QUICK = RemoteSettings(timeout=1, retries=2, pause=0.01, longest_pause=0.05)
SHARD = archive([Member(f"{i:03d}.{e}", JPEG if e == "jpg" else b"%d" % i) for i in range(40) for e in ("jpg", "txt")])


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    with flaky_server() as served:
        served.files = {"/a/s-0.tar": SHARD, "/b/s-0.tar": SHARD[::-1]}
        yield served


def source(server: FlakyServer, cache: Path, query: str = "") -> WebDatasetPairs:
    return WebDatasetPairs([f"{server.url}/a/s-0.tar{query}"], opener=ShardOpener(cache=cache, settings=QUICK))


def captions(pairs: WebDatasetPairs) -> list[str]:
    return [item.caption for item in pairs.read(0) if isinstance(item, ImageTextPair)]


def test_a_shard_is_fetched_once_for_all_readers_and_all_signatures(server: FlakyServer, tmp_path: Path) -> None:
    first = source(server, tmp_path, "?Signature=1")
    assert len(captions(first)) == 40
    again = source(server, tmp_path, "?Signature=2")
    assert len(captions(again)) == 40
    pair = again.fetch("s-0/007")
    assert [type(item) for item in again.fetch_many([(pair.key, pair.locator)])] == [ImageTextPair]
    assert len(server.requests) == 1
    cache = again.opener.cache
    assert cache is not None
    assert cache.usage() == (1, len(SHARD))
    (copy,) = tmp_path.glob("*/*.tar")
    assert copy.read_bytes() == SHARD
    assert json.loads(copy.with_suffix(".tar.json").read_text())["size"] == len(SHARD)
    assert "Signature" not in copy.with_suffix(".tar.json").read_text()


def test_two_files_of_one_name_have_two_copies(server: FlakyServer, tmp_path: Path) -> None:
    captions(source(server, tmp_path))
    with pytest.raises(BrokenPartError):
        list(WebDatasetPairs(f"{server.url}/b/s-0.tar", opener=ShardOpener(cache=tmp_path, settings=QUICK)).read(0))
    assert len(captions(source(server, tmp_path))) == 40
    assert len(server.requests) == 2


def test_an_interrupted_copy_goes_on_where_it_stopped(server: FlakyServer, tmp_path: Path) -> None:
    server.faults = [Fault(after=30_000), Fault(503), Fault(503)]
    with pytest.raises(BrokenPartError, match="503"):
        captions(source(server, tmp_path))
    assert not list(tmp_path.glob("*/*.tar"))
    server.requests.clear()
    assert len(captions(source(server, tmp_path))) == 40
    assert [request.byte_range for request in server.requests] == ["bytes=30000-"]


def test_a_copy_of_a_file_that_was_replaced_meanwhile_begins_anew(server: FlakyServer, tmp_path: Path) -> None:
    server.faults = [Fault(after=30_000), Fault(503), Fault(503)]
    with pytest.raises(BrokenPartError):
        captions(source(server, tmp_path))
    server.files["/a/s-0.tar"] = archive([Member("new.jpg", JPEG), Member("new.txt", b"new")] * 1) + b"\0" * 40_000
    assert captions(source(server, tmp_path)) == ["new"]


def test_broken_copies_are_not_kept(server: FlakyServer, tmp_path: Path) -> None:
    server.files["/a/s-0.tar"] = SHARD[:20_000]
    with pytest.raises(BrokenPartError, match="cut off"):
        captions(source(server, tmp_path))
    server.files["/a/s-0.tar"] = SHARD
    assert len(captions(source(server, tmp_path))) == 40


def test_a_copy_of_another_size_is_fetched_again(server: FlakyServer, tmp_path: Path) -> None:
    captions(source(server, tmp_path))
    (copy,) = tmp_path.glob("*/*.tar")
    copy.write_bytes(SHARD[:-512])
    assert len(captions(source(server, tmp_path))) == 40
    copy.with_suffix(".tar.json").write_text("{torn")
    assert len(captions(source(server, tmp_path))) == 40
    assert len(server.requests) == 3


def test_a_wrong_checksum_of_the_hub_is_an_error(server: FlakyServer, tmp_path: Path) -> None:
    import hashlib

    shards = source(server, tmp_path)
    shards.opener.remote(shards.shards[0]).sha256 = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(BrokenPartError, match="another checksum"):
        captions(shards)
    shards.opener.remote(shards.shards[0]).sha256 = hashlib.sha256(SHARD).hexdigest()
    assert len(captions(shards)) == 40


@pytest.mark.parametrize("at", [".tar.json", ".tar"])
def test_a_copy_that_only_has_to_be_named_is_not_fetched_again(
    server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Its process is killed between two of the last system calls."""
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if str(target).endswith(at):
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            captions(source(server, tmp_path))
    cache = source(server, tmp_path).opener.cache
    assert cache is not None
    assert cache.find(f"{server.url}/a/s-0.tar") is None
    server.requests.clear()
    assert len(captions(source(server, tmp_path))) == 40
    assert [request.byte_range for request in server.requests] == [f"bytes={len(SHARD)}-"]


def test_a_copy_that_another_process_removes_meanwhile_is_fetched_again(
    server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = source(server, tmp_path)
    captions(pairs)
    exists = Path.exists

    def removes(self: Path, **given: bool) -> bool:  # as if between two looks
        found = exists(self, **given)
        if self.suffix in (".tar", ".json"):
            self.unlink(missing_ok=True)
        return found

    cache = pairs.opener.cache
    assert cache is not None
    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", removes)
        cache.find(pairs.shards[0])
        cache.usage()
    cache.remove(pairs.shards[0])
    assert cache.usage() == (0, 0)
    assert len(captions(source(server, tmp_path))) == 40


def test_what_no_later_process_goes_on_from_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 20_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(memoryview(data)[:30_000])

    (tmp_path / "s-0.tar").write_bytes(SHARD)
    pairs = WebDatasetPairs(f"pipe:cat {tmp_path / 's-0.tar'}", opener=ShardOpener(cache=tmp_path / "cache"))
    usual = Path.open
    with monkeypatch.context() as patched:
        patched.setattr(
            Path, "open", lambda self, mode="r", **how: Full(self, "w") if mode == "wb" else usual(self, mode, **how)
        )
        patched.setattr(shard_cache, "CHUNK", 10_000)
        with pytest.raises(DataError, match=r"no space left .*dataset\.cache="):
            list(pairs.read(0))
    assert not [file for file in tmp_path.glob("cache/*/*") if file.stat().st_size]
    assert len(captions(pairs)) == 40


def _read(url: str, cache: str, results: mp.Queue) -> None:  # type: ignore[type-arg]
    results.put(len(captions(WebDatasetPairs(url, opener=ShardOpener(cache=cache, settings=QUICK)))))


def test_processes_that_need_one_shard_fetch_it_once(server: FlakyServer, tmp_path: Path) -> None:
    context = mp.get_context("fork")
    results = context.Queue()
    url = f"{server.url}/a/s-0.tar"
    processes = [context.Process(target=_read, args=(url, str(tmp_path), results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [40] * 4
    for process in processes:
        process.join()
    assert len(server.requests) == 1


def test_a_folder_that_cannot_be_written_is_one_line(server: FlakyServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write copies .*dataset\.cache="):
        captions(source(server, tmp_path / "file"))


def test_a_disk_without_room_is_reported_before_it_is_full(
    server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("mmmono.data.shard_cache.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"no space left .*dataset\.cache="):
        captions(source(server, tmp_path))


def test_local_shards_have_no_copies(tmp_path: Path) -> None:
    (tmp_path / "s-0.tar").write_bytes(SHARD)
    assert len(captions(WebDatasetPairs(str(tmp_path / "s-0.tar"), opener=ShardOpener(cache=tmp_path / "cache")))) == 40
    assert not (tmp_path / "cache").exists()
