"""Extraction by a process for each device of this machine, here the CPU twice."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmmono.core.errors import DataError, ModelError, ProcessError
from mmmono.features import extract_features, part_queue
from mmmono.features.cluster_extraction import ClusterJob, extract_on_devices
from mmmono.features.extraction import begin_store
from mmmono.features.extraction_settings import ExtractionSettings
from tests.fakes import ColorEncoder, ColorPairs
from tests.features.cluster_fakes import KillsItsProcess, colors, misses_a_file, unloadable
from tests.features.test_extraction import contents

SIZES = KillsItsProcess.SIZES
SETTINGS = ExtractionSettings(workers=0)
TWO = ["cpu", "cpu"]


def job(source: ColorPairs, folder: Path) -> ClusterJob:
    begin_store(source, folder, SETTINGS)
    return ClusterJob(source, ColorEncoder, folder, "cpu", SETTINGS)


@pytest.mark.slow
def test_two_devices_write_the_store_of_one_process_though_a_worker_is_killed(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    source = KillsItsProcess(marks, part=4, times=2)
    assert extract_on_devices(job(source, tmp_path / "two"), colors, TWO)
    assert len(list(marks.iterdir())) == 2
    idle = ColorPairs(SIZES)
    extract_features(idle, ColorEncoder(), tmp_path / "two")
    assert idle.reads == []
    extract_features(ColorPairs(SIZES), ColorEncoder(), tmp_path / "alone")
    assert contents(tmp_path / "two") == contents(tmp_path / "alone")


@pytest.mark.slow
def test_a_part_that_ends_its_processes_is_named_and_left_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_queue, "TRIES", 1)  # a process takes a while to begin
    marks = tmp_path / "marks"
    marks.mkdir()
    with pytest.raises(
        DataError, match=r"^1 of 8 shards ended the process .* 1 times: part-0 \(exit status -9\)\. The others"
    ):
        extract_on_devices(job(KillsItsProcess(marks, part=0, times=9), tmp_path / "two"), colors, TWO)
    assert len(list((tmp_path / "two" / "reports").iterdir())) == len(SIZES) - 1


@pytest.mark.slow
def test_what_workers_raise_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="^these weights are broken$"):
        extract_on_devices(job(ColorPairs(SIZES), tmp_path / "model"), unloadable, ["cpu"])
    with pytest.raises(ProcessError, match="^a worker process ended with KeyError: 'a file'"):
        extract_on_devices(job(ColorPairs(SIZES), tmp_path / "other"), misses_a_file, ["cpu"])


@pytest.mark.slow
def test_workers_that_read_in_processes_end_without_a_word(tmp_path: Path) -> None:
    """As on GPUs. A worker that is killed leaves semaphores of its readers, of which Python tells when the command ends."""
    script = """
import sys
from dataclasses import replace
from pathlib import Path
from mmmono.features.cluster_extraction import extract_on_devices
from tests.features.cluster_fakes import colors
from tests.features.test_device_workers import ColorPairs, TWO, job

begun = job(ColorPairs((7, 5)), Path(sys.argv[1]))
assert extract_on_devices(replace(begun, settings=replace(begun.settings, workers=1)), colors, TWO)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "store")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "leaked" not in ran.stderr
