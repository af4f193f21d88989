"""How often an attack succeeds, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist


@dataclass(frozen=True)
class SuccessRate:
    """Share of attempts that succeeded, with a Wilson interval.

    Attributes:
        pictures: how many were attempted.
        trials: attempts with a verdict, over pictures, repeats and runs.
        successes: among them.
        unparseable: attempts without a verdict; they count neither way.
        rate: successes / trials; NaN without trials.
        low, high: 95 % interval. Attempts on one picture are alike, so the trials count as fewer (see `success_rate`).
    """

    pictures: int
    trials: int
    successes: int
    unparseable: int
    rate: float
    low: float
    high: float


def wilson(successes: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) without trials.

    Args:
        successes: need not be whole, as where trials are weighted.
        trials: of which the successes are a part.
        confidence: of the interval.
    """
    if trials <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    center = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return max(0.0, center - half), min(1.0, center + half)


def success_rate(verdicts: Sequence[Sequence[bool | None]]) -> SuccessRate:
    """Success over pictures and their repeated attempts.

    Repeats on one picture are not independent. The interval is Wilson's for trials / design effect, the ratio of the
    variance of the rate over pictures to that of independent trials (Kish 1965; Dean and Pagano 2015), at least 1.

    Args:
        verdicts: for each picture its attempts; None where the verdict was unparseable.
    """
    judged = [[verdict for verdict in picture if verdict is not None] for picture in verdicts]
    judged = [picture for picture in judged if picture]
    trials = sum(len(picture) for picture in judged)
    successes = sum(sum(picture) for picture in judged)
    unparseable = sum(verdict is None for picture in verdicts for verdict in picture)
    if not trials:
        return SuccessRate(len(verdicts), 0, 0, unparseable, float("nan"), 0.0, 1.0)
    rate = successes / trials
    effect = max(1.0, _design_effect(judged, rate, trials))
    low, high = wilson(successes / effect, trials / effect)
    return SuccessRate(len(verdicts), trials, successes, unparseable, rate, low, high)


def _design_effect(judged: Sequence[Sequence[bool]], rate: float, trials: int) -> float:
    """Variance of a ratio over pictures (linearized) / variance of as many independent trials."""
    count = len(judged)
    if trials == count or rate in (0.0, 1.0):
        return 1.0
    if count == 1:
        return float(trials)  # one picture says nothing of others
    residuals = sum((sum(picture) - rate * len(picture)) ** 2 for picture in judged)
    variance = count / (count - 1) * residuals / trials**2
    return variance / (rate * (1 - rate) / trials)
