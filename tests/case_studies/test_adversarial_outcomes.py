"""Success rates, their intervals, and which features defend."""

import numpy as np
import pytest
import torch

from mmmono.case_studies.adversarial.outcomes import (
    Carried,
    Condition,
    Observations,
    attack_outcome,
    defending_features,
    shares_of_sizes,
)
from mmmono.case_studies.adversarial.success import Crossing, success_rate
from mmmono.core.statistics import wilson
from mmmono.modality import Partition
from mmmono.modality.random_sets import Activity

PARTITION = Partition(torch.arange(6), torch.arange(6, 10), torch.arange(10, 30), torch.tensor([30, 31]))


def alone(cases: int) -> Crossing:
    """Each case is another request with another image."""
    return Crossing(np.arange(cases), np.arange(cases))


def test_one_attempt_an_image_is_plain_wilson() -> None:
    found = success_rate([[True]] * 7 + [[False]] * 3, alone(10))
    assert (found.trials, found.successes, found.rate.value) == (10, 7, 0.7)
    assert (found.rate.low, found.rate.high) == wilson(7, 10)


def test_repeats_that_all_agree_count_as_one() -> None:
    """Ten images, each attempted five times with one answer: no surer than ten attempts, but for the estimate's n - 1."""
    found = success_rate([[True] * 5] * 7 + [[False] * 5] * 3, alone(10))
    assert (found.trials, found.rate.value) == (50, 0.7)
    low, high = wilson(0.7 * 9, 9, freedom=9)
    np.testing.assert_allclose((found.rate.low, found.rate.high), (low, high))


def test_repeats_that_differ_as_much_as_images_do_count_fully() -> None:
    rng = np.random.default_rng(0)
    verdicts = (rng.random((400, 5)) < 0.3).tolist()
    found = success_rate(verdicts, alone(400))
    plain = wilson(found.successes, found.trials)
    assert found.rate.high - found.rate.low == pytest.approx(plain[1] - plain[0], rel=0.1)


def test_attempts_without_verdict_count_neither_way() -> None:
    found = success_rate([[True, None], [None], [False, False]], alone(3))
    assert (found.requests, found.trials, found.successes, found.unparseable) == (3, 3, 1, 2)
    nothing = success_rate([[None], [None]], alone(2))
    assert np.isnan(nothing.rate.value)
    assert (nothing.rate.low, nothing.rate.high) == (0, 1)


def test_a_benign_image_that_decides_widens_the_interval() -> None:
    """Sixteen requests with eight images, whatever the request: eight outcomes, not 32."""
    requests, images = np.tile(np.arange(16), 2), np.r_[np.arange(16) % 8, (np.arange(16) + 1) % 8]
    found = success_rate([[bool(image < 3)] for image in images], Crossing(requests, images))
    assert (found.requests, found.images, found.trials) == (16, 8, 32)
    low, high = wilson(3, 8)
    assert found.rate.high - found.rate.low > high - low
    same = success_rate([[bool(image < 3)] for image in images], Crossing(requests, np.arange(32)))
    assert same.rate.high - same.rate.low < 0.75 * (found.rate.high - found.rate.low)
    none = success_rate([[False] * 5] * 4, Crossing(np.arange(4), np.zeros(4, int)))
    assert (none.rate.low, none.rate.high) == wilson(0, 4)  # repeats that agree do not count


@pytest.mark.parametrize("outcome", [False, True])
def test_runs_with_the_same_images_are_repeats_too(outcome: bool) -> None:
    """Five runs of ten requests with the one benign image, as in Table 3: ten trials, not fifty, if all come out alike."""
    crossing = Crossing(np.tile(np.arange(10), 5), np.zeros(50, int))
    found = success_rate([[outcome]] * 50, crossing)
    assert found.trials == 50
    assert (found.rate.low, found.rate.high) == wilson(10 * outcome, 10)
    assert crossing.pairs(np.arange(50)) == 10
    assert crossing.pairs(np.array([0, 10, 3])) == 2
    seen = Observations(crossing, [[outcome]] * 50, np.zeros(50), None)
    below = attack_outcome(Condition("TextD", "raw", 4), seen, [[outcome]] * 50).below_random
    assert below is not None
    assert below.error == pytest.approx(1 / 12)  # of ten comparisons, and two more


def activity() -> Activity:
    return Activity(np.r_[np.full(6, 3.0), np.full(4, 1.0), np.tile([1.0, 3.0], 11)] / 66, np.ones(32))


def test_as_many_features_of_every_class_smaller_sets_within_larger_ones() -> None:
    for match, randoms in (("size", {"Random"}), ("energy", {"Random-ImgD", "Random-TextD", "Random-CrossD"})):
        chosen = defending_features(PARTITION, [0.5, 1.0], np.random.default_rng(0), activity(), match)  # type: ignore[arg-type]
        assert {key[0] for key in chosen} == {"ImgD", "TextD", "CrossD", *randoms}
        assert {key[1] for key in chosen} == {2, 4}
        for (name, size), drawn in chosen.items():
            members = set(drawn.members.tolist())
            assert len(members) == size
            assert members <= set(range(30) if name in randoms else PARTITION[name].tolist())  # type: ignore[index]
            if name not in randoms:
                assert set(chosen[name, 2].members.tolist()) <= set(chosen[name, 4].members.tolist())
            elif match == "energy":
                like = activity().share(chosen[name.removeprefix("Random-"), size].members)
                assert activity().share(drawn.members) == pytest.approx(like)
                assert drawn.mismatch < 0.01


def test_sizes_have_the_share_that_was_asked_for() -> None:
    """Classes of other trainings have other sizes, and their rows are compared by the share."""
    assert shares_of_sizes(PARTITION, [1.0, 0.5]) == {2: 0.5, 4: 1.0}
    assert shares_of_sizes(PARTITION, [0.05, 0.2, 1.0]) == {1: 0.2, 4: 1.0}  # one feature is both


def test_impossible_sets_of_features() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="in \\(0, 1\\]"):
        defending_features(PARTITION, [1.5], rng, activity())
    empty = Partition(torch.arange(6), torch.empty(0, dtype=torch.long), torch.arange(6, 30), torch.tensor([30, 31]))
    with pytest.raises(ValueError, match="a class is empty \\(ImgD 6, TextD 0, CrossD 24\\)"):
        defending_features(empty, [1.0], rng, activity())


def test_outcome_compares_the_same_requests() -> None:
    """Two runs of three requests: images of one request are repeats."""
    crossing = Crossing(np.array([0, 1, 2, 0, 1, 2]), np.zeros(6, int))
    own = [[True], [False], [False], [False], [False], [False]]
    random = [[True], [True], [True], [True], [False], [False]]
    margins = np.array([1.0, 0.0, 0.0, 3.0, 0.0, 0.0])
    distances = np.array([[2.0, 1.0]] * 3 + [[4.0, 3.0]] * 3)
    found = attack_outcome(
        Condition("TextD", "raw", 4), Observations(crossing, own, margins, distances), random, Carried(0.2, None)
    )
    assert found.success.requests == 3
    assert found.success.rate.value == pytest.approx(1 / 6)
    assert found.below_random is not None
    assert found.below_random.value == pytest.approx(0.5)  # of each request half a success less
    assert found.below_random.error == pytest.approx(1 / 5)  # no request differs: as if two outcomes more did
    assert found.margin.value == pytest.approx(2 / 3)
    assert found.distances == (3.0, 2.0)
    row = found.to_row(p_holm=0.5)
    assert (row["energy"], row["mismatch"], row["p_holm"]) == (0.2, None, 0.5)
    assert row["p"] == found.below_random.p_value
    assert np.isnan(row["equivalence"])  # three requests exclude no difference below 100 points
    assert (row["aligned"], row["features"], row["distance_after"]) == ("TextD", 4, 2.0)
    assert (row["rate"], row["rate_low"]) == (found.success.rate.value, found.success.rate.low)
    assert [(step["step"], step["distance"]) for step in found.distance_rows()] == [(0, 3.0), (1, 2.0)]
    assert {step["aligned"] for step in found.distance_rows()} == {"TextD"}
