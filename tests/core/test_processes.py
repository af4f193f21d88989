"""Rank 0 and the processes that it starts, without any training."""

import subprocess
import sys

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
