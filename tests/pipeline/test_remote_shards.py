"""Extraction through the entrypoint from a server that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmmono.features import FeatureStore
from tests.data.flaky_server import Fault, FlakyServer, flaky_server
from tests.data.test_tar import Member, archive
from tests.data.test_webdataset import jpeg
from tests.pipeline.conftest import Command, newest

MODEL = ("model=open_clip", "model.architecture=ViT-S-32-alt", "model.pretrained=null", "model.name=random")


def shard(number: int, broken: int = 0) -> bytes:
    """Six pairs, the first `broken` of which cannot be decoded."""
    members = []
    for i in range(6):
        members.append(Member(f"{i}.jpg", b"broken" if i < broken else jpeg((40 * i, 50 * number, 9), 32)))
        members.append(Member(f"{i}.txt", f"image {i} of {number}".encode()))
    return archive(members)


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    with flaky_server() as served:
        served.files = {f"/s-{i}.tar": shard(i) for i in range(4)}
        yield served


def arguments(server: FlakyServer, artifacts: Path) -> tuple[str, ...]:
    shards = f"dataset.shards={server.url}/s-{{0..3}}.tar"
    return (f"artifacts={artifacts}", *MODEL, "dataset=webdataset", "dataset.split=all", "dataset.retries=1", shards)


def store_of(artifacts: Path) -> Path:
    (found,) = (path for path in (artifacts / "features").iterdir() if path.is_dir())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_lost_a_shard_says_so_and_the_next_one_reads_it_alone(
    command: Command, server: FlakyServer, tmp_path: Path, workers: int
) -> None:
    undisturbed = command("extract", *arguments(server, tmp_path / "a"))
    assert undisturbed.status == 0, undisturbed.err
    server.faults = [Fault(after=3000, path="s-0"), Fault(429, {"Retry-After": "0"}, path="s-1")]
    server.faults += [Fault(503, path="s-2") for _ in range(2)]
    mine = (*arguments(server, tmp_path / "b"), f"extraction.workers={workers}")
    disturbed = command("extract", *mine)
    assert disturbed.status == 1
    (line,) = (line for line in disturbed.err.splitlines() if line.strip())
    assert line.startswith(
        f"error: 1 of 4 shards with about 6 pairs could not be read to their end: {server.url}/s-2.tar"
    )
    assert store_of(tmp_path / "b").suffix == ".partial"
    server.requests.clear()
    again = command("extract", *mine)
    assert again.status == 0, again.err
    assert {request.path for request in server.requests} == {"/s-2.tar"}
    one, two = store_of(tmp_path / "a"), store_of(tmp_path / "b")
    assert one.name == two.name
    for name in ("manifest.json", "img_emb", "text_emb", "metadata"):
        files = [one / name] if (one / name).is_file() else sorted((one / name).iterdir())
        assert files
        assert all(file.read_bytes() == (two / file.relative_to(one)).read_bytes() for file in files)


@pytest.mark.slow
def test_limits_on_losses_hold_for_features_that_are_there(
    command: Command, server: FlakyServer, tmp_path: Path
) -> None:
    server.files["/s-1.tar"] = shard(1, broken=2)
    server.files.pop("/s-3.tar")
    mine = arguments(server, tmp_path)
    made = command("extract", *mine, "extraction.max_broken_shards=1")
    assert made.status == 0, made.err
    shown = " ".join(made.out.split())
    assert "skipped 2 unreadable pairs" in shown
    assert "for example s-1/0" in shown
    assert "went without 1 shards, about 5 pairs" in shown
    manifest = FeatureStore(store_of(tmp_path)).manifest
    assert manifest is not None
    assert (manifest.count, manifest.skipped, manifest.missing) == (16, 2, 5)
    assert list(manifest.broken) == [f"{server.url}/s-3.tar"]
    stricter = command("extract", *mine)
    assert stricter.status == 1
    assert "without 1 shards" in stricter.err
    stricter = command("extract", *mine, "extraction.max_broken_shards=1", "extraction.max_skipped=0")
    assert stricter.status == 1
    assert "2 of 18 pairs could not be read" in stricter.err


@pytest.mark.slow
def test_results_are_of_the_features_that_are_there_now(command: Command, server: FlakyServer, tmp_path: Path) -> None:
    whole = dict(server.files)
    lossy = {path: file for path, file in whole.items() if path != "/s-0.tar"}
    replaced = {**whole, "/s-0.tar": shard(9)}
    mine, results = arguments(server, tmp_path), set()
    for server.files, pairs in ((lossy, 18), (whole, 24), (replaced, 24)):
        allowed = (*mine, "extraction.max_broken_shards=1")
        assert command("extract", *allowed, "+force=true").status == 0
        run = command("mds", *allowed, "features=raw")
        assert run.status == 0, run.err
        assert f"{pairs} pairs" in " ".join(run.out.split())
        results.add(newest(tmp_path, "mds"))
    assert len(results) == 3


@pytest.mark.slow
def test_validation_shards_are_kept_for_other_models_and_training_shards_where_the_cache_is_asked_for(
    command: Command, server: FlakyServer, tmp_path: Path
) -> None:
    *mine, shards = arguments(server, tmp_path)
    mine += [shards.replace("0..3", "0..2"), f"dataset.val_shards={server.url}/s-3.tar", "dataset.limit=4"]
    for split, kept in (("val", 1), ("train", 0)):
        for seed in (0, 1):
            server.requests.clear()
            run = command("extract", *mine, f"dataset.split={split}", f"model.seed={seed}")
            assert run.status == 0, run.err
            assert bool(server.requests) != (kept == 1 and seed == 1)
            assert ("1 copies of shards" in " ".join(run.out.split())) == (kept == 1)
    assert len(list((tmp_path / "shards").glob("*/*.tar"))) == 1
    run = command("extract", *mine, "dataset.split=train", "model.seed=2", f"dataset.cache={tmp_path}/mine")
    assert run.status == 0, run.err
    assert len(list((tmp_path / "mine").glob("*/s-0.tar"))) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_are_one_line_with_and_without_workers(command: Command, tmp_path: Path, workers: int) -> None:
    shards = "dataset.shards=http://127.0.0.1:9/x.tar"
    run = command(
        "extract", f"artifacts={tmp_path}", *MODEL, "dataset=webdataset", shards, f"extraction.workers={workers}"
    )
    assert run.status == 1
    (line,) = (line for line in run.err.splitlines() if line.strip())
    assert line.startswith("error: cannot reach http://127.0.0.1:9/x.tar")
