"""Success rates, their intervals, and which features defend."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mmmono.case_studies.adversarial.outcomes import Condition, Observations, attack_outcome, defending_features
from mmmono.case_studies.adversarial.success import success_rate, wilson
from mmmono.modality import Partition

PARTITION = Partition(torch.arange(6), torch.arange(6, 10), torch.arange(10, 30), torch.tensor([30, 31]))


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_is_scipys(successes: int, more: int) -> None:
    trials = max(successes, more)
    expected = binomtest(successes, trials).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(wilson(successes, trials), (expected.low, expected.high), atol=1e-9)


def test_one_attempt_a_picture_is_plain_wilson() -> None:
    found = success_rate([[True]] * 7 + [[False]] * 3)
    assert (found.trials, found.successes, found.rate.value) == (10, 7, 0.7)
    assert (found.rate.low, found.rate.high) == wilson(7, 10)


def test_repeats_that_all_agree_count_as_one() -> None:
    """Ten pictures, each attempted five times with one answer: no surer than ten attempts, but for the estimate's n - 1."""
    found = success_rate([[True] * 5] * 7 + [[False] * 5] * 3)
    assert (found.trials, found.rate.value) == (50, 0.7)
    low, high = wilson(0.7 * 9, 9)
    np.testing.assert_allclose((found.rate.low, found.rate.high), (low, high))


def test_repeats_that_differ_as_much_as_pictures_do_count_fully() -> None:
    rng = np.random.default_rng(0)
    verdicts = (rng.random((400, 5)) < 0.3).tolist()
    found = success_rate(verdicts)
    plain = wilson(found.successes, found.trials)
    assert found.rate.high - found.rate.low == pytest.approx(plain[1] - plain[0], rel=0.1)


def test_attempts_without_verdict_count_neither_way() -> None:
    found = success_rate([[True, None], [None], [False, False]])
    assert (found.clusters, found.trials, found.successes, found.unparseable) == (3, 3, 1, 2)
    nothing = success_rate([[None], [None]])
    assert np.isnan(nothing.rate.value)
    assert (nothing.rate.low, nothing.rate.high) == (0, 1)


def test_as_many_features_of_every_class_smaller_sets_within_larger_ones() -> None:
    chosen = defending_features(PARTITION, [0.5, 1.0], np.random.default_rng(0))
    assert {key[0] for key in chosen} == {"ImgD", "TextD", "CrossD", "Random"}
    assert {key[1] for key in chosen} == {2, 4}
    for (name, size), indices in chosen.items():
        assert len(set(indices.tolist())) == size
        pool = range(30) if name == "Random" else PARTITION[name].tolist()  # type: ignore[index]
        assert set(indices.tolist()) <= set(pool)
        assert set(chosen[name, 2].tolist()) <= set(chosen[name, 4].tolist())


def test_impossible_sets_of_features() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="in \\(0, 1\\]"):
        defending_features(PARTITION, [1.5], rng)
    empty = Partition(torch.arange(6), torch.empty(0, dtype=torch.long), torch.arange(6, 30), torch.tensor([30, 31]))
    with pytest.raises(ValueError, match="a class is empty \\(ImgD 6, TextD 0, CrossD 24\\)"):
        defending_features(empty, [1.0], rng)


def test_outcome_compares_the_same_requests() -> None:
    """Two runs of three requests: pictures of one request are repeats."""
    requests = np.array([0, 1, 2, 0, 1, 2])
    own = [[True], [False], [False], [False], [False], [False]]
    random = [[True], [True], [True], [True], [False], [False]]
    margins = np.array([1.0, 0.0, 0.0, 3.0, 0.0, 0.0])
    distances = np.array([[2.0, 1.0]] * 3 + [[4.0, 3.0]] * 3)
    found = attack_outcome(Condition("TextD", "raw", 4), Observations(requests, own, margins, distances), random)
    assert found.success.clusters == 3
    assert found.success.rate.value == pytest.approx(1 / 6)
    assert found.below_random is not None
    assert found.below_random.value == pytest.approx(0.5)  # of each request half a success less
    assert found.below_random.low == found.below_random.high == pytest.approx(0.5)
    assert found.margin.value == pytest.approx(2 / 3)
    assert found.distances == (3.0, 2.0)
    row = found.to_row()
    assert (row["aligned"], row["features"], row["distance_after"]) == ("TextD", 4, 2.0)
    assert (row["rate"], row["rate_low"]) == (found.success.rate.value, found.success.rate.low)
    assert [(step["step"], step["distance"]) for step in found.distance_rows()] == [(0, 3.0), (1, 2.0)]
    assert {step["aligned"] for step in found.distance_rows()} == {"TextD"}
