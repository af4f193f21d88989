"""Several pieces of work in one process that take turns: one goes on at a time, and next the one that is furthest behind.

So pieces that all read the same data can read it together, in step, without knowing of each other.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from mmmono.core.seeding import Generators
from mmmono.core.timing import others_built

Result = TypeVar("Result")
Progress = tuple[float, ...]  # how far a piece of work has come; compared as tuples are, and () is the start
END: Progress = (math.inf,)
MAIN = -1  # number of the thread that made the turns
PATIENCE = 60.0  # seconds for all pieces of work to end, from when they are cancelled
NAP = 0.5  # longest single wait in seconds: an interrupt that comes just before a wait begins is noticed when it ends


class Cancelled(BaseException):
    """Ends a piece of work because another has failed, or the user has interrupted all."""


class Turns(Generic[Result]):
    """Pieces of work, and whose turn it is. As a context manager it ends them with the block.

    Each piece runs in a thread of its own, because libraries keep state for each thread, but only while it has the turn.
    It keeps the turn until it says by `wait` how far it has come; then the piece that is furthest behind goes on, of
    several the one that was added first. The order depends on nothing else. So it is the same in each of several
    processes that do the same work, whose collective operations therefore meet.

    The thread that makes this object takes part as well. It has the first turn, and goes before others that are as far.

    Random numbers do not depend on the other pieces: each finds the global generators as it left them.

    Args:
        bearable: errors that end only the piece that raises them; any other error ends all.
    """

    def __init__(self, bearable: tuple[type[Exception], ...] = ()) -> None:
        self._bearable = bearable
        self._changed = threading.Condition()
        self._progress: dict[int, Progress] = {MAIN: ()}
        self._turn: int | None = MAIN
        self._cancelled = False
        self._own = threading.local()
        self._threads: list[threading.Thread] = []
        self._futures: list[Future[Result]] = []

    def add(self, work: Callable[[], Result]) -> None:
        """Add a piece of work, which begins when it has the turn."""
        number = len(self._threads)
        future: Future[Result] = Future()
        with self._changed:
            self._progress[number] = ()
        run = partial(copy_context().run, self._run, number, work, future)
        # A daemon thread, so that a second interrupt ends the process whatever the work is at.
        thread = threading.Thread(target=run, name=f"work {number}", daemon=True)
        self._threads.append(thread)
        self._futures.append(future)
        thread.start()

    def wait(self, progress: Progress) -> None:
        """Let those that are further behind go on; return when nobody is.

        Args:
            progress: how far the calling thread has come; never less than before.

        Raises:
            Cancelled: another piece has failed, and this one is to end.
        """
        number = getattr(self._own, "number", MAIN)
        with self._changed:
            self._progress[number] = progress
            if self._pass_on() != number:
                generators = Generators.now()
                with others_built():
                    while not self._changed.wait_for(lambda: self._turn == number, NAP):
                        pass
                generators.restore()
            if self._cancelled and number != MAIN:
                raise Cancelled

    def results(self) -> list[Result]:
        """Wait for all pieces, and return their results in the order in which they were added.

        Raises:
            BaseException: the error of the first piece that failed by itself.
        """
        self.wait(END)
        errors = [error for future in self._futures if (error := future.exception()) is not None]
        for error in errors:
            if not isinstance(error, Cancelled):
                raise error
        return [future.result() for future in self._futures]

    def __enter__(self) -> Self:
        """Return the turns."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Wait for all pieces; if the block has failed, cancel them, and wait no longer for one that hangs."""
        with self._changed:
            self._cancelled |= error is not None
            self._leave(MAIN)
        since = time.monotonic()
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() - since < PATIENCE:
                thread.join(NAP)
                since = since if self._cancelled else time.monotonic()

    def _run(self, number: int, work: Callable[[], Result], future: Future[Any]) -> None:
        self._own.number = number
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._turn == number)
                if self._cancelled:
                    raise Cancelled
            future.set_result(work())
        except BaseException as error:
            self._cancelled |= not isinstance(error, self._bearable)
            future.set_exception(error)
        finally:
            with self._changed:
                self._leave(number)

    def _leave(self, number: int) -> None:
        del self._progress[number]
        if self._turn == number:
            self._pass_on()

    def _pass_on(self) -> int | None:
        """Give the turn to whoever is furthest behind, and return its number; None if nobody is left."""
        self._turn = min(self._progress, key=lambda number: (self._progress[number], number), default=None)
        self._changed.notify_all()
        return self._turn
