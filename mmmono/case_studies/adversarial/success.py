"""Success rate of an attack with its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from mmmono.core.statistics import Interval

METHOD = "Wilson, by effective sample size"


@dataclass(frozen=True)
class SuccessRate:
    """Share of successful attempts with a Wilson interval.

    Attributes:
        clusters: number of independent groups of attempts: images or, in `attack_outcome`, requests.
        trials: number of attempts with a verdict, over images, repeats and runs.
        successes: number of successful attempts.
        unparseable: number of attempts without a verdict, which do not count.
        rate: successes / trials, NaN without trials; with a 95 % interval that is corrected for the correlation of
            attempts on one image (see `success_rate`), from 0 to 1 without trials.
    """

    clusters: int
    trials: int
    successes: int
    unparseable: int
    rate: Interval


def wilson(successes: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927); (0, 1) without trials.

    Args:
        successes: number of successes; may be fractional (effective sample size).
        trials: number of trials; may be fractional.
        confidence: confidence level.
    """
    if trials <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    center = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return max(0.0, center - half), min(1.0, center + half)


def success_rate(verdicts: Sequence[Sequence[bool | None]]) -> SuccessRate:
    """Compute the success rate over images and their repeated attempts.

    Repeats on one image are not independent. The interval is Wilson's with trials / design effect as sample size. The
    design effect, at least 1, is the variance of the rate over images divided by that of independent trials (Kish 1965;
    Dean and Pagano 2015).

    Args:
        verdicts: for each image, the verdict of each attempt; None if it was unparseable.
    """
    judged = [[verdict for verdict in picture if verdict is not None] for picture in verdicts]
    judged = [picture for picture in judged if picture]
    trials = sum(len(picture) for picture in judged)
    successes = sum(sum(picture) for picture in judged)
    unparseable = sum(verdict is None for picture in verdicts for verdict in picture)
    if not trials:
        return SuccessRate(len(verdicts), 0, 0, unparseable, Interval(float("nan"), 0.0, 1.0, method=METHOD))
    rate = successes / trials
    effect = max(1.0, _design_effect(judged, rate, trials))
    low, high = wilson(successes / effect, trials / effect)
    return SuccessRate(len(verdicts), trials, successes, unparseable, Interval(rate, low, high, method=METHOD))


def _design_effect(judged: Sequence[Sequence[bool]], rate: float, trials: int) -> float:
    """Variance of the rate over images (linearized ratio estimator) / variance of equally many independent trials."""
    count = len(judged)
    if trials == count or rate in (0.0, 1.0):
        return 1.0
    if count == 1:
        return float(trials)  # one image says nothing about others: count it as one trial
    residuals = sum((sum(picture) - rate * len(picture)) ** 2 for picture in judged)
    variance = count / (count - 1) * residuals / trials**2
    return variance / (rate * (1 - rate) / trials)
