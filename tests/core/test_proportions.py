"""Wilson's interval against scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest

from mmmono.core.proportions import wilson


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_it_is_scipys_for_single_numbers_and_for_arrays(confidence: float) -> None:
    successes, trials = np.array([0, 1, 7, 10, 40]), np.array([5, 9, 10, 10, 90])
    expected = [binomtest(k, n).proportion_ci(confidence, "wilson") for k, n in zip(successes, trials, strict=True)]
    low, high = wilson(successes, trials, confidence)
    np.testing.assert_allclose(low, [e.low for e in expected], atol=1e-12)
    np.testing.assert_allclose(high, [e.high for e in expected], atol=1e-12)
    assert wilson(7, 10, confidence)[0] == low[2]


def test_without_trials_it_says_nothing() -> None:
    low, high = wilson(np.array([0.0, 1.0]), np.array([0.0, 2.5]))
    assert (low[0], high[0]) == (0, 1)
    assert 0 < low[1] < high[1] < 1
