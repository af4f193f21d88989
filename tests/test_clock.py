"""Where the time of a make target went."""

import json
import time
from pathlib import Path

import pytest

from mmmono.commands.clock import time_line
from mmmono.commands.make import artifacts_root
from mmmono.core.artifacts import Artifacts
from mmmono.core.timing import TIMING_FILE, Timing, read_timing, timed


def test_an_artifact_built_within_another_is_counted_once(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)

    def inner(folder: Path) -> None:
        time.sleep(0.2)

    def outer(folder: Path) -> None:
        artifacts.build("towers", "a-b", {"is": "inner"}, inner)
        time.sleep(0.1)

    outside = read_timing(artifacts.build("features", "a", {"is": "outer"}, outer).path)
    within = read_timing(artifacts.build("towers", "a-b", {"is": "inner"}, inner).path)
    assert outside is not None
    assert within is not None
    assert within.own == within.seconds >= 0.2
    assert outside.seconds >= 0.3
    assert 0.1 <= outside.own < outside.seconds - 0.19
    assert artifacts.build("features", "b", {"is": "alone"}, inner).built
    alone = read_timing(next(artifacts.find("features", "b-*")).path)
    assert alone is not None
    assert alone.inside == 0


def test_the_time_of_an_interrupted_attempt_is_not_that_of_the_next_command(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)

    def interrupted(folder: Path) -> None:
        time.sleep(0.4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifacts.build("dictionaries", "a", {"is": "long"}, interrupted, resumable=True)
    made = artifacts.build("dictionaries", "a", {"is": "long"}, lambda _: time.sleep(0.1), resumable=True)
    found = read_timing(made.path)
    assert found is not None
    assert found.seconds == found.own >= 0.5
    assert found.latest == pytest.approx(found.own - found.earlier)
    assert 0.09 < found.latest < 0.4 < found.own


def test_a_time_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / TIMING_FILE).write_text(json.dumps({"seconds": 3.0, "machine": "it"}))
    assert read_timing(tmp_path) == Timing(3.0, "it")


def test_stages_are_told_the_longest_first(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    times = {
        ("results", "mds-x"): 2.6,
        ("features", "m-d"): 30.2,
        ("dictionaries", "sae-x"): 7.0,
        ("partitions", "p"): 0.2,
    }
    for (kind, name), seconds in times.items():
        folder = artifacts.build(kind, name, {"version": 3 if kind == "partitions" else 1}, lambda _: None).path
        (folder / TIMING_FILE).write_text(json.dumps({"seconds": seconds, "machine": "it"}))
    line = time_line(artifacts, time.time() - 60, 50)
    assert line == (
        "time: 50 s, of which features/m 30 s, dictionaries/sae 7 s, results/mds 3 s, imports, figures and the rest 10 s"
    )
    assert time_line(artifacts, time.time() + 60, 50) == ""


def test_times_of_processes_that_share_the_work_add_up(tmp_path: Path) -> None:
    for _ in range(3):  # each in a file of its own: none waits for another, and none is lost
        with timed(tmp_path, shared=True):
            time.sleep(0.05)
    assert len(list(tmp_path.glob("timing-*.json"))) == 3
    with timed(tmp_path):
        time.sleep(0.05)
    assert [file.name for file in tmp_path.iterdir()] == [TIMING_FILE]
    found = read_timing(tmp_path)
    assert found is not None
    assert found.seconds >= 0.2


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ([], "artifacts"),
        (["features=raw", "artifacts='/data/my run'"], "/data/my run"),
        (["artifacts=${oc.env:SCRATCH}/x"], "/scratch/x"),
        (["artifacts=a", "artifacts=b"], "b"),
    ],
)
def test_the_root_is_read_as_hydra_reads_it(monkeypatch: pytest.MonkeyPatch, given: list[str], root: str) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch")
    assert artifacts_root(given) == root
