import errno
import fcntl
import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmmono.core import locks
from mmmono.core.artifacts import Artifacts
from mmmono.core.locks import flock_holds, flock_is_local, lock_if_free, locked


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    flock_holds.cache_clear()
    yield
    flock_holds.cache_clear()


def refuses(*_: Any) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def grants(*_: Any) -> None:
    """As a file system mounted with locks that do nothing."""


@pytest.mark.parametrize(("flock", "holds"), [(fcntl.flock, True), (refuses, False), (grants, False)])
def test_a_file_system_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Any, holds: bool) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    assert flock_holds(tmp_path) == holds
    assert not list(tmp_path.iterdir())


MOUNTED = [
    ("nfs4 rw,vers=4.2,local_lock=none", False),
    ("nfs rw,vers=3,nolock,local_lock=all", True),
    ("nfs rw,vers=3,local_lock=flock", True),
    ("lustre rw,flock,lazystatfs", False),
    ("lustre rw,localflock", True),
    ("gpfs rw,relatime", True),
    ("beegfs rw,cfgFile=/etc/beegfs.conf", True),
    ("ext4 rw,local_lock=all", False),
]


@pytest.mark.parametrize(("mount", "local"), MOUNTED)
def test_what_a_mount_says_of_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: str, local: bool
) -> None:
    (tmp_path / "a b" / "c").mkdir(parents=True)
    place = str(tmp_path / "a b").replace(" ", "\\040")
    root = "gpfs rw" if not local else "ext4 rw"  # of the folders above, which does not count
    mounts = tmp_path / "mounts"
    mounts.write_text(f"dev / {root} 0 0\nserver:/x {place} {mount} 0 0\nproc /proc proc rw 0 0\n")
    monkeypatch.setattr(locks, "MOUNTS", mounts)
    assert flock_is_local(tmp_path / "a b" / "c") == local
    assert flock_holds(tmp_path / "a b" / "c") != local
    assert flock_is_local(tmp_path) != local
    monkeypatch.setattr(locks, "MOUNTS", tmp_path / "none")  # systems without such a list
    assert not flock_is_local(tmp_path / "a b")


@pytest.mark.parametrize("flock", [fcntl.flock, refuses])
def test_a_lock_that_is_held_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flock: Any
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    locks._say_so.cache_clear()
    for _ in range(2):
        with lock_if_free(tmp_path / "x.lock") as mine, lock_if_free(tmp_path / "x.lock") as second:
            assert (mine, second) == (True, False)
    said = capsys.readouterr().err
    assert said.count("take turns by files") == (flock is refuses)


def _hold(folder: str, log: str) -> None:
    with locked(Path(folder) / "x.lock"):
        for word in ("in", "out"):
            with Path(log).open("a") as file:
                file.write(f"{word}\n")
            time.sleep(0.2)


@pytest.mark.parametrize("flock", [fcntl.flock, refuses, grants])
def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Any) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locks, "LOOK", 0.02)
    fork = mp.get_context("fork")
    processes = [fork.Process(target=_hold, args=(str(tmp_path), str(tmp_path / "log"))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * 3


def _hold_on(folder: str) -> None:
    with locked(Path(folder) / "x.lock"):
        (Path(folder) / "held").touch()
        time.sleep(600)


@pytest.mark.parametrize("flock", [fcntl.flock, refuses])
def test_who_waits_says_once_for_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flock: Any
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locks, "LOOK", 0.02)
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    holder = mp.get_context("fork").Process(target=_hold_on, args=(str(tmp_path),))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    threading.Timer(1, holder.kill).start()
    with locked(tmp_path / "x.lock"):
        pass
    assert capsys.readouterr().err.count(f"another process works on {tmp_path / 'x'}: waiting for it to end") == 1
    holder.join()
    with locked(tmp_path / "x.lock"):
        pass
    assert "waiting" not in capsys.readouterr().err


def test_a_killed_process_gives_its_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refuses)
    holder = mp.get_context("fork").Process(target=_hold_on, args=(str(tmp_path),))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    begun = time.monotonic()
    with locked(tmp_path / "x.lock"):
        assert time.monotonic() - begun < 60
    holder.join()


def test_artifacts_are_built_once_without_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refuses)
    made = Artifacts(tmp_path).build("models", "x", {"a": 1}, lambda folder: (folder / "file").write_text("1"))
    assert (made.path / "file").read_text() == "1"
    assert not Artifacts(tmp_path).build("models", "x", {"a": 1}, lambda _: pytest.fail("built again")).built
    assert [artifact.path for artifact in Artifacts(tmp_path).find("models")] == [made.path]


def test_members_of_a_group_may_take_one_lock(tmp_path: Path) -> None:
    """Whoever was first has made its file, which the others have to open for writing."""
    before = os.umask(0o002)
    try:
        with locked(tmp_path / "x.lock"):
            assert (tmp_path / "x.lock").stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)
