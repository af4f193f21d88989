"""Statistics that every analysis reports: estimates with intervals and p-values, for the ways in which samples depend.

What is printed is an `Interval`. An `Estimate` is an estimate with its standard error, from which interval, p-value and
equivalence bound follow. `make calibrate` measures how often these intervals cover, and how often the tests err.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student

Array = np.ndarray[Any, Any]
LEAST_SHARE = 0.75  # least variance of a crossed mean, relative to that of independent values; see `crossed_mean`


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


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error; (estimate − truth) / error is taken to follow Student's t distribution.

    Attributes:
        value: the estimate.
        error: its standard error; NaN if there are too few samples for one.
        freedom: degrees of freedom of the error.
        method: how the error was computed.
    """

    value: float
    error: float = math.nan
    freedom: float = math.nan
    method: str = ""

    def interval(self, level: float = 0.95) -> Interval:
        """Interval of Student's t; without bounds if there is no error."""
        half = self.error * _quantile((1 + level) / 2, self.freedom)
        return Interval(self.value, self.value - half, self.value + half, level, self.method)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the hypothesis that the truth is 0; NaN if there is no error."""
        if math.isnan(self.error):
            return math.nan
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * student.sf(abs(self.value) / self.error, self.freedom))

    def equivalence_bound(self, confidence: float = 0.95) -> float:
        """Smallest x such that |truth| < x is shown with this confidence; NaN if there is no error.

        Two one-sided tests (TOST; Schuirmann 1987) reject |truth| ≥ x at 1 − confidence for all larger x. Small means
        that no relevant difference is there; a large one means that too little was measured, whatever the p-value.
        """
        return abs(self.value) + self.error * _quantile(confidence, self.freedom)

    def detectable(self, power: float = 0.8, level: float = 0.95) -> float:
        """Smallest |truth| that such a measurement would show to differ from 0 with this power; NaN without an error.

        Uses the approximation (t at (1 + level) / 2 + t at power) · error (Bloom 1995).
        """
        return self.error * (_quantile((1 + level) / 2, self.freedom) + _quantile(power, self.freedom))


def _quantile(probability: float, freedom: float) -> float:
    return float(student.ppf(probability, freedom)) if freedom > 0 else math.nan


def t_mean(values: Float[Array, " values"]) -> Estimate:
    """Mean of independent values, such as one for each seed, with n − 1 degrees of freedom (Student 1908).

    Raises:
        ValueError: there is no value.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        raise ValueError("no values to average")
    if len(values) < 2:
        return Estimate(float(values.mean()), method="t")
    error = values.std(ddof=1) / math.sqrt(len(values))
    return Estimate(float(values.mean()), float(error), len(values) - 1, "t")


def group_mean(values: Float[Array, " values"], groups: Int[Array, " values"]) -> Estimate:
    """Mean of values that depend on each other within groups, such as the captions of one image.

    The variance is that of the groups' sums of deviations, G / (G − 1) Σ_g (Σ_{i∈g} (x_i − mean))² / n², with G − 1
    degrees of freedom (linearized ratio estimator: Cochran 1977, Section 6.3; Cameron and Miller 2015, Section II).

    Args:
        values: one for each sample.
        groups: group of each sample, as whole numbers from 0 on.

    Raises:
        ValueError: there is no value, or numbers of values and groups differ.
    """
    values, groups = _aligned(values, groups)
    variance, count = _variance_by(values - values.mean(), groups)
    if count < 2:
        return Estimate(float(values.mean()), method="t over groups")
    return Estimate(float(values.mean()), math.sqrt(variance), count - 1, "t over groups")


def crossed_mean(
    values: Float[Array, " values"], rows: Int[Array, " values"], columns: Int[Array, " values"], name: str = "both"
) -> Estimate:
    """Mean of values that depend on two crossed factors, such as the request and the image of an attack.

    Both factors are samples of what they stand for, so each adds to the variance however many values there are. With
    V_r, V_c and V_rc for the variances of `group_mean` by row, by column and by cell, the variance is
    V_r + V_c − V_rc (Cameron, Gelbach and Miller 2011, Eq. 2.11; Owen 2007 on why neither factor alone is enough). The
    estimate may fall far below V_rc by chance, so ¾ V_rc is its least value. Degrees of freedom follow Satterthwaite
    (1946) from the parts of rows, columns and cells, the former two half a standard error above their estimates, since
    too small a variance would otherwise come with too many degrees of freedom.

    Args:
        values: observed values; NaN is left out.
        rows: row of each value, as whole numbers from 0 on.
        columns: column of each value.
        name: what rows and columns are, such as `requests and images`.

    Returns:
        The mean. If there is one row, the error is over columns alone, for that row; and the reverse.

    Raises:
        ValueError: there is no value, or numbers of values, rows and columns differ.
    """
    values, rows = _aligned(values, rows)
    values, columns = _aligned(values, columns)
    there = ~np.isnan(values)
    values, rows, columns = values[there], rows[there], columns[there]
    if not len(values):
        raise ValueError("no values to average")
    mean, excess = float(values.mean()), values - values.mean()
    by_row, n_rows = _variance_by(excess, rows)
    by_column, n_columns = _variance_by(excess, columns)
    by_cell, n_cells = _variance_by(excess, rows * (columns.max() + 1) + columns)
    method = f"t over {name}, crossed"
    if min(n_rows, n_columns) < 2:
        [variance, count] = (by_row, n_rows) if n_columns < 2 else (by_column, n_columns)
        return Estimate(mean, math.sqrt(variance), count - 1, method) if count > 1 else Estimate(mean, method=method)
    variance = max(by_row + by_column - by_cell, LEAST_SHARE * by_cell)
    if not variance:
        return Estimate(mean, 0.0, min(n_rows, n_columns) - 1, method)
    parts = [(by_cell, n_cells)] + [
        (max(0.0, part * (1 + 0.5 * math.sqrt(2 / (count - 1))) - by_cell), count)
        for part, count in ((by_row, n_rows), (by_column, n_columns))
    ]
    scatter = sum(part**2 / (count - 1) for part, count in parts)
    freedom = max(min(n_rows, n_columns) - 1, max(variance, by_cell) ** 2 / scatter)
    return Estimate(mean, math.sqrt(variance), freedom, method)


def _aligned(values: Array, groups: Array) -> tuple[Array, Array]:
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    if values.shape != groups.shape or values.ndim != 1:
        raise ValueError(f"values {values.shape} and their groups {groups.shape} must be one list each, equally long")
    if not len(values):
        raise ValueError("no values to average")
    return values, groups


def _variance_by(excess: Array, groups: Array) -> tuple[float, int]:
    """Variance of the mean by groups, from deviations from it, and the number of groups; 0 for a single group."""
    codes, members = np.unique(groups, return_inverse=True)
    count = len(codes)
    sums = np.bincount(members, excess)
    return (float(sums @ sums) / len(excess) ** 2 * count / (count - 1) if count > 1 else 0.0), count


def wilson(
    successes: float, trials: float, confidence: float = 0.95, effect: float = 1.0, freedom: float = math.inf
) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927); (0, 1) without trials.

    Args:
        successes: number of successes; may be fractional.
        trials: number of trials; may be fractional.
        confidence: confidence level.
        effect: design effect, by which trials that are not independent count less (Kish 1965, Section 8.2; with Wilson's
            interval: Dean and Pagano 2015).
        freedom: degrees of freedom of the design effect; Student's t replaces the normal distribution (Korn and Graubard
            1998).
    """
    if trials <= 0:
        return 0.0, 1.0
    z, rate, trials = float(student.ppf((1 + confidence) / 2, freedom)), successes / trials, trials / effect
    center = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return max(0.0, center - half), min(1.0, center + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that rejecting those ≤ α errs at all with probability at most α (Holm 1979).

    Valid however the tests depend on each other. NaN stays NaN and does not count as a test.
    """
    given = np.asarray(p_values, np.float64)
    tested = np.flatnonzero(~np.isnan(given))
    order = tested[np.argsort(given[tested], kind="stable")]
    adjusted = given.copy()
    scaled = given[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled)) if len(order) else scaled
    return [float(p) for p in adjusted]
