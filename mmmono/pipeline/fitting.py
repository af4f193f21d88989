"""One process's share of training a dictionary; the whole of it where there is but one."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import get_class
from lightning.fabric.plugins import ClusterEnvironment, TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from mmmono.core.errors import DictionaryError
from mmmono.core.processes import Place, place_of_this_process
from mmmono.dictionaries import (
    ActiveDimensionsPlateau,
    DictionaryModule,
    MetricHistory,
    PairedFeatures,
    Snapshots,
)
from mmmono.dictionaries.resume_checkpoint import ResumeCheckpoint, validation_follows
from mmmono.features import FeatureView
from mmmono.pipeline.feature_sets import Trained
from mmmono.pipeline.trainer_settings import TrainerSettings

CHECKPOINTS = "checkpoints"
SNAPSHOTS = "snapshots"
# DistributedDataParallel need not send rank 0's buffers round before each step; newer PyTorch names the setting anew.
_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
BUFFERS_ARE_EQUAL = {"forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False}


@dataclass(frozen=True)
class Training:
    """All that a process needs to know to train a dictionary, with others or alone.

    Attributes:
        name: of the feature set.
        kind: of dictionary.
        train, val: pairs to fit on, and to validate on.
        normalize: L2-normalize embeddings.
        seed: of weights and order.
        settings: `training.*`, with the batch size of a process.
        trainer: `trainer.*`.
        directory: where checkpoints and snapshots go.
        folder: where relative paths begin.
    """

    name: str
    kind: Trained
    train: FeatureView
    val: FeatureView
    normalize: bool
    seed: int
    settings: Mapping[str, Any]
    trainer: TrainerSettings
    directory: Path
    folder: str = field(default_factory=os.getcwd)

    def work_along(self) -> None:
        """Train with the other processes; rank 0 keeps the result."""
        place = place_of_this_process()
        assert place is not None
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        self.fit(place, logger=False)

    def fit(self, place: Place | None, logger: Any) -> tuple[DictionaryModule, MetricHistory]:
        """The trained dictionary and its curves.

        Args:
            place: of this process among several; None where it is alone.
            logger: Lightning's.

        Raises:
            DictionaryError: training diverged, or was cut short by `trainer.max_time`.
        """
        L.seed_everything(self.seed, workers=True, verbose=False)
        schedule = {
            "warmup_steps": self.settings["warmup_steps"],
            "decay_fraction": self.settings["decay_fraction"],
            "dead_after": round(self.settings["dead_after_epochs"] * len(self.train)),
        }
        module = self.kind.module(self.train, self.normalize, schedule)
        pool, batch_size = self.settings["pool_rows"], self.settings["batch_size"]
        data = PairedFeatures(self.train, self.val, batch_size, self.normalize, self.seed, pool)
        history = MetricHistory()
        trainer = self._trainer(place, logger, history)
        last = self._last
        with _products_in_tf32(self.trainer.tf32), _threads_of_its_own(), _interruptible(trainer):
            trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
        if not all(bool(p.isfinite().all()) for p in module.dictionary.parameters()):
            raise DictionaryError(
                f"training {self.name} diverged: its weights are not finite; lower {self.name}.lr={module.lr}"
            )
        return module, history

    @property
    def _last(self) -> Path:
        return self.directory / CHECKPOINTS / "last.ckpt"

    def _trainer(self, place: Place | None, logger: Any, history: MetricHistory) -> L.Trainer:
        for name in ("lightning", "lightning.pytorch"):  # what hardware it sees is no news for each of many trainings
            logging.getLogger(name).setLevel(logging.WARNING)
        layout, settings = self.trainer.here(), self.settings
        callbacks: list[Any] = [
            ActiveDimensionsPlateau(settings["patience"], settings["min_fall"]),
            history,
            ResumeCheckpoint(str(self._last.parent), settings["checkpoint_every"]),
        ]
        if settings["snapshot_every"]:
            callbacks.append(Snapshots(self.directory / SNAPSHOTS, settings["snapshot_every"]))
        if self.trainer.max_time is not None:
            callbacks.append(TimeLimit(self.trainer.max_time, self._last, self.name))
        interactive = sys.stderr.isatty() and (place is None or place.rank == 0)
        if interactive:
            callbacks.append(TQDMProgressBar(refresh_rate=20))
        arguments = self.trainer.precision_arguments()
        plugins = [*arguments.pop("plugins", []), WholeCheckpoints()]
        if place is not None:
            arguments["strategy"] = DDPStrategy(**BUFFERS_ARE_EQUAL)
            plugins.append(StartedProcesses(place, layout.nodes))
        return get_class(self.trainer.target)(
            **self.trainer.options,
            **arguments,
            accelerator=layout.accelerator,
            devices=layout.devices,
            num_nodes=layout.nodes if place is not None else 1,
            callbacks=callbacks,
            logger=logger,
            plugins=plugins,
            default_root_dir=str(self.directory),
            enable_progress_bar=interactive,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )


class TimeLimit(Callback):
    """Keeps a checkpoint and ends the training when its time is over; what it has made by then is not whole.

    Args:
        duration: from the start of this process's part on; a resumed training has all of it again.
        checkpoint: where the checkpoint goes.
        name: of what is trained, for the error.
    """

    def __init__(self, duration: timedelta, checkpoint: Path, name: str) -> None:
        self.duration = duration
        self.checkpoint = checkpoint
        self.name = name

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the clock."""
        self._over = False
        self._end = time.monotonic() + self.duration.total_seconds()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop in all processes where the time of one is over."""
        self._over = trainer.strategy.reduce_boolean_decision(time.monotonic() >= self._end, all=False)
        if self._over and not validation_follows(trainer):
            self._cut(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop where the time was over before the validation."""
        if self._over:
            self._cut(trainer)

    def _cut(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.checkpoint)
        raise DictionaryError(
            f"training {self.name} was cut short after {trainer.global_step} steps by "
            f"trainer.max_time={self.duration}: run the same command again to go on, for as long again"
        )


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are either whole or the ones before, whenever the process dies or the disk is full.

    Lightning's own are written elsewhere and moved, which between two disks is a copy that can break off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the checkpoint beside its place, then put it there."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as file:  # so that a full disk is an OSError, which it is not if torch opens it
                torch.save(checkpoint, file)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class StartedProcesses(ClusterEnvironment):
    """Tells Lightning the place of this process among those that are there already.

    Args:
        place: this process's.
        nodes: machines as Lightning is to see them; as many as processes where each sees a GPU of its own.
    """

    def __init__(self, place: Place, nodes: int) -> None:
        self._place = place
        self._alone = nodes == place.world_size and nodes != place.nodes

    creates_processes_externally = True

    @property
    def main_address(self) -> str:
        """Where rank 0 is."""
        return self._place.address

    @property
    def main_port(self) -> int:
        """Of the key-value store."""
        return self._place.port

    @staticmethod
    def detect() -> bool:
        """It is given, not detected."""
        return False

    def world_size(self) -> int:
        """Processes on all machines."""
        return self._place.world_size

    def set_world_size(self, size: int) -> None:
        """It is what it is."""

    def global_rank(self) -> int:
        """This process among all."""
        return self._place.rank

    def set_global_rank(self, rank: int) -> None:
        """It is what it is."""

    def local_rank(self) -> int:
        """Which of the machine's devices is this process's."""
        return 0 if self._alone else self._place.local_rank

    def node_rank(self) -> int:
        """The machine's number."""
        return self._place.rank if self._alone else self._place.node


@contextmanager
def _products_in_tf32(allowed: bool) -> Iterator[None]:
    """Let float32 products of a GPU be made in TF32 for a while."""
    before = torch.get_float32_matmul_precision()
    if allowed:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _threads_of_its_own() -> Iterator[None]:
    """Let Lightning share the cores out among processes for a while."""
    threads, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if variable is None:
            os.environ.pop("OMP_NUM_THREADS", None)


@contextmanager
def _interruptible(trainer: L.Trainer) -> Iterator[None]:
    """Pass an interrupt on as one; Lightning makes an exit of it and ignores further ones."""
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
