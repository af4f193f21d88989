"""Success rate of an attack with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from mmmono.core.crossed import crossed_mean
from mmmono.core.statistics import Estimate, Interval, wilson

METHOD = "Wilson, by effective sample size"
MOST_CERTAIN = 4.0  # factor of the degrees of freedom at most; see `success_rate`
Array = np.ndarray[Any, Any]
Verdicts = Sequence[Sequence[bool | None]]  # for each case, the verdict on each attempt; None if it was unparseable


@dataclass(frozen=True)
class Crossing:
    """The request and the benign image of each case. Cases that have either in common are not independent.

    Attributes:
        requests: number of the request of each case.
        images: number of the benign image of each case.
    """

    requests: Int[Array, " cases"]
    images: Int[Array, " cases"]

    def mean(self, values: Array, repeats: Array | None = None) -> Estimate:
        """Mean over requests and images as crossed factors; see `crossed_mean`.

        Args:
            values: a value for each case.
            repeats: number of the case of each value, if cases have several.
        """
        cases = np.arange(len(self.requests)) if repeats is None else repeats
        return crossed_mean(values, self.requests[cases], self.images[cases], "requests and benign images")

    def pairs(self, cases: Int[Array, " some"]) -> int:
        """Number of different pairs of a request and a benign image among some cases, given by their numbers.

        Further runs repeat them if there are fewer benign images than runs.
        """
        return len(set(zip(self.requests[cases].tolist(), self.images[cases].tolist(), strict=True)))


@dataclass(frozen=True)
class SuccessRate:
    """Share of successful attempts with a Wilson interval.

    Attributes:
        requests, images: numbers of requests and of benign images.
        trials: number of attempts with a verdict, over requests, images, repeats and runs.
        successes: number of successful attempts.
        unparseable: number of attempts without a verdict, which do not count.
        rate: successes / trials, NaN without trials; with a 95 % interval for other requests and benign images (see
            `success_rate`), from 0 to 1 without trials.
    """

    requests: int
    images: int
    trials: int
    successes: int
    unparseable: int
    rate: Interval


def success_rate(verdicts: Verdicts, crossing: Crossing) -> SuccessRate:
    """Compute the success rate over cases and their repeated attempts.

    Neither attempts on one request nor those on one benign image are independent. The interval is Wilson's with trials /
    design effect as sample size and the quantile of Student's t. The design effect d, at least 1, is the variance of the
    rate over requests and images as crossed factors, divided by that of independent trials (Kish 1965; Dean and Pagano
    2015; Korn and Graubard 1998). Near 1 it is known better than the degrees of freedom of the crossed mean say: these are
    multiplied by 1 / (d − 1)², between 1 and 4, and the quantile is the normal one for d = 1. No theory stands behind this
    rule; `make calibrate` shows what it covers. If all attempts have one outcome, those on one request and image count as
    one trial, whether they are repeats of a case or of other runs.
    With a single benign image the interval is for other requests with that image.

    Args:
        verdicts: for each case, the verdict of each attempt; None if it was unparseable.
        crossing: request and benign image of each case.
    """
    counts = len(np.unique(crossing.requests)), len(np.unique(crossing.images))
    unparseable = sum(verdict is None for case in verdicts for verdict in case)
    judged = [(verdict, number) for number, case in enumerate(verdicts) for verdict in case if verdict is not None]
    if not judged:
        return SuccessRate(*counts, 0, 0, unparseable, Interval(math.nan, 0.0, 1.0, method=METHOD))
    outcomes, cases = np.array(judged, dtype=float).T
    trials, successes = len(outcomes), int(outcomes.sum())
    effect, freedom = _design_effect(outcomes, cases.astype(int), crossing)
    bounds = wilson(successes, trials, effect=effect, freedom=freedom)
    return SuccessRate(*counts, trials, successes, unparseable, Interval(successes / trials, *bounds, method=METHOD))


def _design_effect(outcomes: Array, cases: Array, crossing: Crossing) -> tuple[float, float]:
    """Variance of the rate / variance of as many independent trials, with its degrees of freedom."""
    rate, trials = outcomes.mean(), len(outcomes)
    if trials == len(np.unique(crossing.requests[cases])) == len(np.unique(crossing.images[cases])):
        return 1.0, math.inf  # one attempt on each request and each image
    if rate in (0.0, 1.0):
        return trials / crossing.pairs(cases), math.inf
    found = crossing.mean(outcomes, cases)
    if math.isnan(found.error):
        return float(trials), math.inf  # one case says nothing about others: count it as one trial
    effect = max(1.0, float(found.error**2 * trials / (rate * (1 - rate))))
    certainty = min(MOST_CERTAIN, max(1.0, (effect - 1) ** -2)) if effect > 1 else math.inf
    return effect, found.freedom * certainty
