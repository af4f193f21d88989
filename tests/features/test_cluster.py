"""Extraction by the workers of a Ray cluster of two nodes on this machine."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mmmono.core.errors import ConfigError, DataError, ModelError, ProcessError
from mmmono.features import FeatureStore, FeatureView, RawFeatures, cluster_folds, extract_features, part_queue
from mmmono.features.cluster import Cluster, ClusterSettings
from mmmono.features.cluster_extraction import ClusterJob, Worker, extract_on_cluster
from mmmono.features.extraction import begin_store
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.folding import OfBlocks, Threads, Together, Walk, folded, pairs, stored_pairs
from mmmono.modality import DominanceStream, GapStream
from mmmono.modality.resampling import ResamplingStream
from mmmono.pipeline.engines import Ray
from tests.fakes import ColorEncoder, ColorPairs
from tests.features.cluster_fakes import Absent, KillsItsFolder, KillsItsProcess, Unloadable
from tests.features.test_extraction import contents
from tests.features.test_folds import bits
from tests.features.test_store import write_like_clip_retrieval

ray = pytest.importorskip("ray", reason="the ray extra brings it")
AuthenticationError = ray.exceptions.AuthenticationError
SIZES = KillsItsProcess.SIZES
SETTINGS = ExtractionSettings(workers=0)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two nodes with one core each."""
    from ray.cluster_utils import Cluster as Nodes

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    nodes = Nodes(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    nodes.add_node(**node)
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()


def job(source: ColorPairs, folder: Path, load: type[ColorEncoder] = ColorEncoder) -> ClusterJob:
    begin_store(source, folder, SETTINGS)
    return ClusterJob(source, load, folder, "cpu", SETTINGS)


def test_a_cluster_writes_the_store_of_one_process_though_a_worker_is_killed(address: str, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    source = KillsItsProcess(marks, part=4, times=1)
    assert extract_on_cluster(job(source, tmp_path / "cluster"), ClusterSettings(address))
    assert len(list(marks.iterdir())) == 1
    owners = {file.read_text() for file in (tmp_path / "cluster" / "work" / "claims").glob("*.1")}
    assert len(owners) >= 2
    idle = ColorPairs(SIZES)
    extract_features(idle, ColorEncoder(), tmp_path / "cluster")
    assert idle.reads == []
    extract_features(ColorPairs(SIZES), ColorEncoder(), tmp_path / "alone")
    assert contents(tmp_path / "cluster") == contents(tmp_path / "alone")


def test_a_cluster_folds_ranges_to_the_bits_of_one_process_though_a_worker_is_killed(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is killed twice; a range that ends its workers too often is named."""
    marks = tmp_path / "marks"
    marks.mkdir()
    write_like_clip_retrieval(tmp_path / "store", [300, 500, 250], 6)
    store = FeatureStore(tmp_path / "store")
    killing = KillsItsFolder(6, marks, store.read("text", 512, 513)[0].float(), times=2)
    walk = Walk(FeatureView(store), killing, normalize=False, rows=256)

    def streams() -> Together:
        return Together(OfBlocks(DominanceStream(), stored_pairs), OfBlocks(ResamplingStream(20, 10, 2), pairs))

    found = bits(folded(streams(), walk, Ray(address)).result())
    assert len(list(marks.iterdir())) == 2
    assert found == bits(folded(streams(), replace(walk, feature_set=RawFeatures(6)), Threads(2)).result())
    killing.times = 9
    monkeypatch.setattr(cluster_folds, "TRIES", 1)
    with pytest.raises(DataError, match=rf"^pairs 512 to 767 of {tmp_path}/store ended the process .* 1 times"):
        folded(streams(), walk, Ray(address, workers=1))
    assert len(list(marks.iterdir())) == 3
    gone = replace(walk, view=FeatureView(FeatureStore(tmp_path / "store")), feature_set=None)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(
        ProcessError, match=f"does not see {tmp_path}/store: it must lie on a disk that all machines share"
    ):
        folded(OfBlocks(GapStream(), pairs), gone, Ray(address, workers=1))


def test_workers_without_room_do_not_hold_parts_for_ever(address: str, tmp_path: Path) -> None:
    """Two cores for three workers, as after the loss of a machine: the third takes the place of one that is done."""
    assert extract_on_cluster(job(ColorPairs(SIZES), tmp_path / "cluster"), ClusterSettings(address, workers=3))
    assert len(list((tmp_path / "cluster" / "reports").iterdir())) == len(SIZES)


def test_who_waits_for_a_machine_says_so_once(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = job(ColorPairs(SIZES), tmp_path / "large")
    with Cluster(ClusterSettings(address, workers=1)) as cluster:
        cluster.hire(Worker, large, cpus=3)
        cluster.give([0])
        for _ in range(3):
            assert not list(cluster.ended())
    (said,) = capsys.readouterr().err.splitlines()
    assert "have 1 CPUs and 0 GPUs, 1 CPUs and 0 GPUs, too few for a worker with 3 and 0: waiting for a machine" in said


def test_a_machine_alone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Cluster, "_connect", lambda cluster: None)
    monkeypatch.setattr(Cluster, "machines", lambda cluster: [{"CPU": 2.0}])
    with pytest.raises(ConfigError, match=r"a worker with 4 and 0: lower engine\.cpus or extraction\.workers$"):
        extract_on_cluster(job(ColorPairs(SIZES), tmp_path), ClusterSettings("local", workers=2, cpus=4))


def test_a_part_that_ends_its_processes_is_named_and_left_for_the_next_run(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_queue, "TRIES", 2)  # a process takes a while to begin
    marks = tmp_path / "marks"
    marks.mkdir()
    source = KillsItsProcess(marks, part=0, times=2)
    with pytest.raises(DataError, match=r"^1 of 8 shards ended the process .* 2 times: part-0 \(.*\)\. The others"):
        extract_on_cluster(job(source, tmp_path / "cluster"), ClusterSettings(address))
    assert len(list(marks.iterdir())) == 2
    assert len(list((tmp_path / "cluster" / "reports").iterdir())) == len(SIZES) - 1


def test_what_workers_raise_comes_out_as_it_is(address: str, tmp_path: Path) -> None:
    broken = ColorPairs(SIZES, cut={1: 3})
    assert extract_on_cluster(job(broken, tmp_path / "broken"), ClusterSettings(address, workers=1))
    with pytest.raises(DataError, match="1 of 8 shards .*part-1 is cut off"):
        extract_features(broken, ColorEncoder(), tmp_path / "broken")
    with pytest.raises(ModelError, match="^these weights are broken$"):
        extract_on_cluster(job(ColorPairs(SIZES), tmp_path / "model", Unloadable), ClusterSettings(address, workers=1))
    other = replace(job(ColorPairs(SIZES), tmp_path / "other"), versions={"mmmono": "0.0.1"})
    with pytest.raises(ProcessError, match=r"has mmmono .*, not 0\.0\.1: install the same everywhere"):
        extract_on_cluster(other, ClusterSettings(address, workers=1))
    with pytest.raises(ProcessError, match="a worker of the cluster cannot begin.*a_package_that_is_not_there"):
        extract_on_cluster(job(Absent(SIZES), tmp_path / "absent"), ClusterSettings(address, workers=1))
    with pytest.raises(ConfigError, match="too few for a worker with 3 and 0: lower engine.cpus"):
        extract_on_cluster(job(ColorPairs(SIZES), tmp_path / "room"), ClusterSettings(address, cpus=3))


def test_without_a_cluster_it_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.address=127\.0\.0\.1:9: no Ray cluster to join .*ray start --head"):
        extract_on_cluster(job(ColorPairs(SIZES), tmp_path), ClusterSettings("127.0.0.1:9"))


@pytest.mark.parametrize(
    "error", [RuntimeError("Version mismatch:\n  Ray: 1.0"), AuthenticationError("Ray: 1.0: a token is missing")]
)
def test_a_cluster_that_lets_nobody_in_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ray.init", refused)
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = ClusterSettings(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(
            ConfigError, match=r"what answers there \(.*Ray: 1\.0.*the same token with RAY_AUTH_MODE=token"
        ):
            extract_on_cluster(job(ColorPairs(SIZES), tmp_path), settings)


@pytest.mark.parametrize(
    "setting",
    [{"address": ""}, {"address": "ray://head:10001"}, {"workers": 0}, {"cpus": 0}, {"gpus": -1}, {"gpus": 2}],
)
def test_settings_that_cannot_work_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^engine.{next(iter(setting))}="):
        ClusterSettings(**setting)  # type: ignore[arg-type]
