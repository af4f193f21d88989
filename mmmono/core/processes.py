"""Several processes for one job: rank 0 runs it and sends tasks; the others wait for tasks and work on them too.

Rank 0 does everything that a single process does: it reads settings, builds artifacts and prints. For a task that needs
all processes, such as a training, it sends the task to the others and works on it with them. So no artifact is built
twice, no process waits for another's lock, and every message appears once.

`torchrun` or `srun` starts the other processes with rank 0's command line; otherwise rank 0 starts them when it first
needs them.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mmmono.core.errors import MmmonoError, ProcessError
from mmmono.core.lifelines import Lifelines, hold_lifeline
from mmmono.core.process_group import JOINING, Place, Task, connection_lost, join, leave, receive, send
from mmmono.core.provenance import other_version, provenance
from mmmono.core.text import first_line

GRACE = 15.0  # seconds that a process has to exit by itself after another has died
END = b"end"


Result = TypeVar("Result")


class Processes:
    """Rank 0's control over the other processes.

    Args:
        place: rank 0's place.
        started: processes that rank 0 started itself.
        store: the shared key-value store; connected to by default.
    """

    def __init__(self, place: Place, started: list[subprocess.Popen[bytes]] | None = None, store: Any = None) -> None:
        self.place = place
        self._started = started or []
        self._store = store if store is not None else place.connect()
        self._orders = 0
        self._control: Any = None
        self._closed = False
        self._lifelines = None if self._started else Lifelines(place.world_size)
        # A connection of the watching thread's own: the other one is locked while this process waits in `join`.
        self._watched = place.connect(again=True)
        self._end_of_watch = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch processes", daemon=True)
        self._watcher.start()

    @classmethod
    def start(cls, size: int) -> Processes:
        """Start `size - 1` processes on this machine, with this process as rank 0."""
        from torch.distributed import PrefixStore, TCPStore

        store = TCPStore("127.0.0.1", 0, size, is_master=True, timeout=JOINING, wait_for_workers=False)
        places = [Place(rank, size, rank, size, 0, "127.0.0.1", store.port, "rank 0") for rank in range(size)]
        return cls(places[0], [_start(place) for place in places[1:]], PrefixStore("mmmono", store))

    @property
    def own(self) -> bool:
        """Whether this process started the others, and so can start new ones."""
        return bool(self._started)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def announce(self, command: Sequence[str]) -> None:
        """Tell the other processes what this one was started with, for them to compare: see `serve`."""
        port = self._lifelines.port if self._lifelines is not None else None
        start = {"command": list(command), "versions": provenance(), "lifelines": port}
        self._store.set("start", json.dumps(start))

    def run(self, task: Task, backend: str, mine: Callable[[], Result]) -> Result:
        """Run `mine` in this process while the others work on `task`; return the result of `mine`.

        Args:
            task: must be picklable.
            backend: of torch.distributed, for the tensors that the processes exchange.
            mine: rank 0's part of the task.

        Raises:
            ProcessError: another process failed or died; all others are ended. Errors that `mine` itself causes pass
                through.
        """
        if self._closed:
            raise ProcessError("the processes that would work along have ended with an earlier failure: start anew")
        try:
            if (failure := self._reported()) is not None:  # of a process that would be waited for
                raise ProcessError(failure)
            self._store.set(f"order/{self._orders}", backend)
            self._orders += 1
            self._control = self._control or join(self.place, self._store, backend)
            send(task, self._control)
            return mine()
        except (MmmonoError, KeyboardInterrupt, SystemExit):
            self.close(failed=True)
            raise
        except BaseException as error:
            reason = self._reason(error)
            self.close(failed=True)
            if reason is None:
                raise
            raise ProcessError(f"{reason}; run the same command again to go on") from error

    def close(self, failed: bool = False) -> None:
        """Tell the others to exit, and kill those that this process started and that do not exit in time."""
        if self._closed:
            return
        self._closed = True
        self._end_of_watch.set()
        self._watcher.join(GRACE)  # it holds the store
        self._control = None  # threads of a group end with its last name, and have to before the interpreter does
        if failed:  # the others may wait for this process in a collective operation
            leave()
        try:
            self._store.set(f"order/{self._orders}", END)
            self._store.set("closed", "")
            if not (self._started or failed):  # the store may end with this process: let the others read END first
                self._await_farewell()
        except Exception:  # the store is gone, and the other processes with it
            pass
        _end(self._started, patience=0.5 if failed else 10.0)
        leave()
        if self._lifelines is not None:
            self._lifelines.end()

    def _await_farewell(self) -> None:
        limit = time.monotonic() + GRACE
        while self._store.add("left", 0) < self.place.world_size - 1 and time.monotonic() < limit:
            time.sleep(0.05)

    def _reason(self, error: BaseException) -> str | None:
        """Return why another process failed, or None if none did."""
        limit = time.monotonic() + (GRACE if connection_lost(error) else 2.0)
        while time.monotonic() < limit:
            if (failure := self._failure()) is not None:
                return failure
            time.sleep(0.1)
        return "another process of the training has gone" if connection_lost(error) else None

    def _failure(self) -> str | None:
        try:
            if (failure := self._reported()) is not None:
                return failure
        except Exception:  # PyTorch's store raises errors of several types
            return "the store that the processes share has gone"
        for rank, process in enumerate(self._started, start=1):
            if (status := process.poll()) is not None:
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                return f"process {rank} of the training {how}"
        if self._lifelines is not None and self._lifelines.gone:
            return f"process {self._lifelines.gone[0]} of the training has gone"
        return None

    def _reported(self) -> str | None:
        """Return the failure that another process has reported, or None."""
        return str(self._watched.get("failure").decode()) if self._watched.check(["failure"]) else None

    def _watch(self) -> None:
        """Exit if a process died and this one still waits for it, as it does in `join` and in collectives of GPUs."""
        while not self._end_of_watch.wait(1):
            dead = any(process.poll() is not None for process in self._started)
            dead = dead or (self._lifelines is not None and self._lifelines.look())
            if dead and not self._end_of_watch.wait(2 * GRACE):
                print(f"error: {self._failure()}; run the same command again to go on", file=sys.stderr, flush=True)
                self.abandon()
                os._exit(1)

    def abandon(self) -> None:
        """End the other processes at once, whatever this one exchanges with them."""
        _end(self._started)
        if self._lifelines is not None:
            self._lifelines.end()


def _start(place: Place) -> subprocess.Popen[bytes]:
    source = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        **place.environment(),
        "PYTHONPATH": os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [sys.executable, "-m", "mmmono.pipeline.training_process"]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _end(processes: list[subprocess.Popen[bytes]], patience: float = 0.0) -> None:
    """Wait some seconds for processes to exit, then kill them."""
    limit = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.1, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_held: Processes | None = None


def hold(place: Place, command: Sequence[str]) -> None:
    """Become rank 0 of the processes that torchrun or srun started, this one with the arguments `command`."""
    global _held
    _held = Processes(place)
    _held.announce(command)


def processes(size: int) -> Processes:
    """Return the group of `size` processes, this one included: the current group if it fits, or a new one."""
    global _held
    if _held is not None and _held.place.world_size == size and not (_held.closed and _held.own):
        return _held
    release()
    _held = Processes.start(size)
    return _held


def release() -> None:
    """End the other processes."""
    global _held
    if _held is not None:
        _held.close()
    _held = None


atexit.register(release)


def exit_at_once(status: int) -> NoReturn:
    """End the other processes and this one, whatever its threads do: they may be in an exchange that never ends."""
    if _held is not None:
        _held.abandon()
    os._exit(status)


def serve(place: Place, command: Sequence[str] | None = None) -> int:
    """Work on the tasks that rank 0 sends until it ends; return the exit status.

    Args:
        place: of this process.
        command: arguments that this process was started with, which rank 0's have to equal; None if rank 0 started it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 gets the signal too, and ends this process
    if place.starter == "rank 0":
        end_with_parent(os.getppid())
    store = place.connect()
    control = None
    ended: threading.Event | None = None  # set when rank 0 ends in order
    try:
        if command is not None and (first := _awaited(store, "start")) != END:
            start = json.loads(first)
            if differs := _difference(command, start["command"], start["versions"]):
                return _refuse(f"process {place.rank} of the training: {differs}", store)
            ended = hold_lifeline(place.address, start["lifelines"], place.rank)
        for number in range(sys.maxsize):
            if (backend := _awaited(store, f"order/{number}")) == END:
                break
            control = control or join(place, store, backend.decode())
            receive(control).work_along()
    except (KeyboardInterrupt, SystemExit):  # rank 0 was interrupted too, and reports it
        return 0
    except Exception as error:  # of the task, or of a connection
        control = None
        if connection_lost(error):  # rank 0 sees this error too, and reports it, unless it is what has gone
            if ended is not None:
                ended.wait(GRACE)
            return 0
        return _report(error, place, store)
    control = None
    leave()
    with suppress(RuntimeError):  # rank 0 has not waited
        store.add("left", 1)
    return 0


def _difference(mine: Sequence[str], command: Sequence[str], versions: dict[str, str]) -> str:
    """Return how arguments or software of this process differ from rank 0's, and the remedy; empty if they do not."""
    here = socket.gethostname()
    if sorted(mine) != sorted(command):
        given, asked = (
            " ".join(argument for argument in one if argument not in other) or "nothing"
            for one, other in ((mine, command), (command, mine))
        )
        return f"{here} was given {given} where process 0 was given {asked}: start all with the same command"
    if differs := other_version(versions):
        return f"{here} has {differs} as process 0: install the same everywhere"
    return ""


def _refuse(failure: str, store: Any) -> int:
    """Say why this process does not take part, here and to rank 0, which may not ask for hours; return the exit status."""
    print(f"error: {failure}", file=sys.stderr, flush=True)
    store.set("failure", failure)
    store.add("left", 1)
    return 1


def _awaited(store: Any, key: str) -> bytes:
    """Wait for what rank 0 says under a key, such as its next order; return END if rank 0 is gone."""
    try:
        while not store.check([key]):
            time.sleep(0.1)
        return bytes(store.get(key))
    except RuntimeError:  # raised when the connection to the store is lost
        return END


def _report(error: Exception, place: Place, store: Any) -> int:
    """Report an error to rank 0; return the exit status."""
    message = str(error) if isinstance(error, MmmonoError) else f"{type(error).__name__}: {first_line(error)}"
    try:
        store.set("failure", f"process {place.rank} of the training: {message}")
        leave()  # so that rank 0 stops waiting
        limit = time.monotonic() + GRACE
        while not store.check(["closed"]) and time.monotonic() < limit:  # torchrun ends all when the first one exits
            time.sleep(0.1)
    except Exception:  # rank 0 is gone
        return 1
    if not isinstance(error, MmmonoError):
        traceback.print_exception(error)
    return 1


@cache
def end_with_parent(parent: int) -> None:
    """Watch the process that started this one; end this one, whatever it is at, when that one has gone."""
    threading.Thread(target=_end_after, args=(parent,), name="watch parent", daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
