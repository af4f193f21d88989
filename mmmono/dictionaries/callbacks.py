"""Callbacks of dictionary training: the paper's stopping rule, and the data of Figures 11 to 13."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
from lightning.pytorch.callbacks import Callback


class ActiveDimensionsPlateau(Callback):
    """Stop training once the number of active features falls in neither modality (Appendix A.1).

    The paper takes the rule from Gao et al. 2024.

    Args:
        patience: number of validations without a fall after which training stops.
        min_fall: smallest fall that counts, as a fraction of all features.
    """

    def __init__(self, patience: int = 10, min_fall: float = 0.005) -> None:
        self.patience = patience
        self.min_fall = min_fall
        self.lowest: dict[str, float] = {}
        self.waited = 0
        self._asked = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the numbers of active features with the lowest so far."""
        if trainer.sanity_checking:
            return
        fell = False
        margin = self.min_fall * pl_module.dictionary.num_features
        for name in ("val/image/active", "val/text/active"):
            count = float(trainer.callback_metrics[name])
            if count < self.lowest.get(name, float("inf")) - margin:
                self.lowest[name] = count
                fell = True
        self.waited = 0 if fell else self.waited + 1
        self._tell(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Repeat the stop request of an interrupted run after it resumes."""
        self._tell(trainer)

    def _tell(self, trainer: L.Trainer) -> None:
        """Request a stop while the plateau lasts; the trainer still honors min_epochs and min_steps."""
        plateau = self.waited >= self.patience
        if plateau or self._asked:  # do not clear a stop that another callback requested
            trainer.should_stop = plateau
        self._asked = plateau

    def state_dict(self) -> dict[str, Any]:
        """State to save in the checkpoint."""
        return {"lowest": self.lowest, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.lowest, self.waited = dict(state_dict["lowest"]), state_dict["waited"]


class MetricHistory(Callback):
    """Collect the metrics of every validation in one table, also across resumed runs."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the step, the number of pairs seen and all `val/` metrics."""
        if trainer.sanity_checking:
            return
        row = {"step": float(trainer.global_step), "pairs": float(pl_module.pairs_seen)}
        metrics = sorted(trainer.callback_metrics.items())
        self.rows.append(row | {name: float(value) for name, value in metrics if name.startswith("val/")})

    def frame(self) -> pd.DataFrame:
        """Return a table with one row per validation and one column per metric."""
        return pd.DataFrame(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """State to save in the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.rows = list(state_dict["rows"])


class Snapshots(Callback):
    """Save the dictionary before training and at regular steps, for curves over training (Figure 13).

    Args:
        folder: each snapshot is saved as a dictionary in `<folder>/<step>`.
        every: optimizer steps between snapshots.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder = folder
        self.every = every
        self._last = -1  # with gradient accumulation, several batches share one optimizer step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the untrained dictionary."""
        if trainer.global_step == 0:
            self._keep(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save the dictionary every `every` steps."""
        if trainer.global_step != self._last and trainer.global_step % self.every == 0:
            self._keep(trainer, pl_module)

    def _keep(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._last = trainer.global_step
        if trainer.is_global_zero:
            module.dictionary.save_pretrained(self.folder / f"{trainer.global_step:06d}")
