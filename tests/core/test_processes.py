"""Rank 0 and the processes that it starts, without any training."""

import atexit
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mmmono.core.lifelines import Lifelines, hold_lifeline
from mmmono.core.processes import _difference, processes, release
from mmmono.core.provenance import provenance

NAMELESS = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7)  # 2.6 leaves Gloo's threads without

STILLBORN = """
import subprocess, sys
from mmmono.core import processes

class Nothing:
    def work_along(self):
        pass

processes.GRACE = 0.5
processes._start = lambda place: subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
processes.processes(2).run(Nothing(), "gloo", lambda: None)
"""


def test_a_process_that_dies_before_it_joins_does_not_leave_rank_0_waiting() -> None:
    run = subprocess.run([sys.executable, "-c", STILLBORN], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert run.stderr == "error: process 1 of the training ended with status 3; run the same command again to go on\n"


NEVER = """
from datetime import timedelta
from mmmono.core import process_group, processes

class Nothing:
    def work_along(self):
        pass

process_group.JOINING = timedelta(seconds=1)
port = process_group.Place(0, 1, 0, 1, 0, "127.0.0.1", 0, "rank 0").connect().underlying_store.port
processes.hold(process_group.Place(0, 3, 0, 3, 0, "127.0.0.1", port, "srun"), ["train"])
try:
    processes.processes(3).run(Nothing(), "gloo", lambda: None)
finally:
    processes.release()
"""


def test_processes_that_never_come_are_named() -> None:
    run = subprocess.run([sys.executable, "-c", NEVER], capture_output=True, text=True, timeout=60, check=False)
    assert "processes that srun promised, 1, 2 did not come within 1 s: start every one" in run.stderr


def test_a_lifeline_tells_a_death_from_an_orderly_end() -> None:
    lines = Lifelines(3)
    assert hold_lifeline("127.0.0.1", 1, 1).is_set()  # nobody is there: nothing is known
    ended = hold_lifeline("127.0.0.1", lines.port, 1)
    code = f"from mmmono.core.lifelines import *; hold_lifeline('127.0.0.1', {lines.port}, 2).wait()"
    other = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not lines.look() and len(lines._lines) < 2:
        time.sleep(0.05)
    for stranger in (b"", b"GET / HTTP/1.1", (3).to_bytes(4, "big")):
        with socket.create_connection(("127.0.0.1", lines.port)) as line:
            line.sendall(stranger)
        assert not lines.look()
    assert not lines.gone
    other.kill()
    other.communicate()
    while not lines.look():
        time.sleep(0.05)
    assert lines.gone == [2]
    assert not ended.is_set()
    lines.end()
    assert ended.wait(10)


def test_without_rank_0_the_others_end_and_one_says_so() -> None:
    lines = Lifelines(3)
    code = "import sys; from mmmono.core.lifelines import *; hold_lifeline('127.0.0.1', {}, {}).wait()"
    others = [
        subprocess.Popen([sys.executable, "-c", code.format(lines.port, rank)], stderr=subprocess.PIPE, text=True)
        for rank in (1, 2)
    ]
    while not lines.look() and len(lines._lines) < 2:
        time.sleep(0.05)
    for line in lines._lines.values():
        line.close()
    said = [other.communicate(timeout=30)[1] for other in others]
    assert said == ["error: process 0 of the training has gone; run the same command again to go on\n", ""]
    assert [other.returncode for other in others] == [1, 1]


def test_another_command_and_other_software_are_told_with_what_to_do() -> None:
    mine = ["train", "features.k=2", "seed=1"]
    assert _difference(mine, ["train", "seed=1", "features.k=2"], provenance()) == ""
    assert "was given features.k=2 where process 0 was given features.k=4 trainer=cpu: start all" in _difference(
        mine, ["train", "features.k=4", "seed=1", "trainer=cpu"], provenance()
    )
    other = {**provenance(), "torch": "1.0"}
    assert ", not 1.0 as process 0: install the same everywhere" in _difference(mine, mine, other)


@dataclass(frozen=True)
class Reduces:
    """Sums with all processes, by what a training uses; a process other than rank 0 notes its threads at its end."""

    note: Path

    def work_along(self) -> None:
        atexit.register(lambda: self.note.write_text("\n".join(threads()), encoding="utf-8"))
        reduced()


def reduced() -> float:
    from torch.nn.parallel import DistributedDataParallel

    model = DistributedDataParallel(torch.nn.Linear(2, 1))
    model(torch.ones(1, 2)).sum().backward()
    return float(model.module.weight.grad.sum())


def threads() -> list[str]:
    """Names of all threads of this process, also of those that are not Python's."""
    return [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]


def groups(names: list[str]) -> list[str]:
    return [name for name in names if "gloo" in name or name == "watch processes"]


@pytest.mark.skipif(NAMELESS, reason="this PyTorch gives the threads of a process group no names")
def test_no_thread_of_a_process_group_outlives_it(tmp_path: Path) -> None:
    """One that does ends with the interpreter, in an order that nothing guarantees."""
    try:
        assert processes(2).run(Reduces(tmp_path / "threads"), "gloo", reduced) == 2.0
        assert groups(threads())
    finally:
        release()
    assert groups(threads()) == []
    assert groups((tmp_path / "threads").read_text(encoding="utf-8").split("\n")) == []
