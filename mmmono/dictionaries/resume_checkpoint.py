"""The checkpoint that an interrupted training resumes from."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


def validation_follows(trainer: L.Trainer) -> bool:
    """Whether the trainer validates after the batch that has just ended."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


class ResumeCheckpoint(ModelCheckpoint):
    """Save `last.ckpt` every `every` steps, after the validation of that step if there is one.

    Lightning's own callback saves before that validation. A run that resumes from such a checkpoint skips the
    validation, so its metrics and the stopping rule's update would be missing.

    Args:
        folder: where the checkpoint is written.
        every: optimizer steps between checkpoints.
    """

    def __init__(self, folder: str, every: int) -> None:
        super().__init__(folder, filename="last", every_n_train_steps=every, enable_version_counter=False)
        self._waits_for_validation = False

    @property
    def state_key(self) -> str:
        """Name of its state in a checkpoint; Lightning's has `every` in it, which a resumed training may change."""
        return type(self).__name__

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save now, or after the validation that follows this step."""
        self._waits_for_validation = validation_follows(trainer)
        if not self._waits_for_validation:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save a checkpoint that waited for this validation; Lightning calls this after all other callbacks."""
        super().on_validation_end(trainer, pl_module)
        if self._waits_for_validation:
            self._waits_for_validation = False
            super().on_train_batch_end(trainer, pl_module, None, None, 0)
