"""What SIGTERM does to a training, such as when Slurm or Kubernetes preempts it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from mmmono.core.processes import exit_at_once

TERMINATED = 128 + signal.SIGTERM  # exit status, as a shell tells it
SAID = b"stopped by SIGTERM; run the same command again to go on from the last checkpoint\n"


class Termination(Callback):
    """End the process on SIGTERM.

    Lightning's handler tells the other processes by a broadcast from within the handler. Where they are in another exchange,
    it never returns, and the training hangs until it is killed. Here the process ends, and with it the others, as
    whenever one is lost. A handler of whoever runs the training, such as submitit's, keeps the signal.

    Args:
        tells: whether this process says on standard error that it was stopped.
    """

    def __init__(self, tells: bool) -> None:
        self.tells = tells
        self._before: Any = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note who handles the signal before Lightning does."""
        self._before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the place of Lightning's handler, which restores the one before it in the end."""
        if threading.current_thread() is threading.main_thread():  # in others no signal arrives
            others = self._before is not None and self._before is not signal.SIG_DFL
            signal.signal(signal.SIGTERM, self._before if others else _tell_and_end if self.tells else _end)

    on_validation_start = on_train_start  # a validation may follow on its own


@contextmanager
def ending_with_a_line() -> Iterator[None]:
    """Let SIGTERM end the process with a line, for trainings in other threads than the main one, which no signal reaches."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _tell_and_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _tell_and_end(*_: int | FrameType | None) -> None:
    os.write(2, SAID)  # whatever the process is printing
    sys.exit(TERMINATED)


def _tell_and_exit(*_: int | FrameType | None) -> None:
    os.write(2, SAID)
    exit_at_once(TERMINATED)


def _end(*_: int | FrameType | None) -> None:
    sys.exit(TERMINATED)
