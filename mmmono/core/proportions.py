"""Intervals of proportions, and of means of values between 0 and 1, for single numbers and for arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import t as student

from mmmono.core.ranges import check_number

Array = np.ndarray[Any, Any]


def wilson(
    successes: Array | float, trials: Array | float, confidence: float = 0.95, freedom: Array | float = math.inf
) -> tuple[Array, Array]:
    """Wilson score interval of a proportion (Wilson 1927); (0, 1) without trials.

    It has a width even if all or none of the trials succeed. Trials that are not independent enter divided by their
    design effect (Kish 1965, Section 8.2).

    Args:
        successes: number of successes; may be fractional.
        trials: number of trials; may be fractional. Arrays of both are taken element by element.
        confidence: confidence level.
        freedom: degrees of freedom of the design effect; Student's t replaces the normal distribution (Korn and Graubard
            1998). One number, or one for each element.

    Returns:
        Lower and upper bounds, of the shape of the arguments.
    """
    check_number("confidence", confidence, above=0, below=1)
    z = np.asarray(student.ppf((1 + confidence) / 2, freedom))
    successes, trials = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    count = np.where(trials > 0, trials, np.nan)
    rate = successes / count
    center = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    low, high = np.maximum(center - half, 0.0), np.minimum(center + half, 1.0)
    return np.where(trials > 0, low, 0.0), np.where(trials > 0, high, 1.0)
