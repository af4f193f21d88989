"""Estimates, their intervals and tests, against scipy, formulas written out, and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, false_discovery_control, ttest_1samp

from mmmono.core.crossed import crossed_mean
from mmmono.core.statistics import (
    Estimate,
    Interval,
    effective_groups,
    group_mean,
    holm,
    t_mean,
    wilson,
)
from mmmono.modality.consequences import grouped_rate
from mmmono.modality.intervals import PSEUDO_SCATTER
from mmmono.reporting.formats import FEW


def test_an_interval_makes_cells_and_text() -> None:
    interval = Interval(0.5, 0.25, 0.75, method="percentile bootstrap")
    assert interval.bounded
    assert str(interval) == "0.500 [0.250, 0.750]"
    assert interval.columns("drop") == {"drop": 0.5, "drop_low": 0.25, "drop_high": 0.75}


def test_an_estimate_without_bounds_says_so() -> None:
    interval = Interval(0.5)
    assert not interval.bounded
    assert str(interval) == "0.500"
    assert math.isnan(interval.columns("drop")["drop_low"])
    alone = t_mean(np.array([3.0]))
    assert not alone.interval().bounded
    assert alone.value == 3
    assert all(math.isnan(x) for x in (alone.p_value, alone.equivalence_bound(), alone.detectable()))


def test_the_mean_of_a_few_values_is_scipys_t_test() -> None:
    values = np.random.default_rng(0).standard_normal(8) + 0.5
    expected = ttest_1samp(values, 0)
    found = t_mean(values)
    assert found.p_value == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert (found.interval().low, found.interval().high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_equal_values_are_as_significant_as_their_signs(count: int) -> None:
    """Two equal values had p = 0: of two fair coins that land alike, nothing is known."""
    for values in (np.full(count, 0.3), 0.3 + 1e-16 * np.arange(count), np.full(count, -1.0)):
        expected = binomtest(count, count).pvalue
        assert t_mean(values).p_value == pytest.approx(expected)
    assert t_mean(np.zeros(count)).p_value == 1


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_equal_values_make_no_point_of_an_interval(value: float) -> None:
    """The interval had a width of 0, and of a rate of .3, by rounding, almost 0."""
    for found in (t_mean(np.full(9, value)), group_mean(np.full(9, value), np.arange(9) // 2)):
        assert not found.interval().bounded
        assert math.isnan(found.equivalence_bound())
        assert math.isnan(found.detectable())
        rate = found.rate_interval(9)
        assert rate.high - rate.low > 0.3
        assert found.of_shares(9).error == found.of_outcomes(9).error


def test_rare_shares_are_covered_where_all_that_was_seen_is_0() -> None:
    """One query in a hundred moves, by .6 on average: in a third of the experiments none did, and [0, 0] covered nothing."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(500):
        found = t_mean((rng.random(100) < 0.01) * rng.uniform(0.2, 1, 100))
        interval = found.of_shares(100).interval()
        assert not found.scatters or found.of_shares(100) == found
        covered.append(interval.low <= 0.006 <= interval.high)
    assert np.mean(covered) > 0.93


def test_a_difference_of_rates_lies_within_100_points() -> None:
    """Two requests gave an interval of ±318 points, and a difference of 352 that would be found."""
    few = t_mean(np.array([0.9, -0.4]))
    found = few.of_outcomes(2)
    assert few.interval().high > 1
    assert (found.interval().low, found.interval().high) == (-1, 1)
    assert math.isnan(found.equivalence_bound())
    assert math.isnan(found.detectable())
    assert found.p_value == few.p_value
    many = t_mean(np.tile([0.5, -0.5, 0.1], 30))
    assert many.of_outcomes(90).interval() == many.interval()
    assert many.of_outcomes(90).equivalence_bound() == many.equivalence_bound()
    assert t_mean(np.full(9, 3.0)).of_shares(9).interval().high > 3  # moves of steering have no limit


def test_equivalence_is_shown_where_both_one_sided_tests_reject() -> None:
    values = np.random.default_rng(1).standard_normal(30) * 0.3
    bound = t_mean(values).equivalence_bound()
    for factor, shown in ((1.001, True), (0.999, False)):
        low = ttest_1samp(values, -factor * bound, alternative="greater").pvalue
        high = ttest_1samp(values, factor * bound, alternative="less").pvalue
        assert (max(low, high) <= 0.05) == shown


def test_a_detectable_difference_is_seen_that_often() -> None:
    rng = np.random.default_rng(2)
    size = Estimate(0.0, 1 / math.sqrt(16), 15).detectable(0.8)
    seen = [ttest_1samp(rng.standard_normal(16) + size, 0).pvalue <= 0.05 for _ in range(1000)]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.05)


def test_groups_of_one_are_independent_values_and_copies_add_nothing() -> None:
    values = np.random.default_rng(0).standard_normal(20)
    alone = group_mean(values, np.arange(20))
    assert (alone.error, alone.freedom) == (pytest.approx(t_mean(values).error), pytest.approx(19))
    copied = group_mean(np.repeat(values, 5), np.repeat(np.arange(20), 5))
    assert copied.error == pytest.approx(alone.error)
    assert group_mean(values, np.zeros(20, int)).interval().bounded is False


def test_groups_of_equal_size_have_the_variance_of_their_means() -> None:
    values, groups = np.random.default_rng(3).standard_normal(60), np.repeat(np.arange(12), 5)
    expected = t_mean(values.reshape(12, 5).mean(1))
    found = group_mean(values, groups)
    assert (found.error, found.freedom) == (pytest.approx(expected.error), pytest.approx(11))
    assert effective_groups(groups) == pytest.approx(12)


SIZES = {
    "emoji": np.array(
        [1] * 158 + [6] * 7 + [18] * 8 + [40]
    ),  # as emoji in groups of those alike but for skin and gender
    "two large": np.array([1] * 8 + [6, 18]),
    "one large": np.array([1] * 39 + [60]),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_intervals_cover_where_groups_are_few_and_of_very_unequal_size(sizes: np.ndarray) -> None:
    """By the variance of equal groups, with one degree of freedom less than groups, it was .92, .72 and .42."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    covered = []
    for _ in range(600):
        values = 0.9 * rng.standard_normal(len(sizes))[groups] + 0.45 * rng.standard_normal(len(groups))
        interval = group_mean(values, groups).interval()
        covered.append(interval.low <= 0 <= interval.high)
    assert np.mean(covered) > 0.92


def test_a_rate_of_unequal_groups_has_as_many_trials_as_effective_groups_if_all_values_are_alike() -> None:
    sizes = SIZES["emoji"]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    count = effective_groups(groups)
    assert 30 < count < 35
    everything = group_mean(np.ones(len(groups)), groups).rate_interval(count)
    assert everything.low == pytest.approx(
        wilson(count, count, freedom=group_mean(np.ones(len(groups)), groups).freedom)[0]
    )


def test_a_rate_near_1_covers_where_groups_are_of_very_unequal_size() -> None:
    """Without the added scatter it is .67: most large groups agree with each other by chance."""
    sizes = np.maximum(1, 60 * 0.8 ** np.arange(20)).astype(int)
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(20), sizes)
    covered = []
    for _ in range(400):
        own, shared = rng.random(len(groups)) < 0.95, (rng.random(20) < 0.95)[groups]
        values = np.where(rng.random(len(groups)) < 0.8, shared, own).astype(float)
        interval = group_mean(values, groups).rate_interval(effective_groups(groups), scatter=PSEUDO_SCATTER)
        covered.append(interval.low <= 0.95 <= interval.high)
    assert np.mean(covered) > 0.93


@pytest.mark.parametrize("alike", [0.8, 1.0])
def test_a_rate_near_nine_in_ten_covers_for_groups_like_those_of_emoji(alike: float) -> None:
    """With 1/16 of added scatter, whatever the groups' sizes, it is .84 and .80."""
    sizes = SIZES["emoji"]
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    covered = []
    for _ in range(600):
        rate = rng.uniform(0.87, 0.93)
        own, shared = rng.random(len(groups)) < rate, (rng.random(len(sizes)) < rate)[groups]
        values = np.where(rng.random(len(groups)) < alike, shared, own).astype(float)
        interval = grouped_rate(group_mean(values, groups), groups)
        covered.append(interval.low <= rate <= interval.high)
    assert np.mean(covered) > 0.91


def test_a_crossed_mean_of_a_full_table_has_the_variance_of_the_analysis_of_variance() -> None:
    """Strong effects of rows and columns: V ≈ (MS_rows + MS_columns − MS_rest) / n, written out here."""
    rng = np.random.default_rng(0)
    table = 3 * rng.standard_normal((30, 1)) + 2 * rng.standard_normal((1, 40)) + rng.standard_normal((30, 40))
    by_row, by_column = table.mean(1), table.mean(0)
    rest = table - by_row[:, None] - by_column + table.mean()
    mean_squares = [40 * by_row.var(ddof=1), 30 * by_column.var(ddof=1), (rest**2).sum() / (29 * 39)]
    expected = (mean_squares[0] + mean_squares[1] - mean_squares[2]) / table.size
    rows, columns = np.indices(table.shape)
    found = crossed_mean(table.ravel(), rows.ravel(), columns.ravel())
    assert found.value == pytest.approx(table.mean())
    assert found.error**2 == pytest.approx(expected)
    assert found.error > group_mean(table.ravel(), rows.ravel()).error


def test_the_error_of_a_crossed_mean_is_that_of_repeated_experiments() -> None:
    """Sixteen requests, each with two of eight images: neither full nor balanced."""
    rng = np.random.default_rng(3)
    rows = np.r_[np.arange(16), np.arange(16), 0, 1]
    columns = np.r_[np.arange(16) % 8, (np.arange(16) + 1) % 8, 5, 6]
    found = []
    for _ in range(600):
        values = rng.standard_normal(16)[rows] + 1.5 * rng.standard_normal(8)[columns] + rng.standard_normal(len(rows))
        found.append(crossed_mean(values, rows, columns))
    count = len(rows)
    true = (
        sum(v * (np.bincount(f) ** 2).sum() for v, f in ((1, rows), (2.25, columns), (1, np.arange(count)))) / count**2
    )
    assert np.mean([f.error**2 for f in found]) == pytest.approx(true, rel=0.08)
    assert np.var([f.value for f in found]) == pytest.approx(true, rel=0.15)


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("spread", [(1, 0.3, 1), (0.3, 0.3, 1), (1, 1, 1), (0.3, 0.1, 1)])
def test_a_crossed_mean_of_two_or_three_columns_is_covered(columns: int, spread: tuple[float, ...]) -> None:
    """Two columns that are alike by chance seemed not to matter: of 30 rows the interval covered in .84 to .92."""
    rng, covered = np.random.default_rng(0), []
    rows, by = np.indices((30, columns))
    for _ in range(500):
        draws = (rng.standard_normal(shape) for shape in ((30, 1), (1, columns), (30, columns)))
        values = sum(sd * draw for sd, draw in zip(spread, draws, strict=True))
        interval = crossed_mean(np.ravel(values), rows.ravel(), by.ravel()).interval()
        covered.append(interval.low <= 0 <= interval.high)
    assert np.mean(covered) > 0.92


def test_two_or_three_columns_make_intervals_as_wide_as_the_remark_says() -> None:
    rng = np.random.default_rng(21)
    rows, columns = np.indices((60, 5))

    def width(count: int, spread: float) -> float:
        """Median over repeated experiments."""
        widths = []
        for _ in range(60):
            values = rng.normal(0, 0.3, 60)[:, None] + rng.normal(0, spread, 5) + rng.normal(0, 1, (60, 5))
            chosen = np.s_[:, :count]
            interval = crossed_mean(*(x[chosen].ravel() for x in (values, rows, columns))).interval()
            widths.append(interval.high - interval.low)
        return float(np.median(widths))

    for spread in (0.1, 0.5):
        times = [width(count, spread) / width(5, spread) for count in FEW]
        assert list(FEW) == [2, 3]
        assert 3.5 < times[0] < 9
        assert 1.4 < times[1] < 2.8


def test_a_crossed_mean_is_covered_where_a_few_large_groups_decide() -> None:
    """Degrees of freedom went by the number of groups, as if each counted alike: coverage was .916."""
    sizes = np.r_[55, 45, 35, 30, 25, np.full(20, 3), np.ones(151, int)]
    rng, covered = np.random.default_rng(0), []
    groups = np.repeat(np.arange(len(sizes)), sizes)
    by, rows = np.indices((5, len(groups)))
    for _ in range(1500):
        draws = rng.standard_normal(len(sizes))[groups] + rng.standard_normal(len(groups))
        values = draws + 0.3 * rng.standard_normal((5, len(groups)))
        interval = crossed_mean(values.ravel(), groups[rows].ravel(), by.ravel()).interval()
        covered.append(interval.low <= 0 <= interval.high)
    assert np.mean(covered) > 0.93


def test_a_crossed_mean_of_one_column_is_the_mean_over_rows() -> None:
    values = np.random.default_rng(0).standard_normal(12)
    for rows, columns in ((np.arange(12), np.zeros(12, int)), (np.zeros(12, int), np.arange(12))):
        found = crossed_mean(values, rows, columns)
        assert (found.error, found.freedom) == pytest.approx((t_mean(values).error, 11))
    assert not crossed_mean(values[:1], np.array([0]), np.array([0])).interval().bounded
    assert crossed_mean(np.zeros(4), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])).p_value == 1
    assert crossed_mean(np.ones(4), np.zeros(4, int), np.arange(4)).p_value == 1 / 8
    both = np.arange(12)  # rows that are columns
    assert crossed_mean(values, both, both).error == pytest.approx(t_mean(values).error)
    missing = crossed_mean(np.array([1.0, np.nan, 3.0]), np.array([0, 1, 2]), np.zeros(3, int))
    assert missing.value == 2


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        t_mean(np.array([]))
    with pytest.raises(ValueError, match=r"values \(3,\) and their groups \(2,\)"):
        group_mean(np.ones(3), np.array([0, 1]))
    with pytest.raises(ValueError, match="no values"):
        crossed_mean(np.array([np.nan]), np.array([0]), np.array([0]))


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_is_scipys(successes: int, more: int) -> None:
    trials = max(successes, more)
    expected = binomtest(successes, trials).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(wilson(successes, trials), (expected.low, expected.high), atol=1e-9)
    np.testing.assert_allclose(wilson(2 * successes, 2 * trials, effect=2), wilson(successes, trials))


def test_few_degrees_of_freedom_widen_wilsons_interval() -> None:
    assert wilson(3, 10, freedom=5)[1] > wilson(3, 10)[1]
    assert wilson(0, 0) == (0, 1)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    rejected: set[int] = set()
    for step, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        if p_values[index] * (len(p_values) - step) > 0.05:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(adjusted) if p <= 0.05} == rejected


def test_holm_is_between_bonferroni_and_benjamini_hochberg_and_leaves_out_missing_tests() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])  # the example of R's p.adjust
    assert all(np.asarray(holm(p)) >= false_discovery_control(p))
    found = holm([0.01, math.nan, 0.02])
    assert (found[0], found[2]) == (0.02, 0.02)
    assert math.isnan(found[1])
    assert holm([]) == []


@pytest.mark.parametrize(("successes", "trials"), [(3, 40), (20, 40), (39, 40), (0, 40), (40, 40)])
def test_the_interval_of_a_rate_is_wilsons_with_the_trials_of_its_error(successes: int, trials: int) -> None:
    rate = successes / trials
    found = Estimate(rate, (rate * (1 - rate) / trials) ** 0.5, float("inf")).rate_interval(trials)
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    twice = Estimate(rate, (2 * rate * (1 - rate) / trials) ** 0.5, float("inf")).rate_interval(trials // 2)
    assert twice.high - twice.low > found.high - found.low, "a design effect of 2 is half as many trials"
    assert not Estimate(rate).rate_interval(trials).bounded
