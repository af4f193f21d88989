"""One store extracted by several commands at once, each with a share of the shards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmmono.pipeline.extracting import FeatureExtraction
from mmmono.pipeline.model import Model
from tests.data.flaky_server import Fault, FlakyServer, flaky_server
from tests.pipeline.conftest import REPOSITORY, Command
from tests.pipeline.test_remote_shards import MODEL, arguments, shard, store_of


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    with flaky_server() as served:
        served.files = {f"/s-{i}.tar": shard(i, broken=int(i == 1)) for i in range(4)}
        yield served


def start(*settings: str, log: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPOSITORY / "experiments" / "extract.py"), *settings]
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment)


@pytest.mark.slow
def test_two_shares_with_one_killed_in_mid_part_and_run_again_make_the_store_of_one_process(
    command: Command, server: FlakyServer, tmp_path: Path
) -> None:
    whole = command("extract", *arguments(server, tmp_path / "whole"))
    assert whole.status == 0, whole.err
    server.requests.clear()
    server.faults = [Fault(after=3000, how="stall", seconds=600, path="s-2")]
    mine = arguments(server, tmp_path / "shared")
    first = start(*mine, "extraction.part_of=1/2", log=tmp_path / "first")
    second = start(*mine, "extraction.part_of=2/2", log=tmp_path / "second")
    assert second.wait(300) == 0, (tmp_path / "second").read_text()
    said = (tmp_path / "second").read_text()
    assert "done; the features are not complete yet: the process that" in said
    assert re.search(r"not done yet, [1-4] of 4 shards: .*s-2", said)
    partial = store_of(tmp_path / "shared")
    until = time.monotonic() + 300
    while not (partial / "work" / "claims" / "2.0").exists():
        assert first.poll() is None, (tmp_path / "first").read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert partial.suffix == ".partial"
    assert sorted(file.stem for file in (partial / "reports").iterdir()) == ["0", "1", "3"]

    server.faults.clear()
    server.requests.clear()
    again = command("extract", *mine, "extraction.part_of=1/2")
    assert again.status == 0, again.err
    assert {request.path for request in server.requests} == {"/s-2.tar"}
    assert "skipped 1 unreadable pairs" in " ".join(again.out.split())
    assert same_stores(store_of(tmp_path / "whole"), store_of(tmp_path / "shared"))


def same_stores(one: Path, two: Path) -> bool:
    """Whether two stores have one address and the same bytes."""
    names = [{file.relative_to(of) for file in of.rglob("*") if file.is_file()} for of in (one, two)]
    same = [name for name in names[0] if name.name not in ("timing.json", "versions.json")]
    bytes_of = [[(of / name).read_bytes() for name in same] for of in (one, two)]
    return one.name == two.name and names[0] == names[1] and bytes_of[0] == bytes_of[1]


@pytest.mark.slow
def test_shares_with_different_settings_are_told_that_none_of_their_stores_will_be_complete(
    command: Command, server: FlakyServer, tmp_path: Path
) -> None:
    mine = arguments(server, tmp_path)
    first = command("extract", *mine, "extraction.part_of=1/2")
    assert (first.status, "is not complete either" in first.out) == (0, False)
    begun = store_of(tmp_path)
    second = command("extract", *mine, "extraction.part_of=2/2", "extraction.dtype=float32")
    assert second.status == 0
    said = " ".join(second.out.split())
    assert f"{begun} is not complete either: if another share made it, its settings differ" in said.replace("- ", "-")


@pytest.mark.slow
def test_a_share_without_shards_says_so_loads_no_model_and_finishes_what_is_done(
    command: Command, server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = arguments(server, tmp_path)

    def unneeded(*_: object) -> None:
        raise AssertionError("the model is loaded")

    with monkeypatch.context() as patched:
        patched.setattr(Model, "load_checked", unneeded)
        run = command("extract", *mine, "extraction.part_of=7/64")
    assert run.status == 0, run.err
    said = " ".join(run.out.split())
    assert "share 7/64 has none of the 4 shards; the features are not complete yet: the process" in said
    assert not said.startswith("done")
    with monkeypatch.context() as patched:
        patched.setattr(FeatureExtraction, "_complete", interrupted)
        assert command("extract", *mine, "extraction.part_of=1/1").status == 130
    run = command("extract", *mine, "extraction.part_of=5/5")
    assert f"made {store_of(tmp_path)}" in "".join(run.out.split("\n")), run.out


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_two_devices_make_the_store_of_one(command: Command, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"s-{number}.tar").write_bytes(shard(number, broken=number == 1))
    shards = [*MODEL, "dataset=webdataset", "dataset.split=all", f"dataset.shards={tmp_path}/s-{{0..2}}.tar"]
    for devices in ("1", "2"):
        run = command("extract", f"artifacts={tmp_path / devices}", *shards, f"extraction.devices={devices}")
        assert run.status == 0, run.err
        assert "skipped 1 unreadable pairs" in " ".join(run.out.split())
    assert same_stores(store_of(tmp_path / "1"), store_of(tmp_path / "2"))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["extraction.part_of=3"], "extraction.part_of=3 is no share: give one from 1/64 to 64/64"),
        (["extraction.part_of=slurm"], "SLURM_ARRAY_TASK_ID is not set"),
        (["extraction.part_of=1/2", "dataset.limit=5"], "dataset.limit=5 cannot be shared"),
        (
            ["extraction.part_of=1/2", "dataset=synthetic", "dataset.pairs=50"],
            "its features are not extracted from pairs",
        ),
        (["extraction.devices=2", "dataset.limit=5"], "dataset.limit=5 cannot be shared"),
        (["extraction.devices=2", "extraction.part_of=1/2"], "give each device a share of its own"),
        (["extraction.devices=2", "engine=ray"], "engine.workers says how many work"),
        (["extraction.devices=-1", "device=cpu"], "extraction.devices=-1 means all GPUs, but device=cpu"),
        (["extraction.devices=0"], "devices=0 is neither a number of devices nor -1"),
        (["extraction.part_of=1/2", "+force=true"], "several processes cannot rebuild one artifact with +force=true"),
    ],
)
def test_what_cannot_be_shared_is_one_line(command: Command, tmp_path: Path, settings: list[str], line: str) -> None:
    (tmp_path / "s-0.tar").write_bytes(shard(0))
    shards = ["dataset=webdataset", f"dataset.shards={tmp_path}/s-0.tar"]
    chosen = settings if "dataset=synthetic" in settings else [*shards, *settings]
    run = command("extract", f"artifacts={tmp_path}/a", *MODEL, *chosen)
    assert run.status == 1
    (said,) = run.err.splitlines()
    assert line in said
