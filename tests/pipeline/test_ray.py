"""Extraction and scores by `engine=ray`, through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from mmmono.features import folding
from mmmono.features.cluster import Cluster
from tests.data.flaky_server import Fault, FlakyServer, flaky_server
from tests.pipeline.conftest import Command, newest
from tests.pipeline.test_remote_shards import MODEL, arguments, shard, store_of
from tests.pipeline.test_shares import start

RAY = ("engine=ray", "engine.address=local", "engine.workers=2", "engine.cpus=1")


@pytest.fixture
def server() -> Iterator[FlakyServer]:
    with flaky_server() as served:
        served.files = {f"/s-{i}.tar": shard(i) for i in range(4)}
        yield served


def wait_for_file(file: Path, driver: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 500
    while not file.exists():
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_workers_make_the_store_and_the_scores_of_one_process_though_one_is_killed_in_mid_part(
    command: Command, server: FlakyServer, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="the ray extra brings it")
    whole = command("extract", *arguments(server, tmp_path / "whole"))
    assert whole.status == 0, whole.err
    server.faults = [Fault(after=3000, how="stall", seconds=600, path="s-2")]
    mine = arguments(server, tmp_path / "ray")
    driver = start(*mine, *RAY, log=tmp_path / "log")
    try:
        address = store_of(tmp_path / "whole").name
        claims = tmp_path / "ray" / "features" / f"{address}.partial" / "work" / "claims"
        wait_for_file(claims / "2.0", driver, tmp_path / "log")
        while not (owner := (claims / "2.0").read_text()):
            time.sleep(0.01)
        server.faults.clear()
        os.kill(json.loads((claims / f"{owner}.alive").read_text())["pid"], signal.SIGKILL)
        assert driver.wait(500) == 0, (tmp_path / "log").read_text()
    finally:
        driver.kill()
    one, two = store_of(tmp_path / "whole"), store_of(tmp_path / "ray")
    assert one.name == two.name
    files = {file.relative_to(one) for file in one.rglob("*") if file.is_file()}
    assert files == {file.relative_to(two) for file in two.rglob("*") if file.is_file()}
    same = [file for file in files if file.name not in ("timing.json", "versions.json")]
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in same)

    tables = []
    for root in ("whole", "ray"):
        run = command("mds", *arguments(server, tmp_path / root), "features=raw", "mds.min_pairs=1")
        assert run.status == 0, run.err
        tables.append({file.name: pd.read_parquet(file) for file in newest(tmp_path / root, "mds").glob("*.parquet")})
    assert tables[0].keys() == tables[1].keys() != set()
    for name, table in tables[0].items():
        pd.testing.assert_frame_equal(table, tables[1][name], check_exact=True)


@pytest.fixture
def nodes() -> Iterator[str]:
    """Address of a cluster of two nodes with one core each."""
    ray = pytest.importorskip("ray", reason="the ray extra brings it")
    from ray.cluster_utils import Cluster as Nodes

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Nodes(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_tables_of_two_nodes_are_those_of_one_process_though_a_worker_is_killed(
    command: Command, nodes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that `certainty` shows: scores, sharedness, resamples and energies; and `mds`, with the modality gap."""
    monkeypatch.setattr(folding, "RANGE", 512)
    given: list[int] = []
    give = Cluster.give

    def killing(cluster: Cluster, task: tuple[int, slice]) -> None:
        give(cluster, task)
        given.append(task[0])
        if len(given) == 2:
            cluster.ray.kill(list(cluster.running.values())[-1][0])

    monkeypatch.setattr(Cluster, "give", killing)
    synthetic = ("dataset=synthetic", "dataset.pairs=1600", "dataset.dim=16", "dataset.split=all", "features=raw")
    draws = ("certainty.n_permutations=100", "certainty.n_bootstrap=50")
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    for engine, settings in (("local", []), ("ray", [f"engine.address={nodes}"])):
        tables[engine] = {}
        for analysis, more in (("mds", ()), ("certainty", draws)):
            root = tmp_path / engine
            run = command(analysis, f"artifacts={root}", *synthetic, f"engine={engine}", *settings, *more)
            assert run.status == 0, run.err
            files = newest(root, analysis).glob("*.parquet")
            tables[engine] |= {f"{analysis}/{file.name}": pd.read_parquet(file) for file in files}
    assert given.count(1) > given.count(0)  # the range whose worker was killed was folded again
    assert tables["local"].keys() == tables["ray"].keys() != set()
    for name, table in tables["local"].items():
        pd.testing.assert_frame_equal(table, tables["ray"][name], check_exact=True)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["engine=ray", "engine.gpus=2"], "engine.gpus=2, but an encoder uses one GPU"),
        (["engine=ray", "engine.workers=0"], "engine.workers=0"),
        (["engine=ray", "extraction.part_of=1/2"], "the cluster shares out the shards by itself"),
        (["engine=ray", "dataset.limit=5"], "dataset.limit=5 cannot be shared"),
    ],
)
def test_what_cannot_be_run_on_a_cluster_is_one_line(
    command: Command, tmp_path: Path, settings: list[str], line: str
) -> None:
    (tmp_path / "s-0.tar").write_bytes(shard(0))
    shards = ["dataset=webdataset", f"dataset.shards={tmp_path}/s-0.tar"]
    run = command("extract", f"artifacts={tmp_path}/a", *MODEL, *shards, *settings)
    assert run.status == 1
    (said,) = run.err.splitlines()
    assert line in said
