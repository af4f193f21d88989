"""Classes that other pairs would confirm: the level of the test against borders, and probabilities of the classes."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from mmmono.modality import (
    LIVE_CLASSES,
    Partition,
    class_certainty,
    dominance_scores,
    partition_by_counts,
    partition_by_margin,
    partition_by_null,
    partition_by_sigma,
    resample_dominance,
)
from tests.modality.draws import Pair, dense, families, latents, pair_of, repeated


def sigma(scores: torch.Tensor, live: torch.Tensor) -> Partition:
    return partition_by_sigma(scores, live=live)


def certain(pair: Pair, classify, groups: object = None, n_bootstrap: int = 200):  # type: ignore[no-untyped-def]
    scores = dominance_scores([pair], groups=groups)  # type: ignore[arg-type]
    bootstrap = resample_dominance([pair], 1, n_bootstrap, 1, groups=groups).bootstrap  # type: ignore[arg-type]
    return scores, class_certainty(scores, bootstrap, classify, scores.informative_groups >= 10)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("times", [1, 4])
def test_features_on_a_border_are_confirmed_at_the_level_of_the_test(side: int, times: int) -> None:
    """True R(d) = ½ ± margin: the null's least favourable point."""
    pair, groups = repeated(dense(np.random.default_rng(0), 150, 2000, 0.5 + side * 0.1), times)
    _, certainty = certain(pair, lambda s, live: partition_by_margin(s, 0.1, live), groups)
    assert 0.04 <= (certainty.border_p_value <= 0.05).double().mean() <= 0.065
    if times > 1:
        _, wrong = certain(pair, lambda s, live: partition_by_margin(s, 0.1, live))
        assert (wrong.border_p_value <= 0.05).double().mean() > 0.15


def test_features_on_a_border_are_rarely_confirmed_where_groups_are_of_very_unequal_size() -> None:
    """With the normal distribution it was .14."""
    pair, groups = families(np.random.default_rng(4), 800, 0.7)
    _, certainty = certain(pair, lambda s, live: partition_by_margin(s, 0.2, live), groups)
    tested = certainty.border_p_value[~certainty.border_p_value.isnan()]
    assert (tested <= 0.05).double().mean() < 0.115


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.03])
def test_close_borders_are_not_crossed_more_often(margin: float) -> None:
    """Borders closer to each other than the error of R(d), about 0.03 here: a score may land beyond either one."""
    pair = dense(np.random.default_rng(6), 150, 2000, 0.5 + margin)
    scores, certainty = certain(pair, lambda s, live: partition_by_margin(s, margin, live))
    assert 0.04 <= (certainty.border_p_value <= 0.05).double().mean() <= 0.06
    if not margin:  # the borders coincide, and the test is the two-sided one of R(d) = ½
        z = (scores.scores - 0.5).abs() / certainty.border_error
        np.testing.assert_allclose(certainty.border_p_value, 2 * norm.sf(z), rtol=1e-12)


@pytest.mark.parametrize("mean", [0.9, 0.95])
def test_latents_that_a_modality_always_wins_are_not_confirmed_by_that_alone(mean: float) -> None:
    """20 to 40 informative pairs: many have ratios of 1 alone, so that all their resamples are alike."""
    pair = latents(np.random.default_rng(1), 400, 2000, mean, 0.07)
    scores, certainty = certain(pair, lambda s, live: partition_by_margin(s, mean - 0.5, live))
    assert (scores.scores == 1).double().mean() > 0.04
    assert (certainty.border_p_value <= 0.05).double().mean() <= 0.06


def test_borders_at_sigma_are_rarely_crossed_by_chance() -> None:
    """Features of known R(d): of those confirmed, few lie within μ ± σ of the true scores; and many beyond are found."""
    rng = np.random.default_rng(2)
    truth = np.clip(rng.normal(0.5, 0.08, 600), 0.1, 0.9)
    ratio = rng.beta(truth * 3, (1 - truth) * 3, (800, 600))
    _, certainty = certain(pair_of(ratio), sigma)
    confirmed = certainty.confirmed(0.05).numpy()
    beyond = np.abs(truth - truth.mean()) > truth.std()
    assert (confirmed & ~beyond).sum() <= 0.05 * confirmed.sum()
    assert (confirmed & beyond).sum() > 0.5 * beyond.sum()


def test_no_preference_confirms_nothing() -> None:
    _, certainty = certain(dense(np.random.default_rng(3), 300, 500, 0.5), sigma)
    assert certainty.confirmed(0.05).sum() == 0


def test_probabilities_are_shares_of_resamples() -> None:
    rng = np.random.default_rng(4)
    truth = rng.uniform(0.3, 0.7, 40)
    pair = pair_of(
        rng.beta(truth * 3, (1 - truth) * 3, (100, 40)), rng.random((100, 40)) < np.r_[0.02, np.full(39, 0.5)]
    )
    scores = dominance_scores([pair])
    live = scores.informative_pairs >= 10
    assert not live[0]
    bootstrap = resample_dominance([pair], 1, 60, 1).bootstrap
    got = class_certainty(scores, bootstrap, sigma, live).probabilities.numpy()
    kept = bootstrap[:, live].numpy()
    mean, std = kept.mean(1, keepdims=True), kept.std(1, keepdims=True)
    image, text = (kept > mean + std).mean(0), (kept < mean - std).mean(0)
    np.testing.assert_allclose(got[:, live], [image, text, 1 - image - text], atol=1e-12)
    assert np.isnan(got[:, 0]).all()
    assert LIVE_CLASSES == ("ImgD", "TextD", "CrossD")


def test_every_rule_tells_its_borders() -> None:
    scores = torch.tensor([0.1, 0.3, 0.5, 0.6, 0.9, torch.nan]).double()
    known = scores[:5].numpy()
    by_sigma = partition_by_sigma(scores, 1.5)
    assert (by_sigma.low, by_sigma.high) == pytest.approx(
        (known.mean() - 1.5 * known.std(), known.mean() + 1.5 * known.std())
    )
    assert (partition_by_margin(scores, 0.2).low, partition_by_margin(scores, 0.2).high) == pytest.approx((0.3, 0.7))
    counted = partition_by_counts(scores, 1, 2)
    assert (counted.low, counted.high) == pytest.approx((0.4, 0.75))
    empty = partition_by_counts(scores, 0, 0)
    assert (empty.low, empty.high) == (-np.inf, np.inf)
    null = partition_by_null(scores, torch.zeros(6))
    assert (null.low, null.high) == (0.5, 0.5)


def test_classes_by_counts_can_be_confirmed_and_empty_ones_cannot() -> None:
    rng = np.random.default_rng(5)
    truth = np.r_[np.full(20, 0.5), 0.9]
    pair = pair_of(rng.beta(truth * 3, (1 - truth) * 3, (300, 21)))
    _, certainty = certain(pair, lambda s, live: partition_by_counts(s, 1, 0, live))
    assert certainty.confirmed(0.05).nonzero().flatten().tolist() == [20]
    assert certainty.probabilities[0, 20] == 1
    _, nothing = certain(pair, lambda s, live: partition_by_counts(s, 0, 0, live))
    assert nothing.confirmed(0.05).sum() == 0
