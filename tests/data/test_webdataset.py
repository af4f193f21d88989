import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmono.core.errors import BrokenPartError, ConfigError, DataError
from mmmono.data import ImageTextPair, SkippedPair, WebDatasetPairs
from mmmono.data.opening import ShardOpener
from mmmono.data.remote_settings import RemoteSettings
from mmmono.data.sample_pairs import SampleReading
from tests.data.flaky_server import Fault, FlakyServer, flaky_server

FLICKR = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "flickr8k"


def jpeg(color: tuple[int, int, int], size: int = 24, format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), color).save(buffer, format)
    return buffer.getvalue()


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Eight good samples: captions as text, as a field, as a list, as both; a PNG; a name in a folder."""
    files: list[tuple[str, bytes]] = []
    for i in range(4):
        files += [(f"{i:03d}.jpg", jpeg((i * 50, 0, 0))), (f"{i:03d}.txt", f" caption\n {i} ".encode())]
    many = {"captions": ["first of four", "second of four"], "label": 7}
    files += [
        ("004.json", json.dumps(many).encode()),
        ("004.jpg", jpeg((0, 200, 0))),
        ("005.jpg", jpeg((0, 0, 200))),
        ("005.json", json.dumps({"caption": "a field", "alt": "other field"}).encode()),
        ("005.txt", b"a file"),
        ("006.png", jpeg((9, 9, 9), format="PNG")),
        ("006.txt", b"png"),
        ("deep/er/007.jpg", jpeg((7, 7, 7))),
        ("deep/er/007.txt", b"in a folder"),
    ]
    return write_tar(tmp_path / "good-000.tar", files)


def pairs(source: WebDatasetPairs) -> list[ImageTextPair]:
    items = [item for part in range(len(source.parts())) for item in source.read(part)]
    assert all(isinstance(item, ImageTextPair) for item in items), items
    return items  # type: ignore[return-value]


def skipped(source: WebDatasetPairs) -> dict[str, str]:
    items = [item for part in range(len(source.parts())) for item in source.read(part)]
    return {item.key: item.reason for item in items if isinstance(item, SkippedPair)}


def test_reads_captions_from_wherever_they_are(shard: Path) -> None:
    captions = {pair.key: pair.caption for pair in pairs(WebDatasetPairs(str(shard)))}
    assert captions == {
        **{f"good-000/{i:03d}": f"caption {i}" for i in range(4)},
        "good-000/004": "first of four",
        "good-000/005": "a field",
        "good-000/006": "png",
        "good-000/deep/er/007": "in a folder",
    }
    source = WebDatasetPairs(str(shard), SampleReading(caption_key="alt", label_keys=["label"]))
    assert {p.key: p.caption for p in source.read(0) if isinstance(p, ImageTextPair)} == {"good-000/005": "other field"}
    labelled = [p.labels for p in pairs(WebDatasetPairs(str(shard), SampleReading(label_keys=["label"]))) if p.labels]
    assert labelled == [{"label": "7"}]


def test_several_captions_an_image(shard: Path) -> None:
    all_keys = [pair.key for pair in pairs(WebDatasetPairs(str(shard), SampleReading(captions="all")))]
    assert len(all_keys) == len(set(all_keys)) == 9
    assert {"good-000/004#0", "good-000/004#1"} <= set(all_keys)

    def drawn(seed: int) -> list[str]:
        reading = SampleReading(captions="random", seed=seed)
        return [pair.caption for pair in pairs(WebDatasetPairs(str(shard), reading)) if "/004" in pair.key]

    chosen = {seed: drawn(seed) for seed in range(12)}
    assert {c for captions in chosen.values() for c in captions} == {"first of four", "second of four"}
    assert drawn(3) == chosen[3]


@pytest.mark.parametrize("captions", ["first", "all"])
def test_fetches_any_pair_again(shard: Path, captions: Any) -> None:
    source = WebDatasetPairs(str(shard), SampleReading(captions=captions))
    for pair in pairs(source):
        for locator in (pair.locator, ""):
            again = source.fetch(pair.key, locator)
            assert (again.key, again.caption, again.locator) == (pair.key, pair.caption, pair.locator)
            assert again.image.tobytes() == pair.image.tobytes()
    for key in ("good-000/nobody", "other/000", "000", "good-000/000#7"):
        with pytest.raises(DataError, match="no .*pair"):
            source.fetch(key)


def test_broken_samples_are_skipped_with_a_reason(tmp_path: Path) -> None:
    good = jpeg((1, 2, 3), size=64)
    write_tar(
        tmp_path / "bad.tar",
        [
            ("a.jpg", good[: len(good) // 2]), ("a.txt", b"cut off"),
            ("b.jpg", b"not a jpeg"), ("b.txt", b"nonsense"),
            ("c.jpg", good), ("c.txt", b" \n "),
            ("d.jpg", good),
            ("e.txt", b"no image"),
            ("f.jpg", good), ("f.json", b"{broken"),
            ("g.jpg", good), ("g.txt", b"fine"),
        ],
    )  # fmt: skip
    source = WebDatasetPairs(str(tmp_path / "bad.tar"))
    reasons = skipped(source)
    assert {key.removeprefix("bad/"): reason.split(" (")[0] for key, reason in reasons.items()} == {
        "a": "unreadable image",
        "b": "unreadable image",
        "c": "no caption in .jpg, .txt",
        "d": "no caption in .jpg",
        "e": "no image among .txt",
        "f": "unreadable .json",
    }
    assert [i.key for i in source.read(0) if isinstance(i, ImageTextPair)] == ["bad/g"]


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_a_truncated_shard_gives_what_it_still_holds_and_is_an_error(shard: Path, share: float) -> None:
    whole = pairs(WebDatasetPairs(str(shard)))
    data = shard.read_bytes()
    in_an_image = data.index(b"\xff\xd8", int(share * len(data))) + 40
    shard.write_bytes(data[:in_an_image])
    got = []
    with pytest.raises(BrokenPartError, match="good-000.tar is cut off or damaged"):
        got.extend(WebDatasetPairs(str(shard)).read(0))
    assert 0 < len(got) < len(whole)
    for pair, expected in zip(got, whole, strict=False):
        assert isinstance(pair, ImageTextPair)
        assert (pair.key, pair.image.tobytes()) == (expected.key, expected.image.tobytes())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello" * 1000, "is no tar archive"),
        (b"hello", "is cut off"),
        (gzip.compress(b"\0" * 10240, mtime=0), "is gzip: unpack it"),
        (bz2.compress(b"\0" * 10240), "is bzip2: unpack it"),
        (lzma.compress(b"\0" * 10240), "is xz: unpack it"),
        (b"PK\x03\x04" + b"\0" * 600, "is a zip file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>not found</html>", "web page"),
        (b"\0" * (3 << 20), "bytes of zeros"),
    ],
)
def test_a_file_that_is_no_tar_is_an_error_that_says_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "no.tar").write_bytes(content)
    with pytest.raises(BrokenPartError, match=f"no.tar {reason}|no.tar .*{reason}"):
        list(WebDatasetPairs(str(tmp_path / "no.tar")).read(0))


def test_archives_that_were_strung_together_are_an_error(shard: Path, tmp_path: Path) -> None:
    (tmp_path / "two.tar").write_bytes(shard.read_bytes() * 2)
    with pytest.raises(BrokenPartError, match="goes on after its end mark"):
        list(WebDatasetPairs(str(tmp_path / "two.tar")).read(0))


def test_a_pair_before_the_break_can_be_fetched(shard: Path) -> None:
    whole = pairs(WebDatasetPairs(str(shard)))
    shard.write_bytes(shard.read_bytes()[: int(whole[5].locator.split(":")[0]) + 700])
    source = WebDatasetPairs(str(shard))
    for locator in ("", whole[2].locator, whole[2].locator.split(":")[0]):
        assert source.fetch(whole[2].key, locator).image.tobytes() == whole[2].image.tobytes()
    for locator in ("", whole[6].locator, whole[6].locator.split(":")[0]):
        with pytest.raises(DataError, match="good-000.tar"):
            source.fetch(whole[6].key, locator)
    with pytest.raises(DataError, match="no place in a shard"):
        source.fetch(whole[2].key, "-5:x")


def test_keys_are_unique_across_shards(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            write_tar(tmp_path / folder / f"{number}.tar", [("0.jpg", jpeg((5, 5, 5))), ("0.txt", folder.encode())])
    source = WebDatasetPairs([str(tmp_path / "one" / "{0..1}.tar"), str(tmp_path / "two" / "*.tar")])
    found = pairs(source)
    assert len({pair.key for pair in found}) == 4
    assert [source.fetch(pair.key).caption for pair in found] == ["one", "one", "two", "two"]


def test_patterns_that_match_nothing_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "s-0.tar", [])
    for pattern, what in (
        ("nothing-*.tar", "matches no file"),
        ("s-{0..2}.tar", "s-1.tar is not there"),
        ("gone.tar", "gone.tar is not there"),
    ):
        with pytest.raises(DataError, match=what):
            WebDatasetPairs(str(tmp_path / pattern))
    with pytest.raises(DataError, match="empty"):
        WebDatasetPairs([])


def test_a_shard_that_is_named_twice_is_refused(shard: Path, tmp_path: Path) -> None:
    link = tmp_path / "other.tar"
    link.symlink_to(shard)
    signed = [f"https://host/x.tar?X-Amz-Signature={signature}" for signature in "ab"]
    for twice in ([str(shard), str(shard)], f"{shard}::{shard.parent}/*.tar", [str(shard), str(link)], signed):
        with pytest.raises(DataError, match=r"dataset.shards names \S+.tar more than once: name each shard once"):
            WebDatasetPairs(twice)


def test_hidden_files_of_a_folder_are_no_shards_unless_they_are_named(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    litter = shard.with_name(f"._{shard.name}")  # as macOS leaves them on disks of other systems
    litter.write_bytes(b"\0\5\26\7Mac OS X")
    assert WebDatasetPairs(str(shard.parent)).shards == [str(shard)]
    assert WebDatasetPairs(f"{shard.parent}/*.tar").shards == [str(shard)]
    assert WebDatasetPairs(str(litter)).shards == [str(litter)]
    hidden = shard.parent / ".hidden"
    hidden.mkdir()
    for file in (shard, litter):
        (hidden / file.name).write_bytes(file.read_bytes())
    assert WebDatasetPairs(str(hidden)).shards == [str(hidden / shard.name)]
    monkeypatch.chdir(hidden)
    assert WebDatasetPairs("..").shards == [f"../{shard.name}"]


def test_a_copy_of_a_shard_under_another_name_is_found(shard: Path, tmp_path: Path) -> None:
    copy, other, *empty = (tmp_path / f"{name}.tar" for name in ("copy", "other", "empty-0", "empty-1"))
    copy.write_bytes(shard.read_bytes())
    other.write_bytes(shard.read_bytes()[:-1] + b"\1")  # of the same size
    for file in empty:
        tarfile.open(file, "w").close()
    assert WebDatasetPairs([str(shard), str(other), str(copy)]).repeats() == [[str(shard), str(copy)]]
    assert not WebDatasetPairs([str(shard), str(other), *map(str, empty)]).repeats()


def test_fingerprint_follows_content_and_reading_but_not_the_place(shard: Path, tmp_path: Path) -> None:
    before = WebDatasetPairs(str(shard)).fingerprint()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / shard.name).write_bytes(shard.read_bytes())
    assert WebDatasetPairs(str(moved / shard.name)).fingerprint() == before
    assert WebDatasetPairs(str(shard), SampleReading(captions="all")).fingerprint() != before
    shard.write_bytes(shard.read_bytes() + b"\0" * 512)
    assert WebDatasetPairs(str(shard)).fingerprint() != before


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    with flaky_server() as served:
        yield served


QUICK = RemoteSettings(timeout=1, retries=3, pause=0.01, longest_pause=0.05)


@pytest.mark.parametrize("ranged", [True, False], ids=["ranges", "no ranges"])
def test_remote_shards_stream_and_fetch(server: FlakyServer, shard: Path, ranged: bool) -> None:
    server.ranged, server.token = ranged, "secret"
    server.files["/good-000.tar"] = server.files["/good-001.tar"] = shard.read_bytes()
    local = pairs(WebDatasetPairs(str(shard)))
    remote = WebDatasetPairs(
        f"{server.url}/{{good-000,good-001}}.tar", opener=ShardOpener(token="secret", settings=QUICK)
    )
    found = pairs(remote)
    assert len(found) == 2 * len(local)
    assert [p.image.tobytes() for p in found[:8]] == [p.image.tobytes() for p in local]
    again = remote.fetch(found[5].key, found[5].locator)
    assert again.caption == found[5].caption
    start, length = map(int, found[5].locator.split(":"))
    assert server.requests[-1].byte_range == f"bytes={start}-{start + length - 1}"
    assert remote.fetch(found[5].key).caption == remote.fetch(found[5].key, str(start)).caption == again.caption
    with pytest.raises(DataError, match="401") as raised:
        list(WebDatasetPairs(f"{server.url}/good-000.tar", opener=ShardOpener(settings=QUICK)).read(0))
    assert "HF_TOKEN" not in str(raised.value)


def test_many_images_in_few_requests(server: FlakyServer, shard: Path) -> None:
    server.files = {f"/s-{i}.tar": shard.read_bytes() for i in range(3)}
    source = WebDatasetPairs(f"{server.url}/s-{{0..2}}.tar", opener=ShardOpener(settings=QUICK))
    found = pairs(source)
    server.requests.clear()
    server.faults = [Fault(503), Fault(after=300), Fault(after=100, how="rst")]
    chosen = [found[i] for i in (20, 3, 4, 5, 17, 9, 3)]
    again = list(source.fetch_many([(pair.key, pair.locator) for pair in chosen]))
    assert [pair.key for pair in again] == [pair.key for pair in chosen]
    for pair, expected in zip(again, chosen, strict=True):
        assert isinstance(pair, ImageTextPair)
        assert (pair.image.tobytes(), pair.caption) == (expected.image.tobytes(), expected.caption)
    assert len(server.requests) <= 3 + 3
    assert list(source.fetch_many([])) == []
    odd = [("other/000", ""), ("s-0/nobody", ""), ("s-0/nobody", "0:10"), ("s-0/0", "x")]
    assert [type(item) for item in source.fetch_many([*odd, (found[0].key, "")])] == [SkippedPair] * 4 + [ImageTextPair]
    server.files.pop("/s-1.tar")
    items = list(source.fetch_many([(pair.key, pair.locator) for pair in (found[0], found[10], found[18])]))
    assert [isinstance(item, SkippedPair) for item in items] == [False, True, False]
    assert "404" in items[1].reason  # type: ignore[union-attr]
    server.files["/s-2.tar"] = shard.read_bytes()[:-2048] + b"x" * 2048
    assert isinstance(next(source.fetch_many([(found[0].key, "")])), ImageTextPair)


def test_large_requests_for_images_are_split_and_lose_nothing(tmp_path: Path) -> None:
    files = [
        (f"{i:04d}.{e}", d) for i in range(600) for e, d in (("jpg", jpeg((i % 256, i // 256, 3), 8)), ("txt", b"x"))
    ]
    source = WebDatasetPairs(str(write_tar(tmp_path / "many.tar", files)))
    found = pairs(source)
    for order in (found, found[::-1], found[::7]):
        again = list(source.fetch_many([(pair.key, pair.locator) for pair in order]))
        assert [pair.key for pair in again] == [pair.key for pair in order]
        assert all(isinstance(a, ImageTextPair) and a.image == b.image for a, b in zip(again, order, strict=True))


def test_an_unreachable_server_is_an_error_not_a_skip() -> None:
    with pytest.raises(DataError, match=r"cannot reach http://127\.0\.0\.1:9"):
        list(WebDatasetPairs("http://127.0.0.1:9/shard.tar").read(0))


def test_signatures_of_urls_change_no_key_and_no_fingerprint(server: FlakyServer, shard: Path) -> None:
    server.files["/a/good-000.tar"] = server.files["/get"] = shard.read_bytes()

    def source(query: str, path: str = "a/good-000.tar") -> WebDatasetPairs:
        return WebDatasetPairs([f"{server.url}/{path}?{query}"], opener=ShardOpener(settings=QUICK))

    one = source("X-Amz-Signature=abc/def&X-Amz-Date=1")
    two = source("X-Amz-Signature=xyz/qrs&X-Amz-Date=2")
    assert one.fingerprint() == two.fingerprint()
    assert (
        [p.key for p in pairs(one)]
        == [p.key for p in pairs(two)]
        == [p.key for p in pairs(WebDatasetPairs(str(shard)))]
    )
    assert "abc" not in one.parts()[0]
    # A query that names the file is no signature.
    named = [source(f"file={i}&Expires={e}&Signature=s", "get") for i, e in ((1, 1), (1, 2), (2, 1))]
    assert named[0].fingerprint() == named[1].fingerprint() != named[2].fingerprint()


def test_a_password_in_a_url_is_in_no_message_and_no_file(server: FlakyServer, shard: Path, tmp_path: Path) -> None:
    server.files["/good-000.tar"] = shard.read_bytes()

    def source(name: str, password: str) -> WebDatasetPairs:
        address = f"{server.url}/{name}".replace("://", f"://user:{password}@")
        return WebDatasetPairs(address, opener=ShardOpener(cache=tmp_path, settings=QUICK))

    good, gone = source("good-000.tar", "secret"), source("gone.tar", "secret")
    assert pairs(good)
    with pytest.raises(BrokenPartError, match="gone.tar answers 404") as raised:
        pairs(gone)
    written = [file.read_text() for file in tmp_path.rglob("*.json")]
    assert written
    assert not any("secret" in text for text in (str(raised.value), *good.parts(), *written))
    assert good.fingerprint() == source("good-000.tar", "changed").fingerprint()


def test_versions_of_a_file_are_different_shards(server: FlakyServer, shard: Path, tmp_path: Path) -> None:
    def source(query: str) -> WebDatasetPairs:
        return WebDatasetPairs(f"{server.url}/good-000.tar?{query}", opener=ShardOpener(cache=tmp_path, settings=QUICK))

    one, same, other = (source(f"versionId={v}&X-Amz-Signature={s}") for v, s in (("1", "a"), ("1", "b"), ("2", "a")))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    server.files["/good-000.tar"] = shard.read_bytes()
    assert pairs(one)
    server.files["/good-000.tar"] = bytes(10240)  # an empty archive
    assert pairs(same), "from the copy"
    assert not pairs(other)


def test_fingerprints_do_not_depend_on_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    before = WebDatasetPairs.cc3m("val")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    mirrored = WebDatasetPairs.cc3m("val")
    assert mirrored.fingerprint() == before.fingerprint()
    assert mirrored.parts()[0].startswith("http://127.0.0.1:1/datasets/pixparse/cc3m-wds/resolve/main/")


def test_other_schemes(shard: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/s/good-000.tar", shard.read_bytes())
    local = pairs(WebDatasetPairs(str(shard)))
    for address in ("memory://s/good-000.tar", f"file://{shard}", f"pipe:cat {shard}"):
        source = WebDatasetPairs(address)
        found = pairs(source)
        assert [(p.key, p.locator) for p in found] == [(p.key, p.locator) for p in local]
        assert source.fetch(found[5].key, found[5].locator).image.tobytes() == local[5].image.tobytes()
    for address in ("memory://s/gone.tar", "pipe:exit 3", f"pipe:head -c 5000 {shard}", f"pipe:cat {shard}; exit 3"):
        with pytest.raises(BrokenPartError):
            list(WebDatasetPairs(address).read(0))
    for address, what in (("s3://bucket/x.tar", "s3fs"), ("nothing://bucket/x.tar", "cannot open")):
        with pytest.raises(DataError, match=what):
            list(WebDatasetPairs(address).read(0))
    assert {p.key for p in pairs(WebDatasetPairs(f"pipe:cat {shard} -"))} == {p.key for p in local}


def test_cc3m_needs_a_token_or_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("mmmono.data.webdataset.hub_token", lambda: None)
    with pytest.raises(DataError, match="HF_TOKEN"):
        WebDatasetPairs.cc3m("val")
    with pytest.raises(DataError, match="matches no file"):
        WebDatasetPairs.cc3m("val", root=tmp_path)
    write_tar(tmp_path / "cc3m-validation-0000.tar", [("0.jpg", jpeg((1, 1, 1))), ("0.txt", b"copy")])
    assert [pair.caption for pair in pairs(WebDatasetPairs.cc3m("val", root=tmp_path))] == ["copy"]
    monkeypatch.undo()
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert (len(WebDatasetPairs.cc3m("train").parts()), len(WebDatasetPairs.cc3m("val").parts())) == (576, 16)


def test_no_other_file_of_a_sample_hides_its_caption(tmp_path: Path) -> None:
    image = jpeg((1, 2, 3))
    documents: dict[str, Any] = {
        "empty": {"caption": ""}, "none": {"captions": []}, "null": {"captions": [None, None]},
        "nan": {"captions": [float("nan")]},
        "dict": {"captions": [{"raw": "x"}]}, "nested": {"captions": [["x"]]}, "number": {"caption": 5}, "list": ["x"],
        "blank": {"captions": [" ", "\n"], "caption": None},
    }  # fmt: skip
    files = [
        file
        for name, document in documents.items()
        for file in ((f"{name}.jpg", image), (f"{name}.json", json.dumps(document).encode()), (f"{name}.txt", b"good"))
    ]
    files += [("torn.jpg", image), ("torn.json", b"{"), ("torn.txt", b"good"), ("deep.jpg", image)]
    files += [("deep.json", b"[" * 100_000), ("deep.txt", b"good")]
    mixed = {"captions": [None, "second", {"raw": "x"}], "caption": "third"}
    files += [("mixed.jpg", image), ("mixed.json", json.dumps(mixed).encode()), ("mixed.txt", b"good")]
    source = WebDatasetPairs(str(write_tar(tmp_path / "s.tar", files)))
    captions = {pair.key.removeprefix("s/"): pair.caption for pair in pairs(source)}
    assert captions == dict.fromkeys([*documents, "torn", "deep"], "good") | {"mixed": "second"}


def test_caption_key_names_a_file_or_a_field(tmp_path: Path) -> None:
    files = [
        ("0.jpg", jpeg((1, 2, 3))),
        ("0.json", b'{"caption": "of json", "alt": "alt"}'),
        ("0.txt", b"of txt"),
        ("0.cap", b"of cap"),
    ]
    path = str(write_tar(tmp_path / "s.tar", files))
    for key, caption in ((None, "of json"), ("txt", "of txt"), (".txt", "of txt"), ("cap", "of cap"), ("alt", "alt")):
        assert [pair.caption for pair in pairs(WebDatasetPairs(path, SampleReading(caption_key=key)))] == [caption]
    assert (
        "no caption in .cap, .jpg, .json, .txt (dataset.caption_key"
        in skipped(WebDatasetPairs(path, SampleReading(caption_key="x")))["s/0"]
    )


def test_images_by_other_extensions(tmp_path: Path) -> None:
    files = [
        ("0.TIF", jpeg((1, 2, 3), format="TIFF")),
        ("0.txt", b"a"),
        ("1.image.jpg", jpeg((1, 2, 3))),
        ("1.txt", b"b"),
    ]
    path = str(write_tar(tmp_path / "s.tar", files))
    assert "no image among .tif, .txt (dataset.image_keys" in skipped(WebDatasetPairs(path))["s/0"]
    own = SampleReading(image_keys=["tif", ".image.jpg"])
    assert [pair.caption for pair in pairs(WebDatasetPairs(path, own))] == ["a", "b"]
    with pytest.raises(ConfigError, match="image_keys"):
        WebDatasetPairs(path, SampleReading(image_keys=[]))


def test_labels_are_text_and_never_the_pairs_own_columns(tmp_path: Path) -> None:
    values = {"a": "x\n y", "b": 3, "c": 0.5, "d": True, "e": None, "f": {"g": 1}, "h": [1], "i": float("nan"), "j": ""}
    files = [("0.jpg", jpeg((1, 2, 3))), ("0.txt", b"a"), ("0.json", json.dumps(values).encode())]
    path = str(write_tar(tmp_path / "s.tar", files))
    assert pairs(WebDatasetPairs(path, SampleReading(label_keys=[*values])))[0].labels == {
        "a": "x y",
        "b": "3",
        "c": "0.5",
        "d": "true",
    }
    for name in ("key", "caption", "locator", "group"):
        with pytest.raises(ConfigError, match=f"no label can be called '{name}'"):
            WebDatasetPairs(path, SampleReading(label_keys=["a", name]))


def test_names_with_dots_swallow_no_image(tmp_path: Path) -> None:
    numbered = [(f"p.{i}.{e}", d) for i in range(12) for e, d in (("jpg", jpeg((i, 0, 0))), ("txt", b"%d" % i))]
    hidden = [(f"cat{d}.{e}", v) for d in ("", ".1", ".2") for e, v in (("jpg", jpeg((9, 9, 9))), ("txt", b"cat"))]
    parts = [("0.jpg", jpeg((5, 5, 5))), ("0.seg.png", jpeg((1, 1, 1), format="PNG")), ("0.txt", b"with a mask")]
    path = str(write_tar(tmp_path / "s.tar", numbered + hidden + parts))
    items = list(WebDatasetPairs(path).read(0))
    assert [item.key for item in items if isinstance(item, ImageTextPair)] == ["s/cat", "s/0"]
    reasons = [item.reason for item in items if isinstance(item, SkippedPair)]
    assert len(reasons) == 12 + 2
    assert all("set dataset.key_end=last_dot" in reason for reason in reasons)
    last = WebDatasetPairs(path, SampleReading(key_end="last_dot"))
    found = [item for item in last.read(0) if isinstance(item, ImageTextPair)]
    assert [pair.key for pair in found[:12]] == [f"s/p.{i}" for i in range(12)]
    assert [pair.caption for pair in found[:12]] == [str(i) for i in range(12)]
    assert len(found) == 12 + 3
    assert {pair.key: last.fetch(pair.key, pair.locator).caption for pair in found} == {p.key: p.caption for p in found}
    assert skipped(last)["s/0"].startswith("its files do not lie next to each other")


def test_files_that_do_not_lie_together_are_one_skip_with_the_remedy(tmp_path: Path) -> None:
    image = jpeg((5, 5, 5))
    apart = [(f"{i}.jpg", image) for i in range(5)] + [(f"{i}.txt", b"x") for i in range(5)]
    good = [
        ("a.jpg", image),
        ("a.txt", b"x"),
        ("b.jpg", image),
        ("b.txt", b"y"),
        ("a.json", b"{}"),
        ("b.jpg", image),
        ("b.txt", b"z"),
    ]
    items = list(WebDatasetPairs(str(write_tar(tmp_path / "s.tar", good + apart))).read(0))
    assert [(item.key, item.caption) for item in items if isinstance(item, ImageTextPair)] == [
        ("s/a", "x"),
        ("s/b", "y"),
    ]
    reasons = {item.key: item.reason for item in items if isinstance(item, SkippedPair)}
    assert len(items) == 2 + len(reasons) == 2 + 7
    assert {key for key, reason in reasons.items() if "tar --sort=name" in reason} == {
        "s/a",
        *(f"s/{i}" for i in range(5)),
    }
    assert reasons["s/b"] == "a second sample of the same name in its shard"


def test_members_that_are_no_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT) as tar:

        def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, link
            tar.addfile(info, io.BytesIO(data))

        image = jpeg((5, 5, 5))
        add("folder/", kind=tarfile.DIRTYPE)
        add("README", b"no sample")
        add("._0.jpg", b"Mac OS X        ")
        add("__MACOSX/0.jpg", b"x")
        add(".DS_Store", b"x")
        add("./0.jpg", image)
        add("./0.txt", b"fine")
        add("1.jpg", kind=tarfile.LNKTYPE, link="./0.jpg")
        add("1.txt", b"hard link")
        add("2.jpg", kind=tarfile.SYMTYPE, link="0.jpg")
        add("2.txt", b"symbolic link")
        add("3.jpg", image)
        add("3.txt", kind=tarfile.LNKTYPE, link="0.txt")
        add("4.jpg", kind=tarfile.FIFOTYPE)
        add("4.txt", b"pipe")
        add("5.jpg")
        add("5.txt", b"empty")
        add(".jpg", image)
        add("image", image)
        add("6.mp4", b"v" * 5000)
    items = list(WebDatasetPairs(str(tmp_path / "s.tar")).read(0))
    assert [item.key for item in items if isinstance(item, ImageTextPair)] == ["s/0"]
    reasons = {item.key.removeprefix("s/"): item.reason for item in items if isinstance(item, SkippedPair)}
    assert sorted(reasons) == [".jpg", "1", "2", "3", "4", "5", "6", "image"]
    assert all("link" in reasons[key] and "--hard-dereference" in reasons[key] for key in "123")
    assert "no regular file" in reasons["4"]
    assert reasons["5"] == "empty image file"
    assert "no image among .mp4" in reasons["6"]
    assert all("without a name" in reasons[key] for key in (".jpg", "image"))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.tar"
    with tarfile.open(path, "w", encoding="latin-1", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (("caf\xe90.jpg", jpeg((5, 5, 5))), ("caf\xe90.txt", b"latin")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = WebDatasetPairs(str(path))
    (pair,) = pairs(source)
    assert pair.key == r"caf\xe9/caf\xe90"
    assert source.fetch(pair.key, pair.locator).caption == source.fetch(pair.key).caption == "latin"
    source.parts()[0].encode("utf-8")


@pytest.mark.parametrize("captions", ["first", "random", "all"])
def test_keys_may_have_a_number_sign(tmp_path: Path, captions: Any) -> None:
    document = json.dumps({"captions": ["a", "b"]}).encode()
    files = [(f"IMG#{i}.{e}", d) for i in range(3) for e, d in (("jpg", jpeg((i, 0, 0))), ("json", document))]
    source = WebDatasetPairs(str(write_tar(tmp_path / "shard#7.tar", files)), SampleReading(captions=captions))
    found = pairs(source)
    for pair in found:
        assert source.fetch(pair.key, pair.locator).image.tobytes() == source.fetch(pair.key).image.tobytes()
    assert {source.group(pair.key) for pair in found} == {f"shard#7/IMG#{i}" for i in range(3)}


def test_all_captions_of_an_image_are_one_group(tmp_path: Path) -> None:
    document = json.dumps({"captions": ["a", "b", "c"]}).encode()
    files = [(f"{i}.{e}", d) for i in range(4) for e, d in (("jpg", jpeg((i, 0, 0))), ("json", document))]
    source = WebDatasetPairs(str(write_tar(tmp_path / "s.tar", files)), SampleReading(captions="all"))
    groups = [source.group(pair.key) for pair in pairs(source)]
    assert groups == [f"s/{i}" for i in range(4) for _ in range(3)]


def test_paths_that_look_like_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("data [v2]", "a{0..1}", "b::c", "x*y", "data:v2"):
        (tmp_path / folder).mkdir()
        for i in range(2):
            write_tar(tmp_path / folder / f"s-{i}.tar", [("0.jpg", jpeg((1, 1, 1))), ("0.txt", folder.encode())])
        assert len(pairs(WebDatasetPairs(str(tmp_path / folder / "s-0.tar")))) == 1
    assert len(pairs(WebDatasetPairs(str(tmp_path / "data [v2]" / "s-{0..1}.tar")))) == 2
    assert len(pairs(WebDatasetPairs(str(tmp_path / "data [v2]" / "*.tar")))) == 2
    assert len(pairs(WebDatasetPairs(str(tmp_path / "data [v2]")))) == 2
    assert len(pairs(WebDatasetPairs(f"{tmp_path}/x*y/s-*.tar"))) == 2
    monkeypatch.chdir(tmp_path)
    assert len(pairs(WebDatasetPairs("data:v2/s-*.tar"))) == len(pairs(WebDatasetPairs("data:v2/s-{0..1}.tar"))) == 2
    assert len(pairs(WebDatasetPairs(str(tmp_path / "a{0..1}")))) == 2


def test_shards_of_the_hub_by_their_address(
    server: FlakyServer, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.token = "hf_secret"
    server.files = {f"/datasets/me/mine/resolve/v1/data/good-00{i}.tar": shard.read_bytes() for i in range(2)}
    source = WebDatasetPairs("hf://datasets/me/mine@v1/data/good-{000..001}.tar", opener=ShardOpener(settings=QUICK))
    assert len(pairs(source)) == 16
    assert source.remote
    assert not WebDatasetPairs(str(shard)).remote


def test_shards_on_this_disk_know_their_size(shard: Path, server: FlakyServer, tmp_path: Path) -> None:
    assert [WebDatasetPairs(str(shard)).count_samples(0, most) for most in (3, 8, 100)] == [3, 8, 8]
    server.files["/s.tar"] = shard.read_bytes()
    remote = WebDatasetPairs(f"{server.url}/s.tar", opener=ShardOpener(cache=tmp_path / "cache", settings=QUICK))
    assert remote.count_samples(0, 100) is None
    assert server.requests == []
    pairs(remote)
    assert remote.count_samples(0, 100) == 8
    shard.write_bytes(b"")
    assert WebDatasetPairs(str(shard)).count_samples(0, 100) is None


@pytest.mark.parametrize("limit", [-1, 0])
def test_limits_below_one_are_refused(shard: Path, limit: int) -> None:
    with pytest.raises(ConfigError, match=f"dataset.limit={limit}"):
        WebDatasetPairs(str(shard), limit=limit)


def test_sources_travel_to_worker_processes(shard: Path) -> None:
    copy = pickle.loads(pickle.dumps(WebDatasetPairs(str(shard))))
    assert len(pairs(copy)) == 8


@pytest.mark.skipif(not FLICKR.is_dir(), reason="the Flickr8k shards lie beside the repository only on some machines")
def test_real_photographs() -> None:
    source = WebDatasetPairs(str(FLICKR / "flickr8k-val-0000.tar"))
    found = pairs(source)
    assert len(found) == 1000
    assert np.std([np.asarray(pair.image).mean() for pair in found[:50]]) > 10
    assert source.fetch(found[999].key, found[999].locator).image.tobytes() == found[999].image.tobytes()


@pytest.mark.parametrize("caption_key", [None, "txt"])
def test_each_line_of_a_text_file_may_be_a_caption(tmp_path: Path, caption_key: str | None) -> None:
    text = "a dog\r\n\r\n a  dog runs\nold\u2028new\n".encode()  # as CLIP_benchmark writes the captions of COCO
    file = write_tar(tmp_path / "a.tar", [("0.jpg", jpeg((1, 2, 3))), ("0.txt", text)])

    def source(**settings: Any) -> WebDatasetPairs:
        return WebDatasetPairs(str(file), SampleReading(caption_key=caption_key, **settings))

    assert [pair.caption for pair in pairs(source(captions="all"))] == ["a dog a dog runs old new"]
    lines = source(captions="all", caption_lines=True)
    assert [(pair.key, pair.caption) for pair in pairs(lines)] == [
        ("a/0#0", "a dog"), ("a/0#1", "a dog runs"), ("a/0#2", "old new")
    ]  # fmt: skip
    assert {lines.group(pair.key) for pair in pairs(lines)} == {"a/0"}
    assert [pair.caption for pair in pairs(source(caption_lines=True))] == ["a dog"]
    assert source().fingerprint() != source(caption_lines=True).fingerprint()
