"""End a command in one line if it is interrupted, or if what it prints can be written no more.

This module imports nothing of other packages, so that it is there before anything that takes time to import.
"""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = "interrupted: run the same command again to go on"


class OutputError(Exception):
    """Standard output takes no more. No OSError, which would be one of the artifacts' disk."""


class _Output(io.FileIO):
    """Standard output that fails once, and then drops what is written, as Python does once more when it ends."""

    failed: OutputError | None = None

    def write(self, data: Any, /) -> int:
        if self.failed is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failed = OutputError(error.errno, error.strerror)
                raise self.failed from error
        return len(memoryview(data).cast("B"))


@contextmanager
def ending_in_a_line() -> Iterator[None]:
    """End the process with one line where an interrupt, or standard output that takes no more, would give a traceback.

    An interrupt has status 130. A full disk or the like has status 1, and so has a reader who left, such as `head`; of that
    nothing is said.
    """
    try:
        with _watched_output():
            yield
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    except OutputError as error:
        number, reason = error.args
        if number != errno.EPIPE:
            print(
                f"error: standard output cannot be written ({reason}): send it elsewhere, and run the same command again; "
                "what is finished is kept",
                file=sys.stderr,
            )
        sys.exit(1)


@contextmanager
def _watched_output() -> Iterator[None]:
    """Replace standard output by one that raises OutputError, at the latest when all has been written."""
    before = sys.stdout
    if type(before) is not io.TextIOWrapper or isinstance(before.buffer, _Output) or before.fileno() != 1:
        yield  # closed, of a test or a notebook, or replaced already
        return
    output = _Output(1, "w", closefd=False)
    unbuffered = isinstance(before.buffer, io.RawIOBase)
    sys.stdout = after = io.TextIOWrapper(
        output if unbuffered else io.BufferedWriter(output),
        before.encoding,
        before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )
    try:
        yield
    finally:
        after.flush()
        sys.stdout = before
    if output.failed is not None:  # where nobody passed it on, as in what logs
        raise output.failed
