"""Encodes the parts of a source in the processes of a Ray cluster, or in one process for each device of this machine.

Each worker process has an encoder of its own and writes whole parts into the store, which lies on a file system that all
machines see; only part numbers travel. Parts are claimed (mmmono/core/claims.py) as in any extraction, so that the store
is the one that a single process writes, whoever died and whatever else writes it at the same time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from rich.progress import Progress

from mmmono.core.claims import Claims
from mmmono.core.memory import keep_freed_memory
from mmmono.core.progress import progress_bar
from mmmono.core.provenance import provenance
from mmmono.data.pairs import PairSource
from mmmono.features.cluster import Cluster, ClusterSettings, check_machine
from mmmono.features.device_workers import DeviceWorkers
from mmmono.features.encoding import LOOK, PartEncoder
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.part_queue import PartQueue
from mmmono.features.reading import Encoder, ReaderDiedError, default_workers, explained_deaths
from mmmono.features.writer import CLAIMS, FeatureStoreWriter


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


class Worker:
    """One process of the cluster, which encodes the parts that it is given."""

    def __init__(self, job: ClusterJob) -> None:
        keep_freed_memory()
        self.job = job
        self.extraction: PartEncoder | None = None

    def work(self, parts: list[int]) -> dict[int, str]:
        """Encode and write parts, except those that another process has claimed; return why parts are broken."""
        job = self.job
        if self.extraction is None:
            check_machine(job.directory.parent, job.versions)
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


def extract_on_cluster(job: ClusterJob, settings: ClusterSettings) -> bool:
    """Encode all parts of a source in the processes of a cluster; see `extract_share`, which does it without one.

    Returns:
        Whether all parts are done, as for `extract_share`.

    Raises:
        DataError: parts ended the processes that encoded them, several times each, and are left for the next run. Parts
            that cannot be read are no error here; `extract_features`, which finishes the store, tries and names them.
        ProcessError: a machine of the cluster does not see the store, or has other software.
    """
    with Cluster(settings) as cluster:
        readers = _readers(job, cluster)
        mine = replace(job, settings=replace(job.settings, workers=readers))
        cluster.hire(Worker, mine, settings.cpus or 1 + readers)
        return _encoded_by(cluster, job, readers)


def extract_on_devices(job: ClusterJob, load: Callable[[str], Encoder], devices: Sequence[str]) -> bool:
    """Encode all parts of a source in processes of this machine, one for each device; see `extract_on_cluster`.

    Args:
        job: what the workers do; its `load` and `device` are replaced.
        load: makes the encoder on a device.
        devices: such as `cuda:0` and `cuda:1`, or `cpu` several times.

    Errors: as for `extract_on_cluster`.
    """
    readers = job.settings.workers
    if readers is None:
        readers = -(-default_workers(torch.device(devices[0])) // len(devices))
    settings = replace(job.settings, workers=readers)
    jobs = [replace(job, load=partial(load, device), device=device, settings=settings) for device in devices]
    with DeviceWorkers(Worker, jobs) as workers:
        return _encoded_by(workers, job, readers)


def _encoded_by(workers: Cluster | DeviceWorkers, job: ClusterJob, readers: int) -> bool:
    """Give all parts to workers, each of which has `readers` processes that read; see `extract_on_cluster`."""
    writer = FeatureStoreWriter(job.directory, len(job.source.parts()), job.settings.dtype, begin=False)
    with Claims(job.directory / CLAIMS) as claims, progress_bar() as bar:
        work = PartQueue(job.source, writer, claims)
        task = bar.add_task(f"extract {job.source.name}, {workers.size} workers", total=_length(job.source))
        chunk = max(1, min(2 * readers, len(work.left) // (2 * workers.size)))
        while work.left and not claims.gone:
            while len(workers.running) < workers.size and (parts := work.next(chunk)):
                workers.give(parts)
            if len(workers.running) < workers.size:
                workers.dismiss()
            if not workers.running:
                time.sleep(LOOK)  # another process works on what is left
                continue
            for parts, broken in workers.ended():
                work.ended(parts, broken)
            work.look(part for _, parts in workers.running.values() for part in parts)
            bar.update(task, completed=work.pairs)
        work.check_lost(workers.reason)
    return not claims.gone


def _readers(job: ClusterJob, cluster: Cluster) -> int:
    """Processes that read for each worker: as given, else all cores of a GPU's share but one, and none for a CPU."""
    if job.settings.workers is not None:
        return job.settings.workers
    if not cluster.settings.gpus:
        return 0
    shares = [int(there.get("CPU", 0) // there["GPU"]) for there in cluster.machines() if there.get("GPU")]
    return max(1, (cluster.settings.cpus or min(shares, default=1)) - 1)


def _length(source: PairSource) -> int | None:
    try:
        return len(source)
    except TypeError:
        return None
