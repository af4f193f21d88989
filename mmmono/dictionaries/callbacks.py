"""Callbacks of dictionary training: the stopping rule, and the data of Figures 11 to 13."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
from lightning.pytorch.callbacks import Callback

from mmmono.core.ranges import check_number, check_whole

ACTIVE, LOSS = "active dimensions", "loss"


class TrainingPlateau(Callback):
    """Stop training once neither the numbers of active features nor the validation loss fall any more.

    The paper stops when the active features of neither modality become fewer (Appendix A.1, after Gao et al. 2024). Where
    their number is constant from the first validation on, that is so at once, whether or not the dictionary still
    improves. Therefore the loss on the validation pairs is watched as well: `val/loss`, or else the mean of both
    modalities' `val/*/fvu`. Each of the two has to stay without a fall for `patience` validations.

    Args:
        patience: number of validations without a fall after which training stops.
        min_fall: smallest fall of a number of active features that counts, as a fraction of all features.
        min_gain: smallest fall of the loss that counts, as a fraction of the loss; None stops by the active features
            alone, as the paper does. A dictionary that logs neither loss nor FVU is stopped by them alone, too.
    """

    def __init__(self, patience: int = 10, min_fall: float = 0.005, min_gain: float | None = None) -> None:
        check_whole("patience", patience)
        check_number("min_fall", min_fall, least=0)
        if min_gain is not None:
            check_number("min_gain", min_gain, least=0)
        self.patience = patience
        self.min_fall = min_fall
        self.min_gain = min_gain
        self.lowest: dict[str, float] = {}
        self.waited = {ACTIVE: 0, LOSS: 0}  # validations since each of them has fallen
        self.since: int | None = None  # step at which the current plateau was noticed; None if there is none
        self._asked = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the numbers of active features and the loss with the lowest so far."""
        if trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        margin = self.min_fall * pl_module.dictionary.num_features
        active = [self._falls(name, metrics[name], margin) for name in ("val/image/active", "val/text/active")]
        self.waited[ACTIVE] = 0 if any(active) else self.waited[ACTIVE] + 1
        loss = None if self.min_gain is None else _validation_loss(metrics)
        if loss is None:
            self.waited[LOSS] = self.waited[ACTIVE]
        else:
            assert self.min_gain is not None
            fell = self._falls(LOSS, loss, self.min_gain * abs(self.lowest.get(LOSS, loss)))
            self.waited[LOSS] = 0 if fell else self.waited[LOSS] + 1
        if not self._plateau:
            self.since = None
        elif self.since is None:
            self.since = trainer.global_step
        self._tell(trainer)

    def _falls(self, name: str, value: float, margin: float) -> bool:
        """Whether a value is below the lowest of its name by more than the margin; it is then the lowest."""
        fell = value < self.lowest.get(name, float("inf")) - margin
        if fell:
            self.lowest[name] = value
        return fell

    @property
    def _plateau(self) -> bool:
        return min(self.waited.values()) >= self.patience

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Repeat the stop request of an interrupted run after it resumes."""
        self._tell(trainer)

    def _tell(self, trainer: L.Trainer) -> None:
        """Request a stop while the plateau lasts; the trainer still honors min_epochs and min_steps."""
        if self._plateau or self._asked:  # do not clear a stop that another callback requested
            trainer.should_stop = self._plateau
        self._asked = self._plateau

    def ended_by(self, trainer: L.Trainer) -> str:
        """Name what ended a finished training.

        Returns:
            `max_steps` or `max_epochs`; `min_steps` if the plateau was there before the smallest number of steps; else
            what stopped falling last, `active dimensions` or `loss`, or `active dimensions and loss` for both at once.
        """
        if 0 < trainer.max_steps <= trainer.global_step:
            return "max_steps"
        if not self._plateau or self.since is None:
            return "max_epochs"
        if self.since < (trainer.fit_loop.min_steps or 0):
            return "min_steps"
        if self.min_gain is None or LOSS not in self.lowest:
            return ACTIVE
        last = [name for name, waited in self.waited.items() if waited == min(self.waited.values())]
        return " and ".join(last)

    def state_dict(self) -> dict[str, Any]:
        """State to save in the checkpoint."""
        return {"lowest": self.lowest, "waited": self.waited, "since": self.since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.lowest, self.waited = dict(state_dict["lowest"]), dict(state_dict["waited"])
        self.since = state_dict["since"]


def _validation_loss(metrics: Mapping[str, float]) -> float | None:
    """The validation loss, or else the mean FVU of both modalities; None if neither is logged."""
    if "val/loss" in metrics:
        return metrics["val/loss"]
    fvu = [metrics[name] for name in ("val/image/fvu", "val/text/fvu") if name in metrics]
    return sum(fvu) / len(fvu) if fvu else None


class MetricHistory(Callback):
    """Collect the metrics of every validation in one table, also across resumed runs."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.ended_by = ""  # set after training: see `TrainingPlateau.ended_by`

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

    def __init__(self, folder: str | Path, every: int) -> None:
        check_whole("every", every)
        self.folder = Path(folder)
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
