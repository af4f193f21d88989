"""Intervals of R(d): realised coverage in the regimes of raw, sparse and lopsided features."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from mmmono.modality import DominanceScores, dominance_scores, effective_trials, score_intervals
from tests.modality.draws import Pair, dense, families, latents, pair_of, repeated

FEATURES = 2000


def coverage(scores: DominanceScores, truth: float) -> float:
    known = scores.informative_groups >= 10
    low, high = score_intervals(scores)[:, known]
    assert (high > low).all()
    return float(((low <= truth) & (truth <= high)).double().mean())


@pytest.mark.parametrize("mean", [0.5, 0.7])
@pytest.mark.parametrize("pairs", [12, 50, 500])
def test_dense_features_are_covered(mean: float, pairs: int) -> None:
    scores = dominance_scores([dense(np.random.default_rng(0), pairs, FEATURES, mean)])
    assert 0.925 <= coverage(scores, mean) <= 0.97
    low, high = score_intervals(scores)
    normal = 2 * 1.96 * scores.standard_error
    assert float((high - low).mean()) == pytest.approx(float(normal.mean()), rel=0.15 if pairs < 50 else 0.03)


@pytest.mark.parametrize(
    ("mean", "pairs", "share"),
    [(0.5, 400, 0.05), (0.83, 400, 0.06), (0.95, 400, 0.055), (0.05, 1000, 0.03), (0.8, 400, 0.4)],
)
def test_latents_are_covered_also_if_one_modality_nearly_always_wins(mean: float, pairs: int, share: float) -> None:
    scores = dominance_scores([latents(np.random.default_rng(1), pairs, FEATURES, mean, share)])
    assert 0.93 <= coverage(scores, mean) <= 0.975
    if mean == 0.95:  # 21 informative pairs: what a normal interval does
        reach = 1.96 * scores.standard_error
        assert ((scores.scores - mean).abs() <= reach).double().mean() < 0.7


@pytest.mark.parametrize(
    "of", [lambda rng: dense(rng, 60, FEATURES, 0.6), lambda rng: latents(rng, 300, FEATURES, 0.9, 0.1)]
)
def test_copies_of_pairs_shorten_nothing(of: object) -> None:
    pair: Pair = of(np.random.default_rng(2))  # type: ignore[operator]
    copies, groups = repeated(pair, 5)
    one, many = dominance_scores([pair]), dominance_scores([copies], groups=groups)
    np.testing.assert_allclose(score_intervals(many), score_intervals(one), rtol=1e-9)


@pytest.mark.parametrize("mean", [0.5, 0.7, 0.9])
def test_latents_are_covered_also_if_groups_are_of_very_unequal_size(mean: float) -> None:
    """With quantiles of the normal distribution it was .85, .86 and .95."""
    pair, groups = families(np.random.default_rng(3), 1000, mean)
    assert coverage(dominance_scores([pair], groups=groups), mean) > 0.9


def test_without_spread_it_is_wilsons_for_as_many_groups() -> None:
    always, groups = repeated(pair_of(np.ones((12, 1))), 3)
    scores = dominance_scores([always], groups=groups)
    expected = binomtest(12, 12).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(score_intervals(scores)[:, 0], (expected.low, expected.high), atol=1e-12)
    assert effective_trials(scores).item() == pytest.approx(12)


def test_coins_are_wilsons() -> None:
    """Ratios of 0 and 1, one pair a group: the trials are the pairs, but for n − 1 in the standard error."""
    wins = pair_of(np.repeat([[1.0], [0.0]], [130, 70], 0))
    expected = binomtest(130, 200).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(
        score_intervals(dominance_scores([wins]))[:, 0], (expected.low, expected.high), atol=3e-4
    )


def test_one_group_says_little_and_dead_features_nothing() -> None:
    pair = pair_of(np.full((3, 2), 0.9), np.array([[True, False]] * 3))
    low, high = score_intervals(dominance_scores([pair], groups=[0, 0, 0]))
    assert high[0] - low[0] > 0.7
    assert torch.isnan(low[1])
    assert torch.isnan(high[1])
