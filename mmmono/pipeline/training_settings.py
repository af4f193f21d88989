"""Settings of training that do not concern Lightning's trainer (`training.*`)."""

from __future__ import annotations

from dataclasses import dataclass

from mmmono.features.selection import Split

SNAPSHOTS = "snapshots"  # folder of a dictionary that keeps those of `snapshot_every`


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the section `training`.

    Attributes:
        split: split that dictionaries are trained on.
        validation: split by which training stops and settings are compared, or `auto`.
        batch_size: pairs per batch and process; None for a size that follows from the number of pairs.
        pool_rows: number of pairs that are shuffled together.
        warmup_steps: steps over which the learning rate rises.
        decay_fraction: share of the steps, the last ones, over which it falls to 0.
        dead_after_epochs: passes over the training split after which a feature that has not fired is dead.
        patience: validations without a fall of the active dimensions before training stops.
        min_fall: smallest fall that counts, as a share of all features.
        validation_pairs: most pairs that a validation takes, about; None for all of the split.
        min_gain: smallest relative fall of the validation loss that counts; None to stop without regard to the loss.
        checkpoint_every: steps between checkpoints from which an interrupted training resumes.
        snapshot_every: steps between snapshots that are kept; None for none.
        together: whether several dictionaries are trained in one pass over the pairs.
    """

    split: Split
    validation: str
    batch_size: int | None
    pool_rows: int
    warmup_steps: int
    decay_fraction: float
    dead_after_epochs: float
    patience: int
    min_fall: float
    validation_pairs: int | None
    min_gain: float | None
    checkpoint_every: int
    snapshot_every: int | None
    together: bool

    def __post_init__(self) -> None:
        least = {
            "warmup_steps": 0,
            "decay_fraction": 0,
            "patience": 1,
            "min_fall": 0,
            "pool_rows": 1,
            "checkpoint_every": 1,
        }
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {low}")
        if not self.decay_fraction <= 1:
            raise ValueError(f"decay_fraction={self.decay_fraction} is a share of the steps: give at most 1")
        if self.min_gain is not None and not self.min_gain >= 0:
            raise ValueError(f"min_gain={self.min_gain} must be at least 0, or null to stop without the loss")
        if not self.dead_after_epochs > 0:
            raise ValueError(f"dead_after_epochs={self.dead_after_epochs} must be above 0")
        for name in ("batch_size", "validation_pairs", "snapshot_every"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name}={value} must be at least 1, or null")
