"""Limits of containers and of clusters' jobs: less of the processor and of the memory than the machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmmono.core import cores, memory
from mmmono.core.control_groups import core_limits, memory_limits


def control_groups(root: Path, groups: str, limits: dict[str, str]) -> Path:
    """Write what the kernel shows a process of its control groups."""
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in limits.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "found"),
    [
        ("0::/\n", {"memory.max": "8589934592\n"}, [8589934592]),  # a container of today: its own top
        ("0::/\n", {"memory.max": "max\n"}, []),
        (  # a job of Slurm: the limit lies above the step's own group
            "0::/system.slice/slurmstepd.scope/job_7/step_0/user\n",
            {
                "system.slice/slurmstepd.scope/job_7/step_0/user/memory.max": "max\n",
                "system.slice/slurmstepd.scope/job_7/memory.max": "64000000000\n",
                "system.slice/memory.max": "max\n",
            },
            [64000000000],
        ),
        (  # version 1, in a container that is shown the path outside: its own limit lies at the top
            "5:cpuset:/docker/ab\n4:memory:/docker/ab\n0::/\n",
            {"memory/memory.limit_in_bytes": "4294967296\n"},
            [4294967296],
        ),
        ("3:cpu,cpuacct:/\n", {"cpu,cpuacct/memory.limit_in_bytes": "1\n"}, []),
    ],
)
def test_limits_of_memory(tmp_path: Path, groups: str, limits: dict[str, str], found: list[int]) -> None:
    assert list(memory_limits(control_groups(tmp_path, groups, limits))) == found


def test_memory_without_control_groups(tmp_path: Path) -> None:
    assert list(memory_limits(tmp_path)) == list(core_limits(tmp_path)) == []
    assert 0 < memory.usable_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("groups", "limits", "found"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, [2]),  # a container of today, which has one and a half
        ("0::/\n", {"cpu.max": "max 100000\n"}, []),
        ("0::/user.slice/a.scope\n", {"user.slice/cpu.max": "800000 100000\n"}, [8]),
        (  # version 1, in a container that is shown the path outside
            "4:memory:/docker/ab\n3:cpu,cpuacct:/docker/ab\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            [1],
        ),
        (
            "3:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            [],
        ),
    ],
)
def test_limits_of_cores(tmp_path: Path, groups: str, limits: dict[str, str], found: list[int]) -> None:
    assert list(core_limits(control_groups(tmp_path, groups, limits))) == found


def test_threads_of_a_container_are_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(cores, "core_limits", lambda: [8, 3])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cores.usable_cores() == 3
    cores.limit_threads()
    assert os.environ.pop("OMP_NUM_THREADS") == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    cores.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "8"


def test_threads_are_limited_before_a_library_starts_them() -> None:
    """NumPy starts its own when it is imported, and looks at the environment only then."""
    code = (
        "import sys; import mmmono.pipeline.running; from mmmono.core.cores import limit_threads; limit_threads(); "
        "print([name for name in ('numpy', 'torch') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_threads_without_a_quota_are_left_to_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "core_limits", lambda: [])
    cores.limit_threads()
    assert "OMP_NUM_THREADS" not in os.environ
