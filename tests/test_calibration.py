"""`make calibrate` in small: fixed seeds, fewer experiments, wider bounds; and that it notices what does not cover."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from mmmono.core.statistics import t_mean
from tests.calibration import cases, measure
from tests.calibration.cases import CASES, Case


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(CASES)), ids=[f"{case.name}, {case.regime}" for case in CASES])
def test_intervals_cover_and_tests_err_as_often_as_they_say(place: int) -> None:
    found = measure.measure(place, 400, seed=1)
    low, high = measure.bounds(place)
    assert low - 3 * found.error <= found.rate <= high + 3 * found.error


def test_no_exact_test_errs_as_often_as_it_says_where_successes_are_rare() -> None:
    """Why a row of the table is called conservative: levels of a sign test that few differing cells can have."""
    rng, crossing = np.random.default_rng(0), cases.design(16, 8, 2)
    differing = []
    for _ in range(2000):
        chance = cases.sigmoid(
            -3.5 + rng.standard_normal(16)[crossing.requests] + rng.standard_normal(8)[crossing.images]
        )
        differing.append(int((rng.binomial(2, chance) != rng.binomial(2, chance)).sum()))
    possible = {
        cells: max((p for k in range(cells) if (p := binomtest(k, cells).pvalue) <= 0.05), default=0.0)
        for cells in set(differing) if cells
    } | {0: 0.0}  # fmt: skip
    assert np.median(differing) <= 5
    assert possible[5] == 0
    assert possible[6] == 1 / 32
    assert np.mean([possible[cells] for cells in differing]) < cases.BOUNDS["false positives"][0]


def test_an_interval_that_is_too_short_is_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(rng: np.random.Generator) -> bool:
        found = t_mean(rng.standard_normal(8))
        return cases.covers(replace(found, error=0.8 * found.error), 0.0)

    def right(rng: np.random.Generator) -> bool:
        return cases.covers(t_mean(rng.standard_normal(8)), 0.0)

    for simulate, outside in ((short, True), (right, False)):
        monkeypatch.setattr(measure, "CASES", [Case("test", "8 values", "coverage", simulate)])
        assert measure.measure(0, 2000, seed=0).outside == outside
