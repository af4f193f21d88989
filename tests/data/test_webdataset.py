import functools
import http.server
import io
import json
import pickle
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmono.core.errors import DataError
from mmmono.data import ImageTextPair, SkippedPair, WebDatasetPairs

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
    source = WebDatasetPairs(str(shard), caption_key="alt", label_keys=["label"])
    assert {p.key: p.caption for p in source.read(0) if isinstance(p, ImageTextPair)} == {"good-000/005": "other field"}
    labelled = [p.labels for p in pairs(WebDatasetPairs(str(shard), label_keys=["label"])) if p.labels]
    assert labelled == [{"label": "7"}]


def test_several_captions_a_picture(shard: Path) -> None:
    all_keys = [pair.key for pair in pairs(WebDatasetPairs(str(shard), captions="all"))]
    assert len(all_keys) == len(set(all_keys)) == 9
    assert {"good-000/004#0", "good-000/004#1"} <= set(all_keys)
    chosen = {
        seed: [p.caption for p in pairs(WebDatasetPairs(str(shard), captions="random", seed=seed)) if "/004" in p.key]
        for seed in range(12)
    }
    assert {c for captions in chosen.values() for c in captions} == {"first of four", "second of four"}
    again = [p.caption for p in pairs(WebDatasetPairs(str(shard), captions="random", seed=3)) if "/004" in p.key]
    assert again == chosen[3]


@pytest.mark.parametrize("captions", ["first", "all"])
def test_fetches_any_pair_again(shard: Path, captions: Any) -> None:
    source = WebDatasetPairs(str(shard), captions=captions)
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
            ("e.txt", b"no picture"),
            ("f.jpg", good), ("f.json", b"{broken"),
            ("g.jpg", good), ("g.txt", b"fine"),
        ],
    )  # fmt: skip
    source = WebDatasetPairs(str(tmp_path / "bad.tar"))
    reasons = skipped(source)
    assert {key.removeprefix("bad/"): reason.split(" (")[0] for key, reason in reasons.items()} == {
        "a": "unreadable image",
        "b": "unreadable image",
        "c": "no caption",
        "d": "no caption",
        "e": "no image",
        "f": "unreadable .json",
    }
    assert [i.key for i in source.read(0) if isinstance(i, ImageTextPair)] == ["bad/g"]


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_a_truncated_shard_gives_what_it_still_holds(shard: Path, share: float) -> None:
    whole = pairs(WebDatasetPairs(str(shard)))
    data = shard.read_bytes()
    in_a_picture = data.index(b"\xff\xd8", int(share * len(data))) + 40
    shard.write_bytes(data[:in_a_picture])
    items = list(WebDatasetPairs(str(shard)).read(0))
    got = [item for item in items if isinstance(item, ImageTextPair)]
    assert 0 < len(got) < len(whole)
    assert [item.reason.split(" (")[0] for item in items if isinstance(item, SkippedPair)] == ["shard broken off"]
    assert [p.key for p in got] == [p.key for p in whole[: len(got)]]
    assert [p.image.tobytes() for p in got] == [p.image.tobytes() for p in whole[: len(got)]]


def test_a_file_that_is_no_tar_is_one_skip(tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"hello" * 1000)
    assert "shard broken off" in skipped(WebDatasetPairs(str(tmp_path / "no.tar")))["no"]


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


def test_fingerprint_follows_content_and_reading_but_not_the_place(shard: Path, tmp_path: Path) -> None:
    before = WebDatasetPairs(str(shard)).fingerprint()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / shard.name).write_bytes(shard.read_bytes())
    assert WebDatasetPairs(str(moved / shard.name)).fingerprint() == before
    assert WebDatasetPairs(str(shard), captions="all").fingerprint() != before
    shard.write_bytes(shard.read_bytes() + b"\0" * 512)
    assert WebDatasetPairs(str(shard)).fingerprint() != before


class _Ranged(http.server.SimpleHTTPRequestHandler):
    """Serves files with ranges, and only to those who know the token."""

    requests: list[str | None]
    ranged = True

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Bearer secret":
            self.send_error(401)
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range")
        type(self).requests.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranged else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, type[_Ranged]]]:
    handler = type("Handler", (_Ranged,), {"requests": [], "ranged": request.param})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path))
    ) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}", handler
        served.shutdown()


def test_remote_shards_stream_and_fetch(server: tuple[str, type[_Ranged]], shard: Path) -> None:
    url, handler = server
    local = pairs(WebDatasetPairs(str(shard)))
    remote = WebDatasetPairs(f"{url}/{{good-000,good-000}}.tar", token="secret")
    found = pairs(remote)
    assert len(found) == 2 * len(local)
    assert [p.image.tobytes() for p in found[:8]] == [p.image.tobytes() for p in local]
    again = remote.fetch(found[5].key, found[5].locator)
    assert again.caption == found[5].caption
    assert handler.requests[-1] == f"bytes={found[5].locator}-"
    with pytest.raises(DataError, match="401 .*HF_TOKEN"):
        list(WebDatasetPairs(f"{url}/good-000.tar").read(0))


def test_an_unreachable_server_is_an_error_not_a_skip() -> None:
    with pytest.raises(DataError, match=r"cannot reach http://127\.0\.0\.1:9"):
        list(WebDatasetPairs("http://127.0.0.1:9/shard.tar").read(0))


def test_other_schemes_go_through_webdatasets_opener(shard: Path) -> None:
    assert len(pairs(WebDatasetPairs(f"pipe:cat {shard}"))) == 8


def test_cc3m_needs_a_token_or_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(DataError, match="HF_TOKEN"):
        WebDatasetPairs.cc3m("val")
    with pytest.raises(DataError, match="matches no file"):
        WebDatasetPairs.cc3m("val", root=tmp_path)
    write_tar(tmp_path / "cc3m-validation-0000.tar", [("0.jpg", jpeg((1, 1, 1))), ("0.txt", b"copy")])
    assert [pair.caption for pair in pairs(WebDatasetPairs.cc3m("val", root=tmp_path))] == ["copy"]
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert (len(WebDatasetPairs.cc3m("train").parts()), len(WebDatasetPairs.cc3m("val").parts())) == (576, 16)


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
