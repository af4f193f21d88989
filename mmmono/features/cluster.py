"""Encodes the parts of a source in the processes of a Ray cluster.

Each worker process has an encoder of its own and writes whole parts into the store, which lies on a file system that all
machines see; only part numbers travel. Parts are claimed (mmmono/core/claims.py) as in any extraction, so that the store
is the one that a single process writes, whoever died and whatever else writes it at the same time.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from mmmono.core.claims import Claims
from mmmono.core.errors import ConfigError, MmmonoError, ProcessError
from mmmono.core.extras import need
from mmmono.core.process_group import first_line
from mmmono.core.progress import progress_bar
from mmmono.core.provenance import provenance
from mmmono.data.pairs import PairSource
from mmmono.features.encoding import LOOK, PartEncoder
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.part_queue import REASON, PartQueue
from mmmono.features.reading import Encoder, ReaderDiedError, explained_deaths
from mmmono.features.writer import CLAIMS, FeatureStoreWriter

REACH = 20  # seconds in which a cluster must answer
SAME = ("mmmono", "commit", "torch")  # versions that all machines must have in common


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
                raise ConfigError(f"engine.{name}={value}: at least {least}")
        if self.gpus > 1:
            raise ConfigError(f"engine.gpus={self.gpus}: an encoder uses one; start more workers instead")


@dataclass(frozen=True)
class ClusterJob:
    """What a worker needs; travels to every worker.

    Attributes:
        source: the pairs.
        load: makes the encoder, on the worker's device.
        directory: the store, begun by `begin_store`.
        device: where the encoder runs.
        settings: settings of reading and encoding.
        versions: of the software of the process that sends the job.
        folder: its current folder, from which relative paths are meant.
    """

    source: PairSource
    load: Callable[[], Encoder]
    directory: Path
    device: str
    settings: ExtractionSettings
    versions: dict[str, str] = field(default_factory=provenance)
    folder: Path = field(default_factory=Path.cwd)

    def check_here(self) -> None:
        """Raise ProcessError if this machine cannot do the job: it sees no store, or has other software."""
        here = socket.gethostname()
        if not self.directory.parent.is_dir():
            raise ProcessError(
                f"{here} does not see {self.directory.parent}: artifacts= must be shared by all machines"
            )
        versions = provenance()
        for name in SAME:
            if versions.get(name) != self.versions.get(name):
                raise ProcessError(
                    f"{here} has {name} {versions.get(name)}, not {self.versions.get(name)}: install the same everywhere"
                )


class Worker:
    """One process of the cluster, which encodes the parts that it is given."""

    def __init__(self, job: ClusterJob) -> None:
        self.job = job
        self.extraction: PartEncoder | None = None

    def encode(self, parts: list[int]) -> dict[int, str]:
        """Encode and write parts, except those that another process has claimed; return why parts are broken."""
        job = self.job
        if self.extraction is None:
            job.check_here()
            with suppress(OSError):
                os.chdir(job.folder)
            encoder = job.load()
            if not (job.directory / CLAIMS).is_dir():  # another process has finished the store meanwhile
                return {}
            device = torch.device(job.device)
            self.extraction = PartEncoder(job.source, encoder, job.directory, device, job.settings, begin=False)
            self.extraction.claims.__enter__()
        bar = Progress(disable=True)
        try:
            with explained_deaths(), torch.inference_mode():
                self.extraction.encode(parts, None, bar, bar.add_task(""))
        except FileNotFoundError:
            if not self.extraction.claims.gone:
                raise
        except ReaderDiedError:  # most likely for want of memory: as if this process had died of it
            os._exit(1)
        broken = self.extraction.broken
        return {part: broken[part].reason for part in parts if part in broken}

    def leave(self) -> None:
        """Give up all claims."""
        if self.extraction is not None:
            self.extraction.claims.__exit__()


class Cluster:
    """Workers on a Ray cluster, as a context: they end with it.

    Args:
        job: what the workers do.
        settings: where they run.

    Raises:
        ConfigError: the ray extra is not installed, there is no cluster at the address, or it has no room for a worker.
    """

    def __init__(self, job: ClusterJob, settings: ClusterSettings) -> None:
        need("engine=ray", "ray")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray  # not at the top: optional

        self.ray = ray
        self.job = job
        self.settings = settings
        self.size = 0
        self.readers = 0
        self.reason = ""  # why the last worker died, in Ray's words
        self.running: dict[Any, tuple[Any, list[int]]] = {}  # worker and parts by the reference to their outcome
        self._idle: list[Any] = []
        self._connected = False
        known = ray.exceptions
        self._deaths = (known.RayActorError, known.WorkerCrashedError, known.NodeDiedError, known.OutOfMemoryError)

    def __enter__(self) -> Cluster:
        try:
            self._connect()
            self.readers = self._readers()
            self.job = replace(self.job, settings=replace(self.job.settings, workers=self.readers))
            cpus = self.settings.cpus or 1 + self.readers
            self.size = self.settings.workers or self._room(cpus, self.settings.gpus)
            self._worker = self.ray.remote(num_cpus=cpus, num_gpus=self.settings.gpus, max_restarts=0)(Worker)
            self._job = self.ray.put(self.job)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self) -> None:
        if self.ray.is_initialized():
            return
        address = self.settings.address
        try:
            if ":" in address:  # Ray itself would try for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=REACH).close()
            self.ray.init(address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"engine.address={address}: no Ray cluster to join ({first_line(error)}); start one by `ray start --head`, "
                "or say engine.address=local"
            ) from error
        self._connected = True

    def _readers(self) -> int:
        """Processes that read for each worker: as given, else all cores of a GPU's share but one, and none for a CPU."""
        if self.job.settings.workers is not None:
            return self.job.settings.workers
        if not self.settings.gpus:
            return 0
        there = self.ray.cluster_resources()
        cores = self.settings.cpus or int(there.get("CPU", 0) // max(1.0, there.get("GPU", 0.0)))
        return max(1, cores - 1)

    def _room(self, cpus: int, gpus: int) -> int:
        there = self.ray.cluster_resources()
        room = int(there.get("CPU", 0)) // cpus
        room = min(room, int(there.get("GPU", 0)) // gpus) if gpus else room
        if room < 1:
            raise ConfigError(
                f"the cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, too few for a worker with "
                f"{cpus} and {gpus}: lower engine.cpus or extraction.workers, or give engine.workers and wait for machines"
            )
        return room

    def give(self, parts: list[int]) -> None:
        """Let a worker that has nothing to do, or a new one, encode parts."""
        worker = self._idle.pop() if self._idle else self._worker.remote(self._job)
        self.running[worker.encode.remote(parts)] = (worker, parts)

    def ended(self) -> Iterable[tuple[list[int], dict[int, str] | None]]:
        """Wait a moment; yield the parts that workers ended with, and why some are broken; None if the worker died.

        Raises:
            MmmonoError: what a worker raised.
            ProcessError: a worker cannot begin, for example because its machine lacks a package.
        """
        references, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=LOOK)
        for reference in references:
            worker, parts = self.running.pop(reference)
            try:
                broken = self.ray.get(reference)
            except self._deaths as death:
                self.reason = " ".join(str(death).split())
                if "in its creation task" in self.reason:  # it would fail again
                    raise ProcessError(f"a worker of the cluster cannot begin: {self.reason[-REASON:]}") from death
                self._kill([worker])
                yield parts, None
                continue
            except self.ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, MmmonoError):
                    raise error.cause from None
                raise
            self._idle.append(worker)
            yield parts, broken

    def dismiss(self) -> None:
        """End the workers that have nothing to do.

        A worker for which the cluster has no room, as after the loss of a machine, waits with parts that nobody else has.
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


def extract_on_cluster(job: ClusterJob, settings: ClusterSettings) -> bool:
    """Encode all parts of a source in the processes of a cluster; see `extract_share`, which does it without one.

    Returns:
        Whether all parts are done, as for `extract_share`.

    Raises:
        DataError: parts ended the processes that encoded them, several times each, and are left for the next run. Parts
            that cannot be read are no error here; `extract_features`, which finishes the store, tries and names them.
        ProcessError: a machine of the cluster does not see the store, or has other software.
    """
    writer = FeatureStoreWriter(job.directory, len(job.source.parts()), job.settings.dtype, begin=False)
    with Cluster(job, settings) as cluster, Claims(job.directory / CLAIMS) as claims, progress_bar() as bar:
        work = PartQueue(job.source, writer, claims)
        task = bar.add_task(f"extract {job.source.name}, {cluster.size} workers", total=_length(job.source))
        chunk = max(1, min(2 * cluster.readers, len(work.left) // (2 * cluster.size)))
        while work.left and not claims.gone:
            while len(cluster.running) < cluster.size and (parts := work.next(chunk)):
                cluster.give(parts)
            if len(cluster.running) < cluster.size:
                cluster.dismiss()
            if not cluster.running:
                time.sleep(LOOK)  # another process works on what is left
                continue
            for parts, broken in cluster.ended():
                work.ended(parts, broken)
            work.look(part for _, parts in cluster.running.values() for part in parts)
            bar.update(task, completed=work.pairs)
        work.check_lost(cluster.reason)
    return not claims.gone


def _length(source: PairSource) -> int | None:
    try:
        return len(source)
    except TypeError:
        return None
