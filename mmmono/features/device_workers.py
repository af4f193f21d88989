"""Worker processes of this machine, one for each device: given tasks, and replaced when they die; see also `Cluster`."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Self

import torch

from mmmono.core.errors import MmmonoError, ProcessError
from mmmono.core.text import one_line
from mmmono.features.cluster import LOOK

PATIENCE = 5.0  # seconds that a process has to leave


class _Started(NamedTuple):
    """A process, this end of its pipe, and the place of its job."""

    process: BaseProcess
    pipe: Connection
    place: int


class DeviceWorkers:
    """One worker process for each job, as a context: they end with it.

    Args:
        worker: made with a job; its method `work` takes a task and returns the outcome, `leave` ends its work.
        jobs: one for each worker at a time; a worker that died is replaced by one with its job.

    Attributes:
        size: number of workers at most.
        running: worker and task by the pipe that the outcome comes through.
        reason: how the last worker died.
    """

    def __init__(self, worker: type, jobs: Sequence[object]) -> None:
        self.size = len(jobs)
        self.running: dict[Any, tuple[_Started, Any]] = {}
        self.reason = ""
        self._worker, self._jobs = worker, jobs
        self._places = list(range(len(jobs)))[::-1]
        self._idle: list[_Started] = []
        self._spawn = multiprocessing.get_context("spawn")
        self._threads = max(1, torch.get_num_threads() // len(jobs))

    def __enter__(self) -> Self:
        return self

    def give(self, task: Any) -> None:
        """Let a worker that has nothing to do, or a new one, do a task."""
        started = self._idle.pop() if self._idle else self._start(self._places.pop())
        with suppress(OSError):  # it has died, as `ended` will find
            started.pipe.send(task)
        self.running[started.pipe] = (started, task)

    def _start(self, place: int) -> _Started:
        mine, its = self._spawn.Pipe()
        process = self._spawn.Process(
            target=_serve, args=(self._worker, self._jobs[place], its, self._threads), name=f"worker {place}"
        )
        process.start()
        its.close()
        return _Started(process, mine, place)

    def ended(self) -> Iterable[tuple[Any, Any]]:
        """Wait a moment; yield the tasks that ended, each with its outcome, or None if its worker died.

        Raises:
            MmmonoError: what a worker raised.
            ProcessError: a worker raised something else.
        """
        ready = wait(list(self.running), timeout=LOOK)
        # Readers that a dead worker has left behind may hold its end of the pipe open.
        dead = [pipe for pipe, (its, _) in self.running.items() if pipe not in ready and not its.process.is_alive()]
        for pipe in [*ready, *dead]:
            started, task = self.running.pop(pipe)
            try:
                if not started.pipe.poll():
                    raise EOFError
                outcome = started.pipe.recv()
            except (EOFError, OSError):
                started.process.join()
                self.reason = f"exit status {started.process.exitcode}"
                self._places.append(started.place)
                yield task, None
                continue
            self._idle.append(started)
            if isinstance(outcome, MmmonoError):
                raise outcome
            yield task, outcome

    def dismiss(self) -> None:
        """End the workers that have nothing to do."""
        idle, self._idle = self._idle, []
        for started in idle:
            with suppress(OSError):
                started.pipe.send(None)
        self._end(idle)

    def _end(self, workers: Sequence[_Started]) -> None:
        for started in workers:
            started.process.join(PATIENCE)
            if started.process.is_alive():
                started.process.kill()
                started.process.join()
            started.pipe.close()
            self._places.append(started.place)

    def __exit__(self, kind: object, *_: object) -> None:
        end = time.monotonic() + PATIENCE
        while kind is None and self.running and time.monotonic() < end:
            with suppress(MmmonoError):  # whose tasks nobody needs any more
                list(self.ended())  # most have done all and only have to say so
        self.dismiss()
        busy = [started for started, _ in self.running.values()]
        self.running = {}
        for started in busy:
            started.process.terminate()
        self._end(busy)


def _serve(worker: type, job: object, pipe: Connection, threads: int) -> None:
    """Work on tasks until there are no more, or the process that gives them ends this one or has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that gives tasks handles interrupts
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    torch.set_num_threads(threads)
    with suppress(SystemExit):
        _work(worker(job), pipe)
    gc.collect()  # readers that were cut short: what they share with their processes would be told of as leaked
    os._exit(0)  # threads of readers may wait for ever


def _work(mine: Any, pipe: Connection) -> None:
    try:
        while (task := pipe.recv()) is not None:
            pipe.send(_outcome(mine, task))
    except (EOFError, OSError):
        pass  # the process that gives tasks has ended
    finally:
        mine.leave()


def _outcome(mine: Any, task: Any) -> Any:
    try:
        return mine.work(task)
    except MmmonoError as error:
        return error
    except Exception as error:  # a bug, too, is the main process's to report
        return ProcessError(f"a worker process ended with {type(error).__name__}: {one_line(str(error))}")
