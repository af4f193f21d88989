"""Commands in processes of their own that start at once, because what they import is loaded before they fork."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import time
from pathlib import Path

IMPORTED_ONCE = [
    "torch", "lightning", "sklearn.linear_model", "sklearn.model_selection", "matplotlib.pyplot", "open_clip",
    "mmmono.pipeline.workspace", "mmmono.pipeline.fitting", "mmmono.vlm.drawingclip",
]  # fmt: skip


def context() -> mp.context.ForkServerContext:
    """A fork server that has the heavy libraries loaded."""
    server = mp.get_context("forkserver")
    server.set_forkserver_preload([*IMPORTED_ONCE, "tests.pipeline.conftest"])
    return server


def warm_up() -> None:
    """Start the fork server and let it load its libraries, so that no command's time includes that."""
    process = context().Process(target=os.getpid)
    process.start()
    process.join()


def _run(entrypoint: str, overrides: tuple[str, ...], log: str) -> None:
    os.setsid()  # so that the processes it starts die with it
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    from tests.pipeline.conftest import run_entrypoint

    sys.exit(run_entrypoint(entrypoint, *overrides))


def run(command: tuple[str, ...], log: Path, kill_after: float | None = None, limit: float = 600) -> tuple[int, float]:
    """Exit status and seconds of a command; it and its children are killed with -9 after `kill_after` seconds.

    Raises:
        TimeoutError: it had not ended after `limit` seconds.
    """
    process = context().Process(target=_run, args=(command[0], command[1:], str(log)))
    start = time.monotonic()
    process.start()
    process.join(limit if kill_after is None else kill_after)
    if process.is_alive():
        assert process.pid is not None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not reached its first line yet
            process.kill()
        process.join()
        if kill_after is None:
            raise TimeoutError(f"{' '.join(command)} had not ended after {limit:.0f} s: {log}")
    return int(process.exitcode or 0), time.monotonic() - start
