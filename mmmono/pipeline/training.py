"""Trains a dictionary into an artifact: resumes where an interrupted run stopped, keeps weights, curves and checkpoints."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import TQDMProgressBar
from omegaconf import DictConfig, OmegaConf

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.errors import ConfigError, DictionaryError
from mmmono.dictionaries import ActiveDimensionsPlateau, Dictionary, MetricHistory, PairedFeatures, Snapshots
from mmmono.dictionaries.resume_checkpoint import ResumeCheckpoint
from mmmono.pipeline.feature_sets import Control, Trained
from mmmono.pipeline.tracking import HISTORY_FILE, current_tracker
from mmmono.reporting.style import save_figure
from mmmono.reporting.training_figures import training_curves

if TYPE_CHECKING:
    from mmmono.pipeline.workspace import Features

CHECKPOINTS = "checkpoints"
SNAPSHOTS = "snapshots"


def train_dictionary(
    artifacts: Artifacts, name: str, kind: Trained, train: Features, val: Features, cfg: DictConfig
) -> Artifact:
    """The dictionary these settings make of these features, trained unless it is there.

    Raises:
        ConfigError: settings that do not fit the features.
        DictionaryError: training diverged.
    """
    settings, normalize = cfg.training, cfg.features.normalize
    steps, interval = cfg.trainer.max_steps, cfg.trainer.val_check_interval
    if isinstance(interval, int) and 0 <= steps < interval:
        raise ConfigError(
            f"trainer.max_steps={steps} ends before the first validation at trainer.val_check_interval={interval}: "
            "raise the one or lower the other"
        )
    batch_size = settings.batch_size or automatic_batch_size(len(train.view))
    trainer = OmegaConf.to_container(cfg.trainer, resolve=True)
    assert isinstance(trainer, dict)
    recipe = {
        "kind": name,
        "settings": dict(kind.settings),
        "features": train.recipe,
        "validation": val.recipe,
        "normalize": normalize,
        "seed": cfg.seed,
        "training": {**OmegaConf.to_container(settings), "batch_size": batch_size},  # type: ignore[dict-item]
        # The accelerator is left out: what a GPU trained serves on a CPU.
        "trainer": {k: v for k, v in trainer.items() if k not in ("_target_", "accelerator", "log_every_n_steps")},
    }
    schedule = {
        "warmup_steps": settings.warmup_steps,
        "decay_fraction": settings.decay_fraction,
        "dead_after": round(settings.dead_after_epochs * len(train.view)),
    }

    def make(directory: Path) -> None:
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        module = kind.module(train.view, normalize, schedule)
        data = PairedFeatures(train.view, val.view, batch_size, normalize, cfg.seed, settings.pool_rows)
        history = MetricHistory()
        run = _trainer(cfg, directory, settings, history, title=f"train {name}")
        last = directory / CHECKPOINTS / "last.ckpt"
        run.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
        if run.interrupted:
            raise KeyboardInterrupt
        if not all(bool(p.isfinite().all()) for p in module.dictionary.parameters()):
            raise DictionaryError(f"training {name} diverged: its weights are not finite; lower {name}.lr={module.lr}")
        module.dictionary.save_pretrained(directory)
        curves = history.frame()
        curves.to_parquet(directory / HISTORY_FILE, index=False)
        save_figure(training_curves(curves, name), directory / "training_curves")

    return artifacts.build("dictionaries", f"{name}-{train.store.path.name}", recipe, make, resumable=True)


def fit_control(
    artifacts: Artifacts, name: str, kind: Control, train: Features, normalize: bool, seed: int
) -> Artifact:
    """The control fitted to these features, unless it is there."""
    recipe = {
        "kind": name, "settings": dict(kind.settings), "features": train.recipe, "normalize": normalize, "seed": seed
    }  # fmt: skip
    name = f"{name}-{train.store.path.name}"
    return artifacts.build(
        "dictionaries", name, recipe, lambda directory: kind.fit(train.view, normalize, seed).save_pretrained(directory)
    )


def snapshots(directory: Path) -> Iterator[tuple[int, Dictionary]]:
    """The dictionary at each kept step of its training (`training.snapshot_every`), in order."""
    for folder in sorted((directory / SNAPSHOTS).glob("[0-9]*")):
        yield int(folder.name), Dictionary.from_pretrained(folder)


def automatic_batch_size(pairs: int) -> int:
    """The largest power of two up to 4096 that makes at least eight batches an epoch, but at least 64."""
    size = 4096
    while size > 64 and size * 8 > pairs:
        size //= 2
    return min(size, max(1, pairs))


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


def _trainer(cfg: DictConfig, directory: Path, settings: DictConfig, history: MetricHistory, title: str) -> L.Trainer:
    for name in ("lightning", "lightning.pytorch"):  # what hardware it sees is no news for each of many trainings
        logging.getLogger(name).setLevel(logging.WARNING)
    checkpoints = directory / CHECKPOINTS
    callbacks: list[Any] = [
        ActiveDimensionsPlateau(settings.patience, settings.min_fall),
        history,
        ResumeCheckpoint(str(checkpoints), settings.checkpoint_every),
    ]
    if settings.snapshot_every:
        callbacks.append(Snapshots(directory / SNAPSHOTS, settings.snapshot_every))
    interactive = sys.stderr.isatty()
    if interactive:
        bar = TQDMProgressBar(refresh_rate=20)
        callbacks.append(bar)
    return instantiate(
        cfg.trainer,
        callbacks=callbacks,
        logger=current_tracker().training_logger(directory),
        plugins=[WholeCheckpoints()],
        default_root_dir=str(directory),
        enable_progress_bar=interactive,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
