"""Repeat the experiment of a case and count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.calibration.cases import BOUNDS, CASES


def bounds(place: int) -> tuple[float, float]:
    """Bounds of a case's rate; open on the safe side if it is known to be conservative."""
    low, high = BOUNDS[CASES[place].kind]
    if not CASES[place].conservative:
        return low, high
    return (low, 1.0) if CASES[place].kind == "coverage" else (0.0, high)


@dataclass(frozen=True)
class Measured:
    """What came of a case.

    Attributes:
        place: place of the case in `CASES`.
        rate: share of experiments in which the interval covered, or the test rejected.
        error: Monte Carlo error of the rate.
        simulations: number of experiments, or of features if one experiment has several.
    """

    place: int
    rate: float
    error: float
    simulations: int

    @property
    def outside(self) -> bool:
        """Whether the rate is out of bounds."""
        low, high = bounds(self.place)
        return not low <= self.rate <= high


def measure(place: int, simulations: int, seed: int) -> Measured:
    """Do the experiments of one case.

    Args:
        place: place of the case in `CASES`.
        simulations: number of experiments, before the case's share.
        seed: seed of all of them.
    """
    case = CASES[place]
    count = max(20, round(simulations * case.share))
    rng = np.random.default_rng([seed, place])
    outcomes = [np.atleast_1d(case.simulate(rng)) for _ in range(count)]
    by_experiment = np.array([outcome.mean() for outcome in outcomes])
    error = float(by_experiment.std(ddof=1) / count**0.5)
    return Measured(place, float(by_experiment.mean()), error, sum(map(len, outcomes)))
