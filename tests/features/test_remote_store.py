"""Feature stores on other machines, over every kind of address, from servers that fail."""

from __future__ import annotations

import base64
import io
import json
import pickle
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import torch
from fsspec.registry import _registry
from PIL import Image

from mmmono.core.artifacts import Artifacts
from mmmono.core.errors import BrokenPartError, ConfigError, DataError, MissingArtifactError, StoreError
from mmmono.data import blocks
from mmmono.data.blocks import BlockReader, BlockSettings
from mmmono.data.disk_cache import DiskCache
from mmmono.data.hub import HubFolder
from mmmono.data.remote_folder import RemotePart
from mmmono.data.remote_settings import RemoteSettings
from mmmono.dictionaries.pools import CHUNK_ROWS, RowReader
from mmmono.features import MODALITIES, FeatureStore, split_view
from mmmono.features.remote_store import RemoteStore
from mmmono.features.store import Manifest, content_fingerprint
from mmmono.pipeline.existing_store import ExistingStore
from tests.data.flaky_server import Fault, FlakyServer, flaky_server
from tests.data.s3_server import S3Server, s3_server
from tests.features.test_store import write_like_clip_retrieval

QUICK = BlockSettings(RemoteSettings(retries=2, pause=0.001, longest_pause=0.002))
SIZES, DIM = [30, 1, 25, 14], 40
Served = Callable[[Path], str]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that end within rows, so that stores of a test have many."""
    monkeypatch.setattr(blocks, "BLOCK", 1000)


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    with flaky_server() as served:
        yield served


@pytest.fixture
def local(tmp_path: Path) -> Path:
    write_like_clip_retrieval(tmp_path / "local", SIZES, DIM, pad=2)
    return tmp_path / "local"


def upload(server: FlakyServer, folder: Path, prefix: str = "/bucket/emb") -> str:
    """Serve a folder's files; return its address."""
    for file in folder.rglob("*"):
        if file.is_file():
            server.files[f"{prefix}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()
    return f"{server.url}{prefix}"


def add_pages(server: FlakyServer) -> None:
    """Serve a page of links for each folder, as file servers do."""
    for path in [path for path in server.files if not path.endswith("/")]:
        folder, _, name = path.rpartition("/")
        page = server.files.get(f"{folder}/", b'<html><a href="../">up</a> <a href="?C=M;O=A">sort</a>')
        server.files[f"{folder}/"] = page + f'<a href="{name}">{name}</a>'.encode()


def to_memory(folder: Path) -> str:
    system = fsspec.filesystem("memory")
    system.store.clear()
    for file in folder.rglob("*"):
        if file.is_file():
            system.pipe(f"/bucket/emb/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return "memory://bucket/emb"


def to_hub(server: FlakyServer, folder: Path, commit: str = "c0ffee") -> str:
    upload(server, folder, f"/datasets/org/name/resolve/{commit}/emb")
    server.files["/api/datasets/org/name"] = json.dumps({"id": "org/name", "sha": commit}).encode()
    server.extra = {"X-Error-Code": "EntryNotFound"}
    for kind in (path.name for path in folder.iterdir() if path.is_dir()):
        tree = [
            {"type": "file", "path": f"emb/{kind}/{file.name}", "size": file.stat().st_size, "oid": "0" * 40,
             "lfs": {"oid": f"{hash(file.read_bytes()):x}", "size": file.stat().st_size, "pointerSize": 130}}
            for file in sorted((folder / kind).iterdir())
        ]  # fmt: skip
        server.files[f"/api/datasets/org/name/tree/{commit}/emb%2F{kind}"] = json.dumps(tree).encode()
    return "hf://datasets/org/name/emb"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    pytest.importorskip("s3fs", reason="needs s3fs: pip install s3fs")
    with s3_server() as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield served
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(params=["memory", "pages", "counted", "hub", "s3"])
def served(request: pytest.FixtureRequest, server: FlakyServer, monkeypatch: pytest.MonkeyPatch) -> Served:
    """What puts a folder where an address leads to it."""
    if request.param == "memory":
        return to_memory
    if request.param == "hub":
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        return lambda folder: to_hub(server, folder)
    if request.param == "s3":
        other = request.getfixturevalue("s3")
        return lambda folder: upload(other, folder).replace(other.url, "s3:/")

    def over_http(folder: Path) -> str:
        address = upload(server, folder)
        if request.param == "pages":
            add_pages(server)
        return address

    return over_http


def assert_same(remote: FeatureStore, local: FeatureStore) -> None:
    rows = np.array([0, 1, 29, 30, 31, 40, 55, 56, 69])
    assert (len(remote), remote.dim, remote.dtype) == (len(local), local.dim, local.dtype)
    for modality in MODALITIES:
        assert torch.equal(remote.read(modality, 3, 68), local.read(modality, 3, 68))
        assert torch.equal(remote.gather(modality, rows[::-1]), local.gather(modality, rows[::-1]))
    for block, expected in zip(remote.blocks(7, rows), local.blocks(7, rows), strict=True):
        assert (block.start, block.image.tolist(), block.text.tolist()) == (
            expected.start, expected.image.tolist(), expected.text.tolist(),
        )  # fmt: skip
    pd.testing.assert_frame_equal(remote.metadata(), local.metadata())


def test_a_store_is_the_same_wherever_it_lies(served: Served, local: Path, tmp_path: Path) -> None:
    address = served(local)
    assert_same(FeatureStore(address, QUICK), FeatureStore(local))
    (tmp_path / "index").mkdir()
    RemoteStore(address, QUICK.remote).write(tmp_path / "index")
    indexed = FeatureStore(tmp_path / "index", QUICK)
    assert_same(indexed, FeatureStore(local))
    assert_same(pickle.loads(pickle.dumps(indexed)), FeatureStore(local))
    assert sum(file.stat().st_size for file in (tmp_path / "index").iterdir()) < 10_000  # no embeddings


def test_metadata_and_padding_are_no_condition(served: Served, tmp_path: Path) -> None:
    write_like_clip_retrieval(tmp_path, [4, 5], pad=1)
    shutil.rmtree(tmp_path / "metadata")
    store = FeatureStore(served(tmp_path), QUICK)
    assert (len(store), store.has_metadata) == (9, False)


def test_its_fingerprint_is_that_of_its_content(served: Served, local: Path) -> None:
    address = served(local)
    before = RemoteStore(address, QUICK.remote).fingerprint
    assert RemoteStore(f"{address}/", QUICK.remote).fingerprint == before
    file = local / "text_emb" / "text_emb_02.npy"
    array = np.load(file)
    array[3, 4] += 1
    np.save(file, array)  # as long as before
    served(local)
    changed = RemoteStore(address, QUICK.remote).fingerprint
    for kind, suffix in (("img_emb", "npy"), ("text_emb", "npy"), ("metadata", "parquet")):
        (local / kind / f"{kind}_03.{suffix}").unlink()
    assert before != changed
    if address.startswith("memory"):  # the servers of this test forget no files
        served(local)
        assert RemoteStore(address, QUICK.remote).fingerprint not in (before, changed)


def test_transfers_that_break_off_go_on(server: FlakyServer, local: Path) -> None:
    address = upload(server, local)
    store = FeatureStore(address, QUICK)
    server.faults = [Fault(after=300), Fault(after=1, how="rst"), Fault(503, {"Retry-After": "0"}), Fault(how="silent")]
    assert torch.equal(store.read("image", 0, 70), FeatureStore(local).read("image", 0, 70))
    assert not server.faults
    assert all(request.byte_range for request in server.requests if ".npy" in request.path)
    server.faults = [Fault(after=0, path="text_emb_00") for _ in range(50)]
    with pytest.raises(
        BrokenPartError, match=rf"^{address}/text_emb/text_emb_00.npy broke off at byte \d+ of 2528, 3 "
    ):
        store.read("text", 0, 70)
    server.faults = []
    assert torch.equal(store.read("text", 0, 70), FeatureStore(local).read("text", 0, 70))  # failures are not kept


@pytest.mark.parametrize("change", ["other content", "shorter", "gone"])
def test_a_file_that_changes_while_it_is_read_is_an_error(
    served: Served, server: FlakyServer, local: Path, change: str, request: pytest.FixtureRequest
) -> None:
    address = served(local)
    store = FeatureStore(address, QUICK)
    store.read("image", 0, 3)
    before, expected = (FeatureStore(local).read(modality, 31, 56) for modality in MODALITIES)
    file = local / "img_emb" / "img_emb_02.npy"
    if address.startswith("hf"):  # read at a commit: what comes later does not count
        np.save(file, np.load(file)[::-1])
        to_hub(server, local, "beef")
        assert torch.equal(store.read("image", 31, 56), before)
        assert torch.equal(FeatureStore(address, QUICK).read("image", 31, 56), before.flip(0))
        return
    if change == "gone":
        for served_by in (server, *([request.getfixturevalue("s3")] if address.startswith("s3") else [])):
            served_by.files = {path: data for path, data in served_by.files.items() if "img_emb_02" not in path}
        if address.startswith("memory"):
            fsspec.filesystem("memory").rm(f"/bucket/emb/img_emb/{file.name}")
    else:
        array = np.load(file)
        np.save(file, array[::-1] if change == "other content" else array[:4])
        served(local)
    with pytest.raises(StoreError, match="img_emb_02.npy is another file than when the store was opened, or gone: run"):
        store.read("image", 31, 56)
    assert address.startswith("memory") or torch.equal(store.read("text", 31, 56), expected)


def test_what_was_read_is_kept_up_to_a_limit(server: FlakyServer, local: Path, tmp_path: Path) -> None:
    address = upload(server, local)
    kept = BlockSettings(QUICK.remote, tmp_path / "blocks", 10**6)
    first = FeatureStore(address, kept)
    assert_same(first, FeatureStore(local))
    server.requests.clear()
    assert_same(pickle.loads(pickle.dumps(first)), FeatureStore(local))  # as in another process
    assert not server.requests
    for file in (tmp_path / "blocks").rglob("*"):
        if file.is_file() and file.name != ".lock":
            file.write_bytes(file.read_bytes()[:-1])
    assert_same(pickle.loads(pickle.dumps(first)), FeatureStore(local))  # copies that were cut are read again
    assert len(server.requests) > 10
    small = BlockSettings(QUICK.remote, tmp_path / "small", 4000)
    assert_same(FeatureStore(address, small), FeatureStore(local))
    sizes = [file.stat().st_size for file in (tmp_path / "small").rglob("*") if file.is_file() and file.name != ".lock"]
    assert 0 < sum(sizes) <= 4500


def test_each_block_is_asked_for_once_and_before_it_is_needed(
    server: FlakyServer, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore(upload(server, local), QUICK)
    server.requests.clear()
    together, lock, begun = threading.Barrier(4), threading.Lock(), list[None]()
    read = RemotePart.read

    def slow(self: RemotePart, *arguments: object) -> bytes:
        with lock:
            first = len(begun) < 4
            begun.append(None)
        if first:
            together.wait(20)  # passes only if four blocks are asked for at a time
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RemotePart, "read", slow)
    for _ in store.blocks(2):
        pass
    ranges = [(request.path, request.byte_range) for request in server.requests]
    assert len(ranges) == len(set(ranges)) == sum(
        -(-(local / kind / f"{kind}_0{shard}.npy").stat().st_size // 1000)
        for kind in ("img_emb", "text_emb") for shard in range(4)
    )  # fmt: skip


def test_a_pool_is_filled_from_it(server: FlakyServer, tmp_path: Path) -> None:
    write_like_clip_retrieval(tmp_path, [CHUNK_ROWS + 500, 900], 4)
    address = upload(server, tmp_path)
    filled = []
    for store in (FeatureStore(tmp_path), FeatureStore(address, QUICK)):
        reader = RowReader(split_view(store, "train"))
        chunks = list(range(-(-len(reader.view) // CHUNK_ROWS)))[::-1]
        filled.append(reader.fill(reader.allocate(4096), chunks))
    assert torch.equal(filled[0].image, filled[1].image)
    assert torch.equal(filled[0].text, filled[1].text)


def test_memory_holds_a_number_of_blocks(server: FlakyServer, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "IN_MEMORY", 3)
    reader = BlockReader(QUICK)
    part = next(iter(RemoteStore(upload(server, local), QUICK.remote)._files["img_emb"].values()))
    whole = (local / "img_emb" / "img_emb_00.npy").read_bytes()
    for start in (*range(0, 2500, 300), 0):
        assert reader.read(part, start, start + 20) == whole[start : start + 20]
        assert len(reader._blocks) <= 3


@pytest.mark.parametrize("readers", [1, 4])
def test_ranges_longer_than_memory_holds_ask_for_each_block_once(
    server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: int
) -> None:
    blocks_in_memory = 8 * readers
    for name, value in (("BLOCK", 100), ("IN_MEMORY", blocks_in_memory), ("AT_ONCE", 2)):
        monkeypatch.setattr(blocks, name, value)
    write_like_clip_retrieval(tmp_path, [100] * readers, DIM, pad=2)
    parts = list(RemoteStore(upload(server, tmp_path), QUICK.remote)._files["img_emb"].values())
    server.requests.clear()
    reader = BlockReader(QUICK)
    with ThreadPoolExecutor(readers) as pool:
        found = list(pool.map(lambda part: reader.read(part, 0, part.size), parts))
    assert found == [(tmp_path / "img_emb" / part.name).read_bytes() for part in parts]
    ranges = [(request.path, request.byte_range) for request in server.requests]
    assert len(ranges) == len(set(ranges)) == sum(-(-part.size // 100) for part in parts) > 2 * blocks_in_memory


def test_a_password_of_netrc_is_sent(
    server: FlakyServer, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    FeatureStore(upload(server, local), QUICK).metadata()
    basic = "Basic " + base64.b64encode(b"me:secret").decode()
    assert {request.authorization for request in server.requests} == {basic}


def test_errors_name_the_address_and_what_to_do(server: FlakyServer, local: Path) -> None:
    def refused(address: str) -> str:
        with pytest.raises((StoreError, DataError, ConfigError)) as raised:
            FeatureStore(address, QUICK)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    address = upload(server, local)
    assert "/bucket/none is no feature store: no img_emb/img_emb_*.npy in it" in refused(f"{server.url}/bucket/none")
    assert "cannot have a signature after '?'" in refused(f"{address}?sig=secret")
    assert "secret" not in refused(f"{address}?sig=secret")
    with_password = address.replace("://", "://me:secret@")
    assert "write a line 'machine 127.0.0.1 login … password …' to ~/.netrc" in refused(with_password)
    assert "secret" not in refused(with_password)
    server.tagged = False
    assert "tells no version of it (an ETag or a time)" in refused(address)
    server.tagged, server.ranged = True, False
    assert "img_emb_00.npy: its server sends whole files only (no HTTP ranges): copy the store to a disk" in refused(
        address
    )
    server.ranged, server.token = True, "t"
    assert f"{address}/img_emb/ answers 401" in refused(address)
    server.token = None
    server.files["/bucket/emb/img_emb/img_emb_00.npy"] = b"<html>not an array</html>"
    assert f"{address}/img_emb/img_emb_00.npy is no .npy array" in refused(address)
    upload(server, local)
    np.save(local / "text_emb" / "text_emb_00.npy", np.zeros((3, DIM), np.float16))
    upload(server, local)
    assert f"{address}: rows 30 in img_emb/img_emb_00.npy, 3 in text_emb/text_emb_00.npy" in refused(address)
    server.files.pop("/bucket/emb/text_emb/text_emb_03.npy")
    assert f"{address}: img_emb/img_emb_03.npy has no counterpart in text_emb/, where text_emb_03.npy" in refused(
        address
    )
    unreachable = refused("http://127.0.0.1:9/emb")
    assert "cannot reach http://127.0.0.1:9/emb/img_emb/" in unreachable
    assert unreachable.endswith("try again later, or give a copy on this machine")


def test_errors_of_object_stores(s3: S3Server, local: Path) -> None:
    upload(s3, local)
    with pytest.raises(StoreError, match="s3://none/emb is no feature store: no img_emb"):
        FeatureStore("s3://none/emb", QUICK)
    s3.private = {"bucket"}
    with pytest.raises(DataError, match=r"s3://bucket/emb/img_emb cannot be read \(PermissionError.*set credentials"):
        FeatureStore("s3://bucket/emb", QUICK)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(
        DataError, match="s3://bucket/emb/img_emb needs a package that is not installed: pip install s3fs"
    ):
        FeatureStore("s3://bucket/emb")


def test_errors_of_the_hub(server: FlakyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(DataError, match=r"cannot list hf://datasets/org/gone/emb \(.*HF_TOKEN"):
        FeatureStore("hf://datasets/org/gone/emb", QUICK)
    with pytest.raises(ConfigError, match="hf://name/. is no file on the hub"):
        HubFolder("hf://name")


def test_the_dataset_option_keeps_an_index(server: FlakyServer, local: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    server.files["/bucket/emb/5.jpg"] = buffer.getvalue()
    address = upload(server, local)
    option = ExistingStore(path=address, split="all", cache=str(tmp_path / "blocks"), cache_limit=1, retries=1)
    artifacts = Artifacts(tmp_path / "artifacts")
    made = option.feature_store(artifacts, "clip")
    assert made.built
    assert made.path.name.startswith("clip-emb-")
    assert option.dim_of(None) == DIM
    assert_same(option.opened(made), FeatureStore(local))
    source = option.source("all")
    assert source.remote
    assert source.fetch("5.jpg").image.getpixel((0, 0)) == (255, 0, 0)
    again = ExistingStore(path=address, split="all")
    assert not again.feature_store(artifacts, "clip").built
    shutil.copy(local / "img_emb" / "img_emb_00.npy", local / "text_emb" / "text_emb_00.npy")
    upload(server, local)
    changed = ExistingStore(path=address, split="all").feature_store(artifacts, "clip")
    assert changed.built
    assert changed.digest != made.digest
    for wrong in ({"cache": True}, {"cache_limit": 0.0}, {"cache_limit": float("nan")}, {"retries": -1}):
        with pytest.raises(ConfigError, match=r"dataset\.(cache|cache_limit|timeout)="):
            ExistingStore(path=address, **wrong)  # type: ignore[arg-type]


def test_a_bucket_that_refuses_what_is_not_there(server: FlakyServer, local: Path) -> None:
    """S3 and its like answer 403 for absent files where a reader may not list the bucket."""
    server.absent = 403
    shutil.rmtree(local / "metadata")
    remote = FeatureStore(upload(server, local), QUICK)
    for modality in MODALITIES:
        assert torch.equal(remote.read(modality, 0, len(remote)), FeatureStore(local).read(modality, 0, sum(SIZES)))
    with pytest.raises(BrokenPartError, match="403 Forbidden: it may not be read, or its signature has expired"):
        FeatureStore(f"{server.url}/nowhere", QUICK)
    with pytest.raises(BrokenPartError, match="403"):
        RemoteStore(f"{server.url}/bucket/em", QUICK.remote)


def test_a_corrected_manifest_makes_another_index(server: FlakyServer, local: Path, tmp_path: Path) -> None:
    artifacts, address = Artifacts(tmp_path / "artifacts"), upload(server, local)
    before = ExistingStore(path=address, split="all").feature_store(artifacts, "clip")
    manifest = Manifest("clip", "", "emb", "", DIM, sum(SIZES), "float32", "")
    server.files["/bucket/emb/manifest.json"] = json.dumps(asdict(manifest)).encode()
    after = ExistingStore(path=address, split="all").feature_store(artifacts, "clip")
    assert after.built
    assert after.digest != before.digest


def test_each_process_looks_at_the_room_with_its_first_block(tmp_path: Path) -> None:
    first = DiskCache(tmp_path, 10_000, "emb")
    for number in range(9):
        first.write(str(number), bytes(900))
    for number in range(9, 18):  # each in a process of its own, which writes less than a tenth of the limit
        DiskCache(tmp_path, 10_000, "emb").write(str(number), bytes(900))
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= 10_000


def test_whatever_names_a_store_has_a_fingerprint(server: FlakyServer, local: Path, tmp_path: Path) -> None:
    address = upload(server, local)
    (tmp_path / "index").mkdir()
    RemoteStore(address, QUICK.remote).write(tmp_path / "index")
    before = [content_fingerprint(path) for path in (address, tmp_path / "index")]
    assert before[0] == RemoteStore(address, QUICK.remote).fingerprint
    server.files["/bucket/emb/img_emb/img_emb_00.npy"] = server.files["/bucket/emb/text_emb/text_emb_00.npy"]
    RemoteStore(address, QUICK.remote).write(tmp_path / "index")
    after = [content_fingerprint(path) for path in (address, tmp_path / "index")]
    assert len({*before, *after}) == 4


def test_a_plan_reads_no_more_than_it_needs(server: FlakyServer, local: Path, tmp_path: Path) -> None:
    from mmmono.core.artifacts import FinishedArtifacts

    option = ExistingStore(path=upload(server, local), split="all")
    with pytest.raises(MissingArtifactError):
        option.feature_store(FinishedArtifacts(tmp_path), "clip")
    assert option.expected_pairs("all") is None
    assert option.dim_of(None) == DIM
    assert sum(request.sent for request in server.requests) < 5000
