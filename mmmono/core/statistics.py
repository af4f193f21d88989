"""Estimates with confidence intervals and p-values, for independent, grouped and crossed samples.

What is printed is an `Interval`. An `Estimate` is an estimate with its standard error, from which interval, p-value and
equivalence bound follow. `make calibrate` measures how often these intervals cover, and how often the tests err.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student

from mmmono.core import proportions
from mmmono.core.ranges import check_number

Array = np.ndarray[Any, Any]
ROUNDING = 1e-12  # an error smaller than that, relative to the estimate, is that of equal values


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
        limit: magnitude that the truth cannot exceed, such as 1 for a difference of rates.
    """

    value: float
    error: float = math.nan
    freedom: float = math.nan
    method: str = ""
    limit: float = math.inf

    @property
    def scatters(self) -> bool:
        """Whether values differ by more than rounding. If not, their error of 0 says nothing about other values."""
        return not self.error <= ROUNDING * abs(self.value)

    def interval(self, level: float = 0.95) -> Interval:
        """Interval of Student's t, cut at the limit; without bounds if there is no error, or if all values are equal."""
        check_number("level", level, above=0, below=1)
        half = self.error * _quantile((1 + level) / 2, self.freedom) if self.scatters else math.nan
        low, high = (min(max(end, -self.limit), self.limit) for end in (self.value - half, self.value + half))
        return Interval(self.value, low, high, level, self.method)

    def of_outcomes(self, count: int) -> Estimate:
        """Return the estimate of a difference of rates, whose limit is 1, with an error of at least 1 / (count + 2).

        If no outcome differs, none would be an error of 0. The least error is that of two more outcomes, one of which
        differs either way (Agresti and Min 2005, Section 3, with half a pair for each of four cells).

        Args:
            count: number of pairs of outcomes, or of groups of them.
        """
        return replace(self._with_least_error(count), limit=1.0)

    def of_shares(self, count: int, limit: float = math.inf) -> Estimate:
        """Return the estimate of a difference of values from 0 to 1, with the error of `of_outcomes` if all are equal.

        Such values may all differ a little, which outcomes cannot; so what scatters keeps its error.

        Args:
            count: number of values, or of groups of them.
            limit: see `Estimate`; 1 where the values cannot leave 0 to 1.
        """
        return replace(self if self.scatters else self._with_least_error(count), limit=limit)

    def _with_least_error(self, count: int) -> Estimate:
        return replace(self, error=max(self.error, 1 / (count + 2)) if not math.isnan(self.error) else self.error)

    def rate_interval(self, groups: float, level: float = 0.95, scatter: float = 0.0) -> Interval:
        """Wilson's interval of a mean of values between 0 and 1, with as many trials as would have this error.

        These are rate · (1 − rate) / error², or one for each group if all values are equal (Kish 1965, Section 8.2; Korn and
        Graubard 1998). Unlike `interval`, it covers near 0 and 1, and never leaves them.

        Args:
            groups: number of independent groups of equal size; of others, `effective_groups`.
            level: confidence level.
            scatter: for groups of several values, whose error says little if nearly all values are alike: added to both
                groups · rate · (1 − rate) and groups² · error²; see `mmmono.modality.intervals.PSEUDO_SCATTER`.
        """
        check_number("level", level, above=0, below=1)
        if math.isnan(self.error):
            return self.interval(level)
        spread = self.value * (1 - self.value)
        trials = groups
        if self.scatters and spread > 0:
            trials = groups * (groups * spread + scatter) / (groups**2 * self.error**2 + scatter)
        low, high = proportions.wilson(self.value * trials, trials, level, self.freedom)
        return Interval(self.value, float(low), float(high), level, f"Wilson, {self.method}")

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the hypothesis that the truth is 0; NaN if there is no error.

        If n values are equal but for rounding, there is no scatter to compare them with, and it is that of the sign test:
        2 / 2ⁿ, with n one more than the degrees of freedom.
        """
        if math.isnan(self.error):
            return math.nan
        if not self.scatters:
            return 2.0**-self.freedom if self.value else 1.0
        return float(2 * student.sf(abs(self.value) / self.error, self.freedom))

    def equivalence_bound(self, confidence: float = 0.95) -> float:
        """Smallest x such that |truth| < x is shown with this confidence; NaN if none within the limit or no error.

        Two one-sided tests (TOST; Schuirmann 1987) reject |truth| ≥ x at 1 − confidence for all larger x. Small means
        that no relevant difference is there; a large one means that too little was measured, whatever the p-value.
        """
        check_number("confidence", confidence, above=0, below=1)
        bound = abs(self.value) + self.error * _quantile(confidence, self.freedom)
        return bound if self.scatters and bound < self.limit else math.nan

    def detectable(self, power: float = 0.8, level: float = 0.95) -> float:
        """Smallest |truth| that such a measurement would show to differ from 0 with this power; NaN without an error.

        NaN too if all values are equal, or if no truth within the limit would. Uses the approximation
        (t at (1 + level) / 2 + t at power) · error (Bloom 1995).
        """
        check_number("power", power, above=0, below=1)
        check_number("level", level, above=0, below=1)
        quantiles = _quantile((1 + level) / 2, self.freedom) + _quantile(power, self.freedom)
        size = self.error * quantiles
        return size if self.scatters and size <= self.limit else math.nan


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

    With n values, S_g = Σ (x_i − mean) over the n_g values of group g and w_g = n_g / n, the variance is
    Σ_g S_g² / (1 − w_g) / n² (Bell and McCaffrey 2002, "CR2"): a large group pulls the mean towards itself, and would seem
    less uncertain than it is. Degrees of freedom are theirs too, those of this variance for independent values
    (Satterthwaite 1946; Imbens and Kolesár 2016). For G groups of equal size that is G / (G − 1) Σ S_g² / n² with G − 1
    degrees of freedom (Cochran 1977, Section 6.3).

    Args:
        values: one for each sample.
        groups: group of each sample, as whole numbers from 0 on.

    Raises:
        ValueError: there is no value, or numbers of values and groups differ.
    """
    values, groups = aligned(values, groups)
    mean, members = float(values.mean()), codes_of(groups)
    weights = np.bincount(members) / len(values)
    if len(weights) < 2:
        return Estimate(mean, method="t over groups")
    sums = np.bincount(members, values - mean)
    variance = float((sums**2 / (1 - weights)).sum()) / len(values) ** 2
    return Estimate(mean, math.sqrt(variance), freedom_of_groups(np.bincount(members)), "t over groups")


def freedom_of_groups(sizes: Int[Array, " groups"]) -> float:
    """Degrees of freedom of a variance between groups, as in `group_mean`: one less than their number if sizes are equal.

    Args:
        sizes: number of values of each of at least two groups.
    """
    weights = sizes / sizes.sum()
    pull = weights**2 / (1 - weights)
    return 1 / float(weights @ weights + pull.sum() ** 2 - pull @ pull)


def effective_groups(groups: Int[Array, " values"]) -> float:
    """n² / Σ n_g²: as many groups of equal size say as much, if values of one group agree (Kish 1965).

    Args:
        groups: group of each of n values.
    """
    sizes = np.unique(groups, return_counts=True)[1]
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def codes_of(groups: Array) -> Array:
    """Number of each value's group, from 0 without gaps."""
    return np.unique(groups, return_inverse=True)[1]


def jackknife(value: float, without: Float[Array, " samples"]) -> Estimate:
    """Error of any estimate from its values without one sample each (Quenouille 1956; Tukey 1958).

    The variance is (n − 1) / n Σ (θ_i − mean)². If few samples decide, it is uncertain itself: degrees of freedom are
    n / (kurtosis − 1) of these values, at most n − 1 and at least 2. That is half of what the variance of a variance
    implies (Satterthwaite 1946), since few values underestimate a large kurtosis.

    Args:
        value: the estimate from all samples.
        without: the estimate without each sample; without an error if one is not finite.
    """
    count = len(without)
    if count < 3 or not np.isfinite(without).all():
        return Estimate(value, method="jackknife")
    excess = without - without.mean()
    squares = float(excess @ excess)
    kurtosis = count * float((excess**4).sum()) / squares**2 if squares else 2.0
    freedom = min(count - 1, max(2.0, count / max(kurtosis - 1, 1e-12)))
    return Estimate(value, math.sqrt((count - 1) / count * squares), freedom, "jackknife")


def aligned(values: Array, groups: Array) -> tuple[Array, Array]:
    """One list each, equally long. Raises ValueError otherwise, or if they are empty."""
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    if values.shape != groups.shape or values.ndim != 1:
        raise ValueError(f"values {values.shape} and their groups {groups.shape} must be one list each, equally long")
    if not len(values):
        raise ValueError("no values to average")
    return values, groups


def wilson(
    successes: float, trials: float, confidence: float = 0.95, effect: float = 1.0, freedom: float = math.inf
) -> tuple[float, float]:
    """Wilson score interval of one proportion; see `mmmono.core.proportions.wilson`, which takes arrays.

    Args:
        successes, trials, confidence, freedom: see there.
        effect: design effect, by which trials that are not independent count less (Kish 1965, Section 8.2; with Wilson's
            interval: Dean and Pagano 2015).
    """
    low, high = proportions.wilson(successes / effect, trials / effect, confidence, freedom)
    return float(low), float(high)


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
