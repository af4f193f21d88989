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
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mmmono.core.errors import MmmonoError, ProcessError

JOINING = timedelta(minutes=5)  # time limit for all processes to join
GRACE = 15.0  # seconds that a process has to exit by itself after another has died
END = b"end"
PLACE = "MMMONO_PLACE"  # environment variable in which rank 0 passes its `Place` to a process that it starts


Result = TypeVar("Result")


class Task(Protocol):
    """A task that all processes work on together."""

    def work_along(self) -> None:
        """Do the part of the processes other than rank 0."""


@dataclass(frozen=True)
class Place:
    """Ranks and addresses of a process in its group.

    Attributes:
        rank, world_size: among all processes.
        local_rank, local_size: among the processes of its machine.
        node: index of its machine.
        address, port: of the key-value store, which rank 0 or torchrun holds.
        starter: what started the process: torchrun, srun, or rank 0.
        prefix: of keys in the store.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    node: int
    address: str
    port: int
    starter: str
    prefix: str = "mmmono"

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return max(1, self.world_size // self.local_size)

    def connect(self, again: bool = False) -> Any:
        """Return a connection to the key-value store that all processes share.

        Args:
            again: whether this process holds the store or is connected to it already.

        Raises:
            ProcessError: the store cannot be reached.
        """
        from torch.distributed import PrefixStore, TCPStore

        held_by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and self.starter == "torchrun"
        try:
            store = TCPStore(
                self.address,
                self.port,
                self.world_size,
                is_master=self.rank == 0 and not held_by_torchrun and not again,
                timeout=JOINING,
                wait_for_workers=False,
            )
        except Exception as error:
            raise ProcessError(
                f"rank {self.rank} cannot reach rank 0 at {self.address}:{self.port} ({_first_line(error)}): "
                "set MASTER_ADDR and MASTER_PORT to where it can be reached"
            ) from error
        return PrefixStore(self.prefix, store)


def place_of_this_process() -> Place | None:
    """Return the place that torchrun, srun or rank 0 gave this process, or None if it runs alone."""
    env = os.environ
    if PLACE in env:
        return Place(*json.loads(env[PLACE]))
    if "TORCHELASTIC_RUN_ID" in env and int(env["WORLD_SIZE"]) > 1:
        return Place(
            int(env["RANK"]),
            int(env["WORLD_SIZE"]),
            int(env["LOCAL_RANK"]),
            int(env["LOCAL_WORLD_SIZE"]),
            int(env["GROUP_RANK"]),
            env["MASTER_ADDR"],
            int(env["MASTER_PORT"]),
            "torchrun",
            f"mmmono-{env.get('TORCHELASTIC_RESTART_COUNT', 0)}",
        )
    if int(env.get("SLURM_NTASKS", 1)) > 1 and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return _place_in_slurm()
    return None


def _place_in_slurm() -> Place:
    from lightning.fabric.plugins.environments import SLURMEnvironment

    env = os.environ
    size, nodes = int(env["SLURM_NTASKS"]), int(env.get("SLURM_NNODES", 1))
    rank, local_rank, node = (int(env.get(key, 0)) for key in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"))
    if size % nodes:
        raise ProcessError(f"srun started {size} processes on {nodes} machines: start equally many on each")
    listed = env.get("SLURM_STEP_NODELIST", env.get("SLURM_NODELIST", "127.0.0.1"))
    address = env.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(listed)
    port = int(env.get("MASTER_PORT", 15000 + int(env.get("SLURM_JOB_ID", "0")[-4:])))
    step = env.get("SLURM_STEP_ID", "0")
    return Place(rank, size, local_rank, size // nodes, node, address, port, "srun", f"mmmono-{step}")


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
        self._watched = self._store
        if self._started:
            # A connection of the watching thread's own: the other one is locked while this process waits in `join`.
            self._watched = place.connect(again=True)
            threading.Thread(target=self._watch, name="watch processes", daemon=True).start()

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
            self._store.set(f"order/{self._orders}", backend)
            self._orders += 1
            self._control = self._control or join(self.place, self._store, backend)
            send(task, self._control)
            return mine()
        except (MmmonoError, KeyboardInterrupt):
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

    def _await_farewell(self) -> None:
        limit = time.monotonic() + GRACE
        while self._store.add("left", 0) < self.place.world_size - 1 and time.monotonic() < limit:
            time.sleep(0.05)

    def _reason(self, error: BaseException) -> str | None:
        """Return why another process failed, or None if none did."""
        limit = time.monotonic() + (GRACE if _connection_lost(error) and self._started else 2.0)
        while time.monotonic() < limit:
            if (failure := self._failure()) is not None:
                return failure
            time.sleep(0.1)
        return "another process of the training has gone" if _connection_lost(error) else None

    def _failure(self) -> str | None:
        try:
            if self._watched.check(["failure"]):
                return str(self._watched.get("failure").decode())
        except Exception:
            return "the store that the processes share has gone"
        for rank, process in enumerate(self._started, start=1):
            if (status := process.poll()) is not None:
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                return f"process {rank} of the training {how}"
        return None

    def _watch(self) -> None:
        """Exit if a started process died and this one still waits for it, as GPU collectives do."""
        while not self._closed:
            time.sleep(1)
            if any(process.poll() is not None for process in self._started) and not self._closed:
                time.sleep(2 * GRACE)
                if not self._closed:
                    print(f"error: {self._failure()}; run the same command again to go on", file=sys.stderr, flush=True)
                    _end(self._started)
                    os._exit(1)


def _start(place: Place) -> subprocess.Popen[bytes]:
    source = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        PLACE: json.dumps(list(place.__dict__.values())),
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


def hold(place: Place) -> None:
    """Become rank 0 of the processes that torchrun or srun started."""
    global _held
    _held = Processes(place)


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


def serve(place: Place) -> int:
    """Work on the tasks that rank 0 sends until it ends; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 gets the signal too, and ends this process
    if place.starter == "rank 0":
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), name="watch rank 0", daemon=True).start()
    store = place.connect()
    control = None
    try:
        for number in range(sys.maxsize):
            backend = _next_order(store, number)
            if backend == END:
                break
            control = control or join(place, store, backend.decode())
            receive(control).work_along()
    except (KeyboardInterrupt, SystemExit):  # rank 0 was interrupted too, and reports it
        return 0
    except Exception as error:
        return _report(error, place, store)
    leave()
    store.add("left", 1)
    return 0


def _next_order(store: Any, number: int) -> bytes:
    """Wait for rank 0's next order; return END if rank 0 is gone."""
    key = f"order/{number}"
    try:
        while not store.check([key]):
            time.sleep(0.1)
        return bytes(store.get(key))
    except RuntimeError:  # raised when the connection to the store is lost
        return END


def _report(error: Exception, place: Place, store: Any) -> int:
    """Report an error to rank 0, unless its cause is that rank 0 ended; return the exit status."""
    if _connection_lost(error):  # rank 0 sees this error too, and reports it
        return 0
    message = str(error) if isinstance(error, MmmonoError) else f"{type(error).__name__}: {_first_line(error)}"
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


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def join(place: Place, store: Any, backend: str) -> Any:
    """Initialize torch.distributed's default group with all processes; return a second (gloo) group for Python objects.

    Raises:
        ProcessError: not all processes joined.
    """
    import torch.distributed as dist

    _choose_interface(place)
    try:
        dist.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.world_size, timeout=timedelta(minutes=30)
        )
        return dist.new_group(backend="gloo")
    except dist.DistError as error:
        raise ProcessError(
            f"not all of the {place.world_size} processes that {place.starter} promised have come together "
            f"({_first_line(error)}): start every one of them with the same command"
        ) from error


def leave() -> None:
    """Undo `join`."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def send(task: Task, control: Any) -> None:
    """Send a task to the other processes."""
    import torch.distributed as dist

    dist.broadcast_object_list([task], src=0, group=control)


def receive(control: Any) -> Task:
    """Wait for rank 0's task and return it."""
    import torch.distributed as dist

    tasks: list[Any] = [None]
    dist.broadcast_object_list(tasks, src=0, group=control)
    return tasks[0]


def _choose_interface(place: Place) -> None:
    """On one machine, make gloo use the loopback device: the name service may not know the machine's own name."""
    if place.nodes == 1 and "GLOO_SOCKET_IFNAME" not in os.environ:
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        if loopback is not None:
            os.environ["GLOO_SOCKET_IFNAME"] = loopback


def _connection_lost(error: BaseException) -> bool:
    return bool(re.search(r"[Cc]onnection (closed|reset|refused)|Broken pipe|Socket|NCCL|\[.*gloo", str(error)))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
