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
LEAST_SHARE = 2 / 3  # least variance of a crossed mean, relative to that of independent values; see `crossed_mean`


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
        check_number("level", level, above=0, below=1)
        half = self.error * _quantile((1 + level) / 2, self.freedom)
        return Interval(self.value, self.value - half, self.value + half, level, self.method)

    def of_outcomes(self, count: int) -> Estimate:
        """Return the estimate of a difference of rates with an error of at least 1 / (count + 2).

        If no outcome differs, none would be an error of 0. The least error is that of two more outcomes, one of which
        differs either way (Agresti and Min 2005, Section 3, with half a pair for each of four cells).

        Args:
            count: number of pairs of outcomes, or of groups of them.
        """
        return replace(self, error=max(self.error, 1 / (count + 2)) if not math.isnan(self.error) else self.error)

    def rate_interval(self, groups: float, level: float = 0.95, scatter: float = 0.0) -> Interval:
        """Wilson's interval of a mean of values between 0 and 1, with as many trials as would have this error.

        These are rate · (1 − rate) / error², or one for each group if all values are 0 or all are 1 (Kish 1965, Section 8.2;
        Korn and Graubard 1998). Unlike `interval`, it covers near 0 and 1, and never leaves them.

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
        if self.error > 0 and spread > 0:
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
        if self.error <= ROUNDING * abs(self.value):
            return 2.0**-self.freedom if self.value else 1.0
        return float(2 * student.sf(abs(self.value) / self.error, self.freedom))

    def equivalence_bound(self, confidence: float = 0.95) -> float:
        """Smallest x such that |truth| < x is shown with this confidence; NaN if there is no error.

        Two one-sided tests (TOST; Schuirmann 1987) reject |truth| ≥ x at 1 − confidence for all larger x. Small means
        that no relevant difference is there; a large one means that too little was measured, whatever the p-value.
        """
        check_number("confidence", confidence, above=0, below=1)
        return abs(self.value) + self.error * _quantile(confidence, self.freedom)

    def detectable(self, power: float = 0.8, level: float = 0.95) -> float:
        """Smallest |truth| that such a measurement would show to differ from 0 with this power; NaN without an error.

        Uses the approximation (t at (1 + level) / 2 + t at power) · error (Bloom 1995).
        """
        check_number("power", power, above=0, below=1)
        check_number("level", level, above=0, below=1)
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
    values, groups = _aligned(values, groups)
    mean, members = float(values.mean()), _codes(groups)
    weights = np.bincount(members) / len(values)
    if len(weights) < 2:
        return Estimate(mean, method="t over groups")
    sums = np.bincount(members, values - mean)
    variance = float((sums**2 / (1 - weights)).sum()) / len(values) ** 2
    pull = weights**2 / (1 - weights)
    freedom = 1 / float(weights @ weights + pull.sum() ** 2 - pull @ pull)
    return Estimate(mean, math.sqrt(variance), freedom, "t over groups")


def effective_groups(groups: Int[Array, " values"]) -> float:
    """n² / Σ n_g²: as many groups of equal size say as much, if values of one group agree (Kish 1965).

    Args:
        groups: group of each of n values.
    """
    sizes = np.unique(groups, return_counts=True)[1]
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def crossed_mean(
    values: Float[Array, " values"], rows: Int[Array, " values"], columns: Int[Array, " values"], name: str = "both"
) -> Estimate:
    """Mean of values that depend on two crossed factors, such as the request and the image of an attack.

    Both factors are samples of what they stand for, so each adds to the variance however many values there are: it is
    σ_r² Σ n_r² / n² + σ_c² Σ n_c² / n² + σ_rc² Σ n_rc² / n² for n_r values in row r, n_c in column c, n_rc in their
    cell. The components are estimated by equating sums of squares with their expectations (Henderson 1953, Method 1; the
    analysis of variance if the table is full). Owen (2007) shows why one factor alone is not enough. The sum may be far
    too small by chance, so ⅔ of the variance of independent cells is its least value. Degrees of freedom follow
    Satterthwaite (1946), with components of rows and columns half a standard error above their estimates, since too
    small a variance would otherwise come with too many degrees of freedom.

    Args:
        values: observed values; NaN is left out. The table need not be full.
        rows: row of each value, as whole numbers from 0 on.
        columns: column of each value.
        name: what rows and columns are, such as `requests and images`.

    Returns:
        The mean. If there is one row, the error is over columns alone, for that row; and the reverse. If rows and
        columns cannot be told apart, the error is over the factor that varies more.

    Raises:
        ValueError: there is no value, or numbers of values, rows and columns differ.
    """
    values, rows = _aligned(values, rows)
    values, columns = _aligned(values, columns)
    there = ~np.isnan(values)
    if not there.any():
        raise ValueError("no values to average")
    values, rows, columns = values[there], *(_codes(x[there]) for x in (rows, columns))
    factors = [rows, columns, _codes(rows * (columns.max() + 1) + columns)]
    counts = [int(factor.max()) + 1 for factor in factors]
    mean, excess, method = float(values.mean()), values - values.mean(), f"t over {name}, crossed"
    plain = [_variance_by(excess, factor)[0] for factor in factors]
    if min(counts[:2]) < 2:
        which = int(np.argmax(counts[:2]))
        if counts[which] < 2:
            return Estimate(mean, method=method)
        return Estimate(mean, math.sqrt(plain[which]), counts[which] - 1, method)
    parts = _components(excess, factors)
    if parts is None:
        which = int(np.argmax(plain[:2]))
        return Estimate(mean, math.sqrt(plain[which]), counts[which] - 1, method)
    variance = max(float(parts.sum()), LEAST_SHARE * plain[2])
    if not variance:
        return Estimate(mean, 0.0, min(counts[:2]) - 1, method)
    slack = [0.5 * plain[i] * math.sqrt(2 / (counts[i] - 1)) for i in (0, 1)]
    scatter = sum(
        max(0.0, float(part) + extra) ** 2 / (count - 1)
        for part, extra, count in zip(parts, [*slack, 0.0], counts, strict=True)
    )
    freedom = max(min(counts[:2]) - 1, max(variance, plain[2]) ** 2 / scatter) if scatter else min(counts[:2]) - 1
    return Estimate(mean, math.sqrt(variance), freedom, method)


def _components(excess: Array, factors: Sequence[Array]) -> Array | None:
    """Contribution of each factor's variance component to the variance of the mean; None if they are confounded.

    With M the matrix that centers values and Z_f the one that assigns them to the levels of factor f, the expectation of
    |Z_f' M x|² is Σ_g σ_g² |Z_f' M Z_g|².
    """
    number = len(excess)
    sizes = [np.bincount(factor).astype(float) for factor in factors]
    observed = [float(np.square(np.bincount(factor, excess)).sum()) for factor in factors]

    def norm(f: int, g: int) -> float:
        pairs, counts = np.unique(factors[f] * len(sizes[g]) + factors[g], return_counts=True)
        first, second = sizes[f][pairs // len(sizes[g])], sizes[g][pairs % len(sizes[g])]
        centered = (counts * (counts - 2 * first * second / number)).sum()
        return float(centered + (sizes[f] ** 2).sum() * (sizes[g] ** 2).sum() / number**2)

    expected = np.array([[norm(f, g) for g in range(3)] for f in range(3)])
    scale = np.sqrt(np.diag(expected))
    if not scale.all() or np.linalg.cond(expected / np.outer(scale, scale)) > 1e6:
        return None
    components = np.linalg.solve(expected, observed)
    return np.array([part * (size**2).sum() / number**2 for part, size in zip(components, sizes, strict=True)])


def _codes(groups: Array) -> Array:
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
