"""Statistics that every analysis reports: an estimate with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate with an interval.

    Attributes:
        value: the estimate.
        low, high: bounds of the interval; NaN if there are too few samples for one.
        level: confidence level.
        method: how the bounds were computed, such as `percentile bootstrap` or `Wilson`.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    level: float = 0.95
    method: str = ""

    def columns(self, name: str) -> dict[str, float]:
        """Cells of a saved table: the estimate as `<name>`, its bounds as `<name>_low` and `<name>_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    @property
    def bounded(self) -> bool:
        """Whether the interval has bounds."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __str__(self) -> str:
        if not self.bounded:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
