"""Reading shards through fsspec, from stores that fail."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from mmmono.core.errors import BrokenPartError, DataError
from mmmono.data import WebDatasetPairs
from mmmono.data.object_store import ObjectFile, find_objects
from mmmono.data.opening import ShardOpener
from mmmono.data.pairs import ImageTextPair
from mmmono.data.remote_folder import RemoteFolder
from mmmono.data.remote_settings import RemoteSettings
from mmmono.data.shard_patterns import expand_shards
from mmmono.data.shards import stem
from tests.data.flaky_server import flaky_server
from tests.data.test_tar import Member, archive
from tests.data.test_webdataset import jpeg

QUICK = RemoteSettings(retries=3, pause=0.001, longest_pause=0.002)
DATA = random.Random(0).randbytes(300_000)


class FlakyObject(io.BytesIO):
    """An object whose reads fail at the positions of `FlakyStore.breaks`, each once."""

    def read(self, size: int | None = -1) -> bytes:
        at = self.tell()
        size = len(self.getbuffer()) - at if size is None or size < 0 else size
        for position in list(FlakyStore.breaks):
            if at <= position < at + size:
                if position > at:
                    return super().read(position - at)
                FlakyStore.breaks.remove(position)
                raise FlakyStore.error
        return super().read(size)


class FlakyStore(MemoryFileSystem):
    """fsspec's memory file system, with failures; it remembers which positions were opened."""

    protocol = "flaky"
    store: dict[str, Any] = {}  # noqa: RUF012 - fsspec's own way
    breaks: list[int] = []  # noqa: RUF012
    error: Exception = ConnectionResetError("reset by peer")
    opened: int = 0
    failing: int = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://", 1))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **kwargs)
        FlakyStore.opened += 1
        self._fail()
        return FlakyObject(self.cat_file(path))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self._fail()
        data: bytes = self.store[self._strip_protocol(path)].getvalue()
        return data[start:end]

    @staticmethod
    def _fail() -> None:
        if FlakyStore.failing:
            FlakyStore.failing -= 1
            raise FlakyStore.error


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    fsspec.register_implementation("flaky", FlakyStore, clobber=True)
    FlakyStore.store, FlakyStore.breaks, FlakyStore.opened, FlakyStore.failing = {}, [], 0, 0
    FlakyStore.error = ConnectionResetError("reset by peer")
    system = fsspec.filesystem("flaky")
    system.pipe("/b/f.tar", DATA)
    yield system
    fsspec.filesystem("memory").store.clear()


def read(start: int = 0) -> bytes:
    with ObjectFile("flaky://b/f.tar", QUICK).open(start) as stream:
        return stream.read()


def test_what_breaks_off_is_taken_up_where_it_stopped(store: MemoryFileSystem) -> None:
    FlakyStore.breaks = [0, 100_000, 100_000, 299_999]
    assert read() == DATA
    assert FlakyStore.opened == 5
    assert read(1000) == DATA[1000:]


def test_an_object_that_ends_early_is_not_taken_for_the_whole(store: MemoryFileSystem) -> None:
    FlakyStore.error = EOFError("early")
    FlakyStore.breaks = [200_000]
    assert read() == DATA
    half = {**store.info("/b/f.tar"), "size": 2 * len(DATA)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlakyStore, "info", lambda *_, **__: half)
        with pytest.raises(BrokenPartError, match=r"4 times in a row \(EOFError: it ended at byte 300000 of 600000"):
            read()


@pytest.mark.parametrize("how", ["open", "range"])
def test_failures_count_only_in_a_row(store: MemoryFileSystem, how: str) -> None:
    def attempt() -> bytes:
        return read()[5:10] if how == "open" else ObjectFile("flaky://b/f.tar", QUICK).read(5, 10)

    FlakyStore.failing = 3
    assert attempt() == DATA[5:10]
    FlakyStore.failing = 4
    with pytest.raises(BrokenPartError, match=r"^flaky://b/f.tar cannot be read, 4 times in a row \(Conn.*reset"):
        attempt()


def test_ranges_beyond_the_end_are_an_error(store: MemoryFileSystem) -> None:
    file = ObjectFile("flaky://b/f.tar", QUICK)
    assert file.read(len(DATA) - 10, len(DATA)) == DATA[-10:]
    with pytest.raises(BrokenPartError, match="changed since"):
        file.read(len(DATA) - 10, len(DATA) + 10)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError("denied"), r"cannot be read \(PermissionError: denied\)"),
        (FileNotFoundError("b/f.tar"), "is not there; check the pattern"),
        (type("NoCredentialsError", (Exception,), {})("none"), "needs credentials .*AWS_PROFILE"),
    ],
)
def test_what_no_retry_can_mend_ends_at_once(store: MemoryFileSystem, error: Exception, message: str) -> None:
    FlakyStore.error, FlakyStore.failing = error, 1
    with pytest.raises(DataError, match=f"flaky://b/f.tar {message}"):
        read()
    assert FlakyStore.opened == 1


def test_an_object_that_is_replaced_meanwhile_is_not_mixed(store: MemoryFileSystem) -> None:
    file = ObjectFile("flaky://b/f.tar", QUICK)
    FlakyStore.breaks = [262_144]
    with file.open() as stream:
        assert stream.read(1000) == DATA[:1000]
        store.pipe("/b/f.tar", DATA[::-1])
        with pytest.raises(BrokenPartError, match="replaced"):
            stream.read()


def test_what_a_head_request_says_of_expired_credentials_has_a_remedy(store: MemoryFileSystem) -> None:
    FlakyStore.error, FlakyStore.failing = OSError(22, "Bad Request"), 100
    with pytest.raises(BrokenPartError, match="4 times in a row .*: if credentials have expired, renew them"):
        read()
    FlakyStore.error = OSError(16, "Service Unavailable")
    with pytest.raises(BrokenPartError) as raised:
        read()
    assert "credentials" not in str(raised.value)


class RangedStore(FlakyStore):
    """A store whose package asks for one range after the other, as that of Azure does; of what is there by then."""

    protocol = "ranged"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("ranged://", "memory://", 1))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return Ranged(self, path, block_size=20_000) if mode == "rb" else super()._open(path, mode, **kwargs)


class Ranged(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start=start, end=end)
        return data


@pytest.mark.parametrize("read_before", [1, 299_999])
def test_an_object_of_the_same_size_that_takes_its_place_is_not_mixed_with_it_range_by_range(
    store: MemoryFileSystem, read_before: int
) -> None:
    fsspec.register_implementation("ranged", RangedStore, clobber=True)
    file = ObjectFile("ranged://b/f.tar", QUICK)
    with file.open() as stream:
        assert stream.read() == DATA
    with file.open() as stream:
        assert stream.read(read_before) == DATA[:read_before]
        store.pipe("/b/f.tar", DATA[::-1])
        with pytest.raises(BrokenPartError, match="replaced"):
            stream.read()


def test_pairs_of_two_versions_of_a_shard_are_no_shard(store: MemoryFileSystem) -> None:
    fsspec.register_implementation("ranged", RangedStore, clobber=True)

    def version(number: int) -> bytes:
        names = [f"{i}.{kind}" for i in range(40) for kind in ("jpg", "txt")]
        image = jpeg((number, 0, 0), 64)
        return archive([Member(name, image if name.endswith("jpg") else b"%03d" % number) for name in names])

    assert len(version(1)) == len(version(2)) > 40_000
    store.pipe("/b/f.tar", version(1))
    pairs = WebDatasetPairs("ranged://b/f.tar", opener=ShardOpener(settings=QUICK)).read(0)
    assert isinstance(first := next(pairs), ImageTextPair)
    assert first.caption == "001"
    store.pipe("/b/f.tar", version(2))
    with pytest.raises(BrokenPartError, match="replaced"):
        list(pairs)


def test_a_copy_that_was_begun_is_finished(store: MemoryFileSystem, tmp_path: Path) -> None:
    def opener() -> ShardOpener:
        return ShardOpener(settings=RemoteSettings(retries=0), cache=tmp_path)

    FlakyStore.breaks = [262_144]
    with pytest.raises(BrokenPartError):
        opener().open("flaky://b/f.tar")
    (part,) = tmp_path.glob("*/f.tar.part")
    assert part.read_bytes() == DATA[:262_144]
    FlakyStore.breaks = [1000]  # would fail, if the copy began anew
    with opener().open("flaky://b/f.tar") as stream:
        assert stream.read() == DATA


def test_patterns_of_stores_are_listed() -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for number in (10, 2, 1):
        memory.pipe(f"/bucket/deep/train-{number:04}.tar", b"x")
    memory.pipe("/bucket/deep/[a].txt", b"x")
    addresses = [f"memory://bucket/deep/train-{number:04}.tar" for number in (1, 2, 10)]
    for pattern in ("memory://bucket/deep/*.tar", "memory://bucket/*/train-*.tar", "memory://bucket/deep/"):
        assert expand_shards(pattern) == addresses
    assert expand_shards("memory://bucket/deep/train-{0001..0002}.tar") == addresses[:2]
    assert expand_shards("memory://bucket/deep/train-000?.tar") == addresses[:2]
    assert find_objects("memory://bucket/deep/[a].txt") == ["memory://bucket/deep/[a].txt"]
    with pytest.raises(DataError, match=r"memory://bucket/none-\*.tar matches no file: give paths"):
        expand_shards("memory://bucket/none-*.tar")


def test_a_hash_sign_is_part_of_a_name_in_a_store(tmp_path: Path) -> None:
    """As it is on a disk; only addresses of http(s) have a fragment."""
    memory = fsspec.filesystem("memory")
    for name in ("a #0", "a #1"):
        memory.pipe(f"/bucket/{name}.tar", name.encode())
    addresses = expand_shards("memory://bucket/a #{0..1}.tar")
    assert len({WebDatasetPairs(address).fingerprint() for address in addresses}) == 2
    opener = ShardOpener(settings=QUICK, cache=tmp_path)  # copies are found again by what identifies the shard
    for address in addresses:
        with opener.open(address) as stream:
            assert stream.read().decode() == Path(address).stem
    assert [stem(address) for address in addresses] == ["a #0", "a #1"]
    assert stem("https://host/a.tar#b") == "a"


class AzureLike(AbstractFileSystem):
    """Files of a container that addresses have in front of the account's host, and paths at their beginning."""

    protocol = "azurelike"
    cachable = False
    files: ClassVar[dict[str, bytes]] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Do what adlfs does."""
        container, at, rest = path.removeprefix("azurelike://").partition("@")
        return (f"{container}/{rest.partition('/')[2]}" if at else container).rstrip("/")

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        found: dict[str, dict[str, Any]] = {}
        for name, content in self.files.items():
            if name == path or name.startswith(f"{path}/"):
                inner, _, more = name.removeprefix(f"{path}/").partition("/")
                child = name if name == path else f"{path}/{inner}"
                kind = "directory" if more else "file"
                found[child] = {"name": child, "type": kind, "size": 0 if more else len(content), "etag": "1"}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def _open(self, path: str, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(self.files[path])


def test_addresses_with_a_container_before_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("azurelike", AzureLike, clobber=True)
    monkeypatch.setattr(AzureLike, "files", {f"data/deep/train-{number}.tar": DATA for number in range(2)})
    for folder in ("azurelike://data@account.dfs.core.windows.net/deep", "azurelike://data/deep"):
        addresses = [f"{folder}/train-{number}.tar" for number in range(2)]
        for pattern in ("*.tar", "train-?.tar", ""):
            assert expand_shards(f"{folder}/{pattern}") == addresses
        assert ShardOpener(settings=QUICK).read(addresses[1], 5, 9) == DATA[5:9]
        parts = RemoteFolder(folder.removesuffix("/deep"), QUICK).numbered("deep", "train-", ".tar")
        assert [(part.address, part.size) for part in parts] == [(address, len(DATA)) for address in addresses]


def test_patterns_of_the_hub_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    files = ["README.md", "b.tar", "a.tar", "deep/c.tar"]
    asked = []

    def list_repo_files(self: Any, name: str, *, revision: str | None, repo_type: str | None) -> list[str]:
        asked.append((name, revision, repo_type))
        return files

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_repo_files)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub")
    start = "https://hub/datasets/o/n/resolve"
    assert expand_shards("hf://datasets/o/n/*.tar") == [f"{start}/main/a.tar", f"{start}/main/b.tar"]
    assert expand_shards("hf://datasets/o/n@v1/deep/") == [f"{start}/v1/deep/c.tar"]
    assert asked == [("o/n", None, "dataset"), ("o/n", "v1", "dataset")]
    assert expand_shards("hf://o/n/x-{0..1}.tar") == [f"https://hub/o/n/resolve/main/x-{i}.tar" for i in (0, 1)]
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"cannot list the files of hf://datasets/o/n/\*.tar .*0000\.\.0015"):
        expand_shards("hf://datasets/o/n/*.tar")


@pytest.mark.parametrize(
    ("address", "package"), [("s3://bucket/x.tar", "s3fs"), ("gs://bucket/x-*.tar", "gcsfs"), ("az://b/x", "adlfs")]
)
def test_a_missing_package_is_one_line_with_the_remedy(address: str, package: str) -> None:
    if __import__("importlib.util").util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(DataError, match=f"needs a package that is not installed: pip install {package}") as raised:
        ShardOpener().open(expand_shards(address)[0]).read()
    assert "\n" not in str(raised.value)


def test_an_unknown_scheme_lists_those_that_work() -> None:
    with pytest.raises(DataError, match="nothing://b/x.tar: Protocol not known: nothing; give paths, .*s3://"):
        WebDatasetPairs("nothing://b/x.tar").opener.open("nothing://b/x.tar").read()


def test_the_same_bytes_come_from_a_server_through_either_reader() -> None:
    pytest.importorskip("aiohttp", reason="fsspec's HTTP file system needs aiohttp")
    with flaky_server() as server:
        server.files["/f.tar"] = DATA
        through_fsspec = ObjectFile(f"{server.url}/f.tar", QUICK)
        ours = ShardOpener(settings=QUICK)
        for start in (0, 1000, len(DATA) - 1):
            with through_fsspec.open(start) as one, ours.open(f"{server.url}/f.tar", start) as two:
                assert one.read() == two.read() == DATA[start:]
        assert through_fsspec.read(10, 20) == DATA[10:20]
