"""Mean of values that depend on two crossed factors, with its error over both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from mmmono.core.statistics import Array, Estimate, aligned, codes_of, freedom_of_groups, group_mean

FEW = 3  # levels of a factor whose variance they hardly tell; see `crossed_mean`
LEAST_SHARE = 2 / 3  # least variance of a crossed mean, relative to that of independent values; see `crossed_mean`


def crossed_mean(
    values: Float[Array, " values"], rows: Int[Array, " values"], columns: Int[Array, " values"], name: str = "both"
) -> Estimate:
    """Mean of values that depend on two crossed factors, such as the request and the image of an attack.

    Both factors are samples of what they stand for, so each adds to the variance however many values there are: it is
    σ_r² Σ n_r² / n² + σ_c² Σ n_c² / n² + σ_rc² Σ n_rc² / n² for n_r values in row r, n_c in column c, n_rc in their
    cell. The components are estimated by equating sums of squares with their expectations (Henderson 1953, Method 1; the
    analysis of variance if the table is full). Owen (2007) shows why one factor alone is not enough. The sum may be far
    too small by chance, so ⅔ of the variance of independent cells is its least value. Degrees of freedom follow
    Satterthwaite (1946), with those of each component by the sizes of its levels (`freedom_of_groups`): a few large rows
    decide, however many small ones there are. Components of rows and columns are taken half a standard error above their
    estimates, since too small a variance would otherwise come with too many degrees of freedom. Two or three levels may be
    alike by chance alone, whatever they stand for: their component is then a whole standard error above, by no less
    variance than independent cells have. Intervals of factors that do not matter get wider by this.

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
    values, rows = aligned(values, rows)
    values, columns = aligned(values, columns)
    there = ~np.isnan(values)
    if not there.any():
        raise ValueError("no values to average")
    values, rows, columns = values[there], *(codes_of(x[there]) for x in (rows, columns))
    factors = [rows, columns, codes_of(rows * (columns.max() + 1) + columns)]
    sizes = [np.bincount(factor) for factor in factors]
    mean, excess, method = float(values.mean()), values - values.mean(), f"t over {name}, crossed"
    plain = [_variance_by(excess, factor) for factor in factors]
    parts = _components(excess, factors) if min(map(len, sizes[:2])) > 1 else None
    if parts is None:
        which = max((0, 1), key=lambda factor: (plain[factor], len(sizes[factor])))
        return replace(group_mean(values, factors[which]), method=method)
    freedoms = [freedom_of_groups(size) for size in sizes]
    least, variance = min(freedoms[:2]), max(float(parts.sum()), LEAST_SHARE * plain[2])
    if not variance:
        return Estimate(mean, 0.0, least, method)
    slack = [_doubt(plain[i], plain[2], len(sizes[i]), freedoms[i]) for i in (0, 1)]
    scatter = sum(
        max(0.0, float(part) + extra) ** 2 / freedom
        for part, extra, freedom in zip(parts, [*slack, 0.0], freedoms, strict=True)
    )
    freedom = max(least, max(variance, plain[2]) ** 2 / scatter) if scatter else least
    return Estimate(mean, math.sqrt(variance), freedom, method)


def _doubt(by_level: float, by_cell: float, levels: int, freedom: float) -> float:
    """Half a standard error of a factor's variance component; for two or three levels see `crossed_mean`."""
    few = levels <= FEW
    return (1.0 if few else 0.5) * (max(by_level, by_cell) if few else by_level) * math.sqrt(2 / freedom)


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


def _variance_by(excess: Array, factor: Array) -> float:
    """Variance of the mean over the levels of a factor, from deviations from it; 0 for a single level."""
    sums = np.bincount(factor, excess)
    count = len(sums)
    return float(sums @ sums) / len(excess) ** 2 * count / (count - 1) if count > 1 else 0.0
