"""Train a dictionary with Lightning, in one process or in one of several."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
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

from mmmono.core.errors import DictionaryError, NonFiniteError
from mmmono.core.gpu_memory import enough_gpu_memory
from mmmono.core.process_group import Place, place_of_this_process
from mmmono.core.seeding import seed_everything
from mmmono.dictionaries import (
    DictionaryModule,
    MetricHistory,
    PairedFeatures,
    Snapshots,
    TrainingPlateau,
)
from mmmono.dictionaries.one_pass import OnePass, SharedPairs
from mmmono.dictionaries.resume_checkpoint import ResumeCheckpoint, validation_follows
from mmmono.features import FeatureView
from mmmono.pipeline.specs import Trained
from mmmono.pipeline.termination import TERMINATED, Termination
from mmmono.pipeline.trainer_settings import TrainerSettings
from mmmono.pipeline.training_settings import SNAPSHOTS, TrainingSettings

CHECKPOINTS = "checkpoints"
# All processes have equal buffers, so DistributedDataParallel need not broadcast them before each step. Newer PyTorch
# versions have renamed the argument.
_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
BUFFERS_ARE_EQUAL = {"forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False}

Trainee = tuple[DictionaryModule, MetricHistory]  # a trained dictionary, and its metrics at each validation


@dataclass(frozen=True)
class Training:
    """Everything that a process needs to train a dictionary, alone or together with others.

    Attributes:
        name: name of the feature set.
        kind: kind of dictionary, with its settings.
        train, val: pairs to train on, and to validate on.
        normalize: whether to L2-normalize embeddings.
        seed: seed of the weights and of the order of pairs.
        settings: `training.*`, with the batch size per process.
        trainer: `trainer.*`.
        directory: folder for checkpoints and snapshots.
        folder: working directory, to which relative paths refer.
        row: line of its progress bar, where several trainings show one.
    """

    name: str
    kind: Trained
    train: FeatureView
    val: FeatureView
    normalize: bool
    seed: int
    settings: TrainingSettings
    trainer: TrainerSettings
    directory: Path
    folder: str = field(default_factory=os.getcwd)
    row: int = 0

    def work_along(self) -> None:
        """Train together with the other processes, in a process other than rank 0, which keeps the result."""
        self.fit(self.place_beside_rank_0(), logger=False)

    def place_beside_rank_0(self) -> Place:
        """Go to rank 0's working directory, in another process; return the place of that process."""
        place = place_of_this_process()
        assert place is not None
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        return place

    def fit(self, place: Place | None, logger: Any, one_pass: OnePass | None = None) -> Trainee:
        """Train, resuming from the last checkpoint if there is one.

        Args:
            place: rank and address of this process among several; None if it is the only one.
            logger: Lightning logger, or False for none.
            one_pass: what is shared with other trainings that take turns with this one; None if it trains alone.

        Returns:
            The module with the trained dictionary, and the metrics at each validation with what ended the training.

        Raises:
            DictionaryError: training diverged, or reached `trainer.max_time`.
        """
        seed_everything(self.seed)
        schedule = {
            "warmup_steps": self.settings.warmup_steps,
            "decay_fraction": self.settings.decay_fraction,
            "dead_after": max(1, round(self.settings.dead_after_epochs * len(self.train))),
        }
        module = self.kind.module(self.train, self.normalize, schedule)
        assert self.settings.batch_size is not None
        pairs = self.train, self.val, self.settings.batch_size, self.normalize, self.seed, self.settings.pool_rows
        data = PairedFeatures(*pairs) if one_pass is None else SharedPairs(one_pass, *pairs)
        history = MetricHistory()
        plateau = TrainingPlateau(self.settings.patience, self.settings.min_fall, self.settings.min_gain)
        trainer = self._trainer(place, logger, [plateau, history])
        last = self._last
        size, pool = self.settings.batch_size, self.settings.pool_rows
        smaller = f"lower training.batch_size={size}, or training.pool_rows={pool}, the pairs that the GPU holds"
        tf32 = self.trainer.tf32
        with enough_gpu_memory(smaller), process_settings(tf32), _interruptible(trainer), self._finite(module):
            trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
            history.ended_by = plateau.ended_by(trainer)
            if history.rows[-1]["step"] != trainer.global_step:  # the last metrics are to be those of the final weights
                trainer.validate(module, data, verbose=False)
        if place is None or place.rank == 0:  # which keeps the result
            self.kind.finish(module.dictionary, self.train, self.normalize)
        return module, history

    @contextmanager
    def _finite(self, module: DictionaryModule) -> Iterator[None]:
        """Raise DictionaryError if weights or codes are not finite; embeddings are checked when they are read."""
        diverged = (
            f"training {self.name} diverged: its weights or codes are not finite; lower {self.name}.lr={module.lr}"
        )
        try:
            yield
        except NonFiniteError as error:
            raise DictionaryError(diverged) from error
        if not all(bool(p.isfinite().all()) for p in module.dictionary.parameters()):
            raise DictionaryError(diverged)

    @property
    def _last(self) -> Path:
        return self.directory / CHECKPOINTS / "last.ckpt"

    def _trainer(self, place: Place | None, logger: Any, watching: list[Callback]) -> L.Trainer:
        for name in ("lightning", "lightning.pytorch"):  # do not print the hardware for each training
            logging.getLogger(name).setLevel(logging.WARNING)
        layout, settings = self.trainer.here(), self.settings
        first = place is None or place.rank == 0
        resume = ResumeCheckpoint(str(self._last.parent), settings.checkpoint_every)
        callbacks: list[Any] = [*watching, resume, Termination(tells=first)]
        if settings.snapshot_every:
            callbacks.append(Snapshots(self.directory / SNAPSHOTS, settings.snapshot_every))
        if self.trainer.max_time is not None:
            callbacks.append(TimeLimit(self.trainer.max_time, self._last, self.name))
        interactive = sys.stderr.isatty() and first
        if interactive:
            callbacks.append(TQDMProgressBar(refresh_rate=20, process_position=self.row))
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
    """Save a checkpoint and end an unfinished training with a DictionaryError when its time is over.

    Args:
        duration: time limit, from the start of training; a resumed training has the full time again.
        checkpoint: path of the checkpoint.
        name: name of the dictionary, for the error message.
    """

    def __init__(self, duration: timedelta, checkpoint: Path, name: str) -> None:
        self.duration = duration
        self.checkpoint = checkpoint
        self.name = name
        self._over = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._over = False
        self._end = time.monotonic() + self.duration.total_seconds()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop all processes if the time of one is over, unless a validation follows."""
        self._over = trainer.strategy.reduce_boolean_decision(time.monotonic() >= self._end, all=False)
        if self._over and not validation_follows(trainer):
            self._cut(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if the time was over before the validation."""
        if self._over:
            self._cut(trainer)

    def _cut(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.checkpoint)
        raise DictionaryError(
            f"training {self.name} was cut short after {trainer.global_step} steps by "
            f"trainer.max_time={self.duration}: run the same command again to go on, for as long again"
        )


class WholeCheckpoints(TorchCheckpointIO):
    """Write checkpoints atomically: if the process dies or the disk is full, the previous checkpoint stays.

    Lightning writes a temporary file elsewhere and moves it, which between two disks is a copy that can be interrupted.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the checkpoint to a temporary file in the same folder, then rename it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as file:  # a full disk is then an OSError; it is not if torch opens the file
                torch.save(checkpoint, file)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint. Raises DictionaryError if it is not whole, as after a power failure."""
        try:
            return super().load_checkpoint(path, *args, **kwargs)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the file may hold anything
            # An error of the system says nothing about the file, but for EINVAL: PyTorch asked for a place beyond its end.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            reason = " ".join((str(error) or type(error).__name__).split())[:120]
            raise DictionaryError(
                f"{path} is no whole checkpoint ({reason}): remove it, and run the same command again, which then trains "
                "from the beginning"
            ) from error


class StartedProcesses(ClusterEnvironment):
    """Tell Lightning the rank of this process among processes that are already running.

    Args:
        place: rank and address of this process.
        nodes: number of machines as Lightning sees them; the number of processes if each process sees only one GPU.
    """

    def __init__(self, place: Place, nodes: int) -> None:
        self._place = place
        self._alone = nodes == place.world_size and nodes != place.nodes

    creates_processes_externally = True

    @property
    def main_address(self) -> str:
        """Address of the key-value store."""
        return self._place.address

    @property
    def main_port(self) -> int:
        """Port of the key-value store."""
        return self._place.port

    @staticmethod
    def detect() -> bool:
        """Return False: this environment is passed explicitly, not detected."""
        return False

    def world_size(self) -> int:
        """Number of processes on all machines."""
        return self._place.world_size

    def set_world_size(self, size: int) -> None:
        """Do nothing: the number of processes is fixed."""

    def global_rank(self) -> int:
        """Rank of this process among all."""
        return self._place.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the rank is fixed."""

    def local_rank(self) -> int:
        """Index of this process's device among those that it sees."""
        return 0 if self._alone else self._place.local_rank

    def node_rank(self) -> int:
        """Index of this process's machine, as Lightning sees them."""
        return self._place.rank if self._alone else self._place.node


@contextmanager
def process_settings(tf32: bool) -> Iterator[None]:
    """Change settings of the whole process for a training, and restore them.

    Restored as well are the number of threads and OMP_NUM_THREADS, which Lightning changes for several processes.

    Args:
        tf32: allow TF32 for float32 matrix products on a GPU.
    """
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    variable = os.environ.get("OMP_NUM_THREADS")
    if tf32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if variable is None:
            os.environ.pop("OMP_NUM_THREADS", None)


@contextmanager
def _interruptible(trainer: L.Trainer) -> Iterator[None]:
    """Raise KeyboardInterrupt on an interrupt, which Lightning turns into SystemExit, and handle further ones again."""
    try:
        yield
    except SystemExit as ending:
        if not trainer.interrupted or ending.code == TERMINATED:
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
