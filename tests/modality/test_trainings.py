"""Numbers over trainings, against scipy."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from mmmono.modality.trainings import holm_by_family, over_trainings

VALUES = np.array([0.07, 0.027, 0.036, 0.047, 0.041])


def test_a_mean_of_differences_is_scipys_t_test() -> None:
    found, expected = over_trainings(VALUES), ttest_1samp(VALUES, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean.low, found.mean.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.mean.value, found.trainings, found.same_side) == (pytest.approx(VALUES.mean()), 5, 5)
    assert over_trainings(VALUES, 0.04).p == pytest.approx(ttest_1samp(VALUES, 0.04).pvalue)
    assert over_trainings(np.array([0.5, -0.1, 0.3])).same_side == 2


def test_logarithms_of_ratios_are_averaged() -> None:
    ratios = np.array([1.35, 0.79, 1.23, 1.04, 1.1])
    found, expected = over_trainings(ratios, 1.0, ratio=True), ttest_1samp(np.log(ratios), 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean.low, found.mean.high) == pytest.approx(tuple(np.exp(expected.confidence_interval())))
    assert (found.mean.value, found.same_side) == (pytest.approx(ratios.prod() ** 0.2), 4)
    inverse = over_trainings(1 / ratios, 1.0, ratio=True)
    assert (inverse.p, inverse.mean.value) == (pytest.approx(found.p), pytest.approx(1 / found.mean.value))
    halved = over_trainings(ratios / 2, 0.5, ratio=True)
    assert (halved.p, halved.mean.low) == (pytest.approx(found.p), pytest.approx(found.mean.low / 2))


def test_a_ratio_of_nothing_has_no_logarithm() -> None:
    found = over_trainings(np.array([0.0, 2.0, 1.5]), 1.0, ratio=True)
    assert (found.mean.value, found.mean.bounded, found.trainings, found.same_side) == (0, False, 3, 1)
    assert math.isnan(found.p)
    for values, null in ((np.array([-1.0, 1.0]), 1.0), (VALUES, 0.0)):
        with pytest.raises(ValueError, match="must"):
            over_trainings(values, null, ratio=True)


def test_a_value_that_no_null_belongs_to_is_not_tested() -> None:
    counts = np.array([64, 55, 59, 57, 57])
    found = over_trainings(counts, None)
    assert math.isnan(found.p)
    assert (found.mean.low, found.mean.high) == pytest.approx(tuple(ttest_1samp(counts, 0).confidence_interval()))


def test_one_training_has_no_interval_and_two_have_a_wide_one() -> None:
    one = over_trainings(VALUES[:1])
    assert not one.mean.bounded
    assert math.isnan(one.p)
    two = over_trainings(VALUES[:2])
    assert two.p == pytest.approx(ttest_1samp(VALUES[:2], 0).pvalue)
    width = [np.ptp(ttest_1samp(v, 0).confidence_interval()) / v.std(ddof=1) for v in (VALUES[:2], VALUES)]
    assert width[0] / width[1] == pytest.approx(7.2, abs=0.1)  # as the entrypoint says


def test_p_values_are_adjusted_within_their_families() -> None:
    p, families = [0.01, 0.02, 0.03, math.nan, 0.04], ["a", "b", "a", "a", "b"]
    assert holm_by_family(p, families) == pytest.approx([0.02, 0.04, 0.03, math.nan, 0.04], nan_ok=True)
