"""Means over features whose scores share random draws, with standard errors that cover both features and draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True)
class FeatureMean:
    """Mean over features with its standard error.

    Attributes:
        mean: mean; NaN without features.
        error: standard error over features and, if scores were averaged over draws, over draws; NaN for fewer than two
            features.
        count: number of features.
        between: the part of the squared error that is due to the choice of features.
        by_draw: mean of each draw; empty if there are no draws.
    """

    mean: float
    error: float
    count: int
    between: float
    by_draw: Float64[Tensor, " draws"]

    @classmethod
    def of(cls, values: Float[Tensor, " features"]) -> FeatureMean:
        """Estimate the mean of the values that are not NaN, without draws."""
        values = values[~values.isnan()].double()
        count = len(values)
        mean = float(values.mean()) if count else math.nan
        between = float(values.var()) / count if count > 1 else math.nan
        return cls(mean, math.sqrt(between), count, between, torch.empty(0, dtype=torch.float64))

    @classmethod
    def over_draws(cls, values: Float[Tensor, "draws features"]) -> FeatureMean:
        """Estimate the mean over features and draws, two crossed samples.

        Features are scored against the same draws, so a draw moves all of them. With F features, D draws, the variances
        s²_F of the features' means and s²_D of the draws' means, and the mean square s² of the residuals, the mean's
        variance is s²_F / F + s²_D / D − s² / (F D) (random effects of a two-way layout without repetition; Searle,
        Casella and McCulloch 1992, Variance Components, Section 4.3).

        Args:
            values: scores; features with NaN are left out. With one draw, its error is not known and left out.
        """
        values = values[:, ~values.isnan().any(0)].double()
        draws, count = values.shape
        plain = cls.of(values.mean(0))
        if draws < 2 or count < 2:
            return cls(plain.mean, plain.error, count, plain.between, values.mean(1) if count else plain.by_draw)
        by_draw = values.mean(1)
        residuals = values - values.mean(0) - by_draw[:, None] + values.mean()
        square = float(residuals.square().sum()) / ((draws - 1) * (count - 1))
        return cls._of_parts(plain.mean, count, plain.between - square / (count * draws), by_draw)

    @classmethod
    def _of_parts(cls, mean: float, count: int, between: float, by_draw: Tensor) -> FeatureMean:
        of_draws = _squared_error(by_draw)
        error = math.sqrt(max(between, 0.0) + of_draws) if not math.isnan(between) else math.nan
        return cls(mean, error, count, between, by_draw)

    @property
    def draw_error(self) -> float:
        """Standard error over draws alone; NaN for fewer than two."""
        return math.sqrt(_squared_error(self.by_draw)) if len(self.by_draw) > 1 else math.nan

    def above(self, chance: Float64[Tensor, " draws"]) -> FeatureMean:
        """Return the mean minus the chance level, which was measured in each of the draws."""
        return self._of_parts(
            self.mean - float(chance.mean()),
            self.count,
            self.between,
            self.by_draw - chance if self.count else chance[:0],
        )

    def __sub__(self, other: FeatureMean) -> FeatureMean:
        """Difference of the means of two classes of features, scored in the same draws; `count` is the smaller one.

        What a draw adds to both means, such as the chance level, cancels.
        """
        both = len(self.by_draw) == len(other.by_draw)
        by_draw = self.by_draw - other.by_draw if both else self.by_draw[:0]
        return self._of_parts(
            self.mean - other.mean, min(self.count, other.count), self.between + other.between, by_draw
        )


def _squared_error(by_draw: Tensor) -> float:
    return float(by_draw.var()) / len(by_draw) if len(by_draw) > 1 else 0.0
