"""The process group of a distributed job: the rank of each process, how they connect, and how rank 0 sends tasks.

`torchrun` and `srun` tell each process its place through environment variables. A process that rank 0 starts by itself
gets its place in an environment variable of mmmono's own. All meet at a key-value store.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from dataclasses import astuple, dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any, Protocol

from mmmono.core.errors import ProcessError
from mmmono.core.text import first_line

JOINING = timedelta(minutes=5)  # time limit for all processes to join
PLACE = "MMMONO_PLACE"  # environment variable in which rank 0 passes its `Place` to a process that it starts


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

    def environment(self) -> dict[str, str]:
        """Environment variable from which `place_of_this_process` returns this place in a new process."""
        return {PLACE: json.dumps(astuple(self))}

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
        except Exception as error:  # PyTorch's store raises errors of several types
            raise ProcessError(
                f"rank {self.rank} cannot reach rank 0 at {self.address}:{self.port} ({first_line(error)}): "
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


def join(place: Place, store: Any, backend: str) -> Any:
    """Initialize torch.distributed's default group with all processes; return a second (gloo) group for Python objects.

    Raises:
        ProcessError: not all processes joined.
    """
    import torch.distributed as dist

    import_module("torch.distributed.nn.functional")  # later, defaults of its functions would keep the group for ever
    _choose_interface(place)
    _meet(place, store)
    try:
        dist.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.world_size, timeout=timedelta(minutes=30)
        )
        return dist.new_group(backend="gloo")
    except dist.DistError as error:
        raise ProcessError(
            f"not all of the {place.world_size} processes that {place.starter} promised have come together "
            f"({first_line(error)}): start every one of them with the same command"
        ) from error


def _meet(place: Place, store: Any) -> None:
    """Wait until all processes are about to join: one that died before would be waited for as long as in any collective."""
    store.set(f"here/{place.rank}", "")
    missing = list(range(place.world_size))
    limit = time.monotonic() + JOINING.total_seconds()
    while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
        if time.monotonic() > limit:
            named = ", ".join(map(str, missing[:8])) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            raise ProcessError(
                f"of the {place.world_size} processes that {place.starter} promised, {named} did not come within "
                f"{JOINING.total_seconds():.0f} s: start every one of them with the same command (on Slurm: srun python …)"
            )
        time.sleep(0.05)


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


def connection_lost(error: BaseException) -> bool:
    """Whether an error says that another process, or the store, has gone."""
    return bool(re.search(r"[Cc]onnection (closed|reset|refused)|Broken pipe|Socket|NCCL|\[.*gloo", str(error)))
