"""What SIGTERM does to a training, such as when Slurm or Kubernetes preempts it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

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
            signal.signal(signal.SIGTERM, self._before if others else self._end)

    on_validation_start = on_train_start  # a validation may follow on its own

    def _end(self, *_: int | FrameType | None) -> None:
        if self.tells:
            os.write(2, SAID)  # whatever the process is printing
        sys.exit(TERMINATED)
