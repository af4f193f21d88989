"""Folds the ranges of a store in the processes of a Ray cluster; see `mmmono.features.folding`.

A stream travels to every worker once, empty, and comes back from every range. A range whose worker died is folded again by
another one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mmmono.core.errors import DataError
from mmmono.core.memory import keep_freed_memory
from mmmono.core.provenance import provenance
from mmmono.core.streams import Stream
from mmmono.features.cluster import REASON, TRIES, Cluster, ClusterSettings, check_machine
from mmmono.features.folding import AHEAD, Advance, Folded, Walk, fold_range, ignored


@dataclass(frozen=True)
class FoldJob:
    """What a worker needs; travels to every worker.

    Attributes:
        stream: an empty one.
        walk: what it is to see; its feature set is on the CPU.
        device: where the worker encodes.
        versions: of the software of the process that sends the job.
        folder: its current folder, from which relative paths are meant.
    """

    stream: Stream[..., Any]
    walk: Walk
    device: str
    versions: dict[str, str] = field(default_factory=provenance)
    folder: Path = field(default_factory=Path.cwd)


class FoldWorker:
    """One process of the cluster, which folds the ranges that it is given."""

    def __init__(self, job: FoldJob) -> None:
        keep_freed_memory()
        self.job = job
        self.walk: Walk | None = None

    def work(self, task: tuple[int, slice]) -> Stream[..., Any]:
        """Return a stream of a range."""
        job = self.job
        if self.walk is None:
            with suppress(OSError):
                os.chdir(job.folder)
            check_machine(job.walk.view.store.path, job.versions)
            torch.set_num_threads(1)  # as the threads of one process, whose sums have the same bits
            self.walk = job.walk.on(job.device)
        return fold_range(job.stream, self.walk, *task)

    def leave(self) -> None:
        """Nothing is held."""


def folded_on_cluster(
    stream: Folded, walk: Walk, settings: ClusterSettings, advance: Advance = ignored
) -> Iterator[Folded]:
    """Yield a stream of each range of a walk, in order, from the workers of a cluster; see `Threads.folded_ranges`.

    Args:
        stream: an empty one.
        walk: what it is to see.
        settings: where the workers run.
        advance: called with the number of pairs of each range, once it is there.

    Raises:
        ConfigError: there is no cluster, or it has no room for a worker.
        DataError: a range ended the processes that folded it, several times.
        ProcessError: a machine of the cluster does not see the store, or has other software.
        MmmonoError: what a worker raised, such as an embedding that is not finite.
    """
    on_gpu = torch.device(walk.device).type == "cuda"
    if not on_gpu:  # what comes back from a GPU can only be read by a process that has one
        settings = replace(settings, gpus=0)
    ranges = dict(enumerate(walk.ranges()))
    waiting, deaths = sorted(ranges, reverse=True), Counter[int]()
    done: dict[int, Folded] = {}
    merged = 0
    with Cluster(settings) as cluster:
        device = "cuda:0" if on_gpu else "cpu"  # of those that Ray shows a worker
        cluster.hire(FoldWorker, FoldJob(stream.fresh(0), walk.on("cpu"), device), settings.cpus or 1)
        while merged < len(ranges):
            while waiting and len(cluster.running) < cluster.size and waiting[-1] < merged + AHEAD * cluster.size:
                number = waiting.pop()
                cluster.give((number, ranges[number]))
            if len(cluster.running) < cluster.size:
                cluster.dismiss()
            for (number, span), one in cluster.ended():
                if one is not None:
                    done[number] = one
                    advance(walk.view.within(span))
                    continue
                deaths[number] += 1
                if deaths[number] == TRIES:
                    raise DataError(
                        f"pairs {span.start} to {span.stop - 1} of {walk.view.store.path} ended the process that read them "
                        f"{TRIES} times ({cluster.reason[:REASON]}): look at the memory of the machines, and run this again"
                    )
                waiting = sorted([*waiting, number], reverse=True)
            while merged in done:
                yield done.pop(merged)
                merged += 1
