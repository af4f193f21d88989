"""Worker processes on a Ray cluster: started, given tasks, and replaced when they die.

Only tasks and their outcomes travel. Who gives the tasks decides what is done about those of a worker that died.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mmmono.core.errors import ConfigError, MmmonoError, ProcessError
from mmmono.core.extras import need
from mmmono.core.provenance import other_version
from mmmono.core.text import message_of

REACH = 20  # seconds in which a cluster must answer
LOOK = 1.0  # seconds to wait for a worker before looking whether there is something else to do
TRIES = 3  # processes that a task may end before it is given up
REASON = 400  # characters of Ray's reason in a message
IN = (  # what to do where a cluster is, but lets nobody in; Ray gives no reason if it asks for a token
    "if it is a Ray cluster, it takes the same versions of Ray and Python, and, if it was started where Ray has a token, "
    "the same token with RAY_AUTH_MODE=token"
)


@dataclass(frozen=True)
class ClusterSettings:
    """Where the workers run.

    Attributes:
        address: `auto` for the cluster that this machine belongs to, `local` for one of this machine alone, or `host:port`.
        workers: number of worker processes; None for as many as the cluster has room for at the beginning.
        cpus: cores reserved for each; None for one, and one for each process that reads for it.
        gpus: GPUs of each, 0 or 1.

    Raises:
        ConfigError: a setting is invalid.
    """

    address: str = "auto"
    workers: int | None = None
    cpus: int | None = None
    gpus: int = 0

    def __post_init__(self) -> None:
        if not self.address or "://" in self.address:
            raise ConfigError(
                f"engine.address={self.address}: give auto, local or host:port; from outside of a cluster, `ray job submit`"
            )
        for name, value, least in (("workers", self.workers, 1), ("cpus", self.cpus, 1), ("gpus", self.gpus, 0)):
            if value is not None and value < least:
                raise ConfigError(f"engine.{name}={value} must be at least {least}")
        if self.gpus > 1:
            raise ConfigError(f"engine.gpus={self.gpus}, but an encoder uses one GPU: raise engine.workers instead")


def check_machine(folder: Path | str, versions: dict[str, str]) -> None:
    """Raise ProcessError if this machine does not see a folder, or has other software than the one that asks.

    Args:
        folder: the folder; the address of one on another machine is not looked for.
        versions: of the software of the machine that asks.
    """
    here = socket.gethostname()
    if isinstance(folder, Path) and not folder.is_dir():
        raise ProcessError(f"{here} does not see {folder}: it must lie on a disk that all machines share")
    if differs := other_version(versions):
        raise ProcessError(f"{here} has {differs}: install the same everywhere")


class Cluster:
    """Workers on a Ray cluster, as a context: they end with it.

    Args:
        settings: where they run.

    Attributes:
        size: number of workers at most.
        running: worker and task by the reference to their outcome.
        reason: why the last worker died, in Ray's words.

    Raises:
        ConfigError: the ray extra is not installed, or there is no cluster at the address.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        need("engine=ray", "ray")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray  # not at the top: optional

        self.ray = ray
        self.settings = settings
        self.size = 0
        self.reason = ""
        self.running: dict[Any, tuple[Any, Any]] = {}
        self._idle: list[Any] = []
        self._connected = False
        self._said = False  # that there is no room
        known = ray.exceptions
        self._deaths = (known.RayActorError, known.WorkerCrashedError, known.NodeDiedError, known.OutOfMemoryError)

    def __enter__(self) -> Self:
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self) -> None:
        if self.ray.is_initialized():
            return
        address = self.settings.address
        answers = False
        try:
            if ":" in address:  # Ray itself would try for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=REACH).close()
                answers = True
            self.ray.init(address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError, self.ray.exceptions.RayError) as error:
            found = "no way into what answers there" if answers else "no Ray cluster to join"
            remedy = IN if answers else "start one by `ray start --head`"
            raise ConfigError(
                f"engine.address={address}: {found} ({message_of(error, REASON)}); {remedy}, or say engine.address=local"
            ) from error
        self._connected = True

    def machines(self) -> list[dict[str, float]]:
        """Return what each machine of the cluster has: `CPU`, `GPU` and others."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def hire(self, worker: type, job: object, cpus: int) -> None:
        """Say what the workers are; each is started when it is first given something to do.

        Args:
            worker: made with the job; its method `work` takes a task and returns the outcome, `leave` ends its work.
            job: travels once to each machine.
            cpus: cores reserved for each.

        Raises:
            ConfigError: the cluster has no room for a worker, and is not to wait for machines.
        """
        self._needs = cpus, self.settings.gpus
        wait = self.settings.workers is not None and self.settings.address != "local"  # which never grows
        if not (room := self._room()) and not wait:
            more = "" if self.settings.workers else ", or give engine.workers and wait for machines"
            raise ConfigError(f"{self._too_small()}: lower engine.cpus or extraction.workers{more}")
        self.size = self.settings.workers or room
        self._worker = self.ray.remote(num_cpus=cpus, num_gpus=self.settings.gpus, max_restarts=0)(worker)
        self._job = self.ray.put(job)

    def _room(self) -> int:
        """Number of workers that all machines together have room for, if nothing else runs there."""
        cpus, gpus = self._needs
        return sum(min(cores // cpus, devices // gpus) if gpus else cores // cpus for cores, devices in self._sizes())

    def _sizes(self) -> list[tuple[int, int]]:
        return [(int(there.get("CPU", 0)), int(there.get("GPU", 0))) for there in self.machines()]

    def _too_small(self) -> str:
        told = ", ".join(f"{cores} CPUs and {devices} GPUs" for cores, devices in self._sizes()) or "gone"
        cpus, gpus = self._needs
        return f"the machines of the cluster have {told}, too few for a worker with {cpus} and {gpus}"

    def give(self, task: Any) -> None:
        """Let a worker that has nothing to do, or a new one, do a task."""
        worker = self._idle.pop() if self._idle else self._worker.remote(self._job)
        self.running[worker.work.remote(task)] = (worker, task)

    def ended(self) -> Iterable[tuple[Any, Any]]:
        """Wait a moment; yield the tasks that ended, each with its outcome, or None if its worker died.

        Raises:
            MmmonoError: what a worker raised.
            ProcessError: a worker cannot begin, for example because its machine lacks a package.
        """
        running = list(self.running)
        self.ray.wait(running, timeout=LOOK)
        references, _ = self.ray.wait(running, num_returns=len(running), timeout=0)
        if not references and not self._said and not self._room():
            self._said = True
            print(f"{self._too_small()}: waiting for a machine that has them", file=sys.stderr)
        for reference in references:
            worker, task = self.running.pop(reference)
            try:
                outcome = self.ray.get(reference)
            except self._deaths as death:
                self.reason = " ".join(str(death).split())
                if "in its creation task" in self.reason:  # it would fail again
                    raise ProcessError(f"a worker of the cluster cannot begin: {self.reason[-REASON:]}") from death
                self._kill([worker])
                yield task, None
                continue
            except self.ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, MmmonoError):
                    raise error.cause from None
                raise
            self._idle.append(worker)
            yield task, outcome

    def dismiss(self) -> None:
        """End the workers that have nothing to do.

        A worker for which the cluster has no room, as after the loss of a machine, waits with a task that nobody else has.
        """
        workers, self._idle = self._idle, []
        with suppress(Exception):
            self.ray.get([worker.leave.remote() for worker in workers], timeout=5)
        self._kill(workers)

    def _kill(self, workers: Iterable[Any]) -> None:
        for worker in workers:
            with suppress(Exception):
                self.ray.kill(worker)

    def __exit__(self, *_: object) -> None:
        if not self.ray.is_initialized():  # any call would begin a cluster
            return
        self.dismiss()
        self._kill(worker for worker, _ in self.running.values())
        if self._connected:
            self.ray.shutdown()
