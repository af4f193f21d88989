"""Agreement between seeds, by simulation: what is known to agree, and what agrees by the modality gap alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.modality import (
    CorrelationStream,
    adjusted_rand_index,
    agreement,
    dominance_scores,
    match_features,
    partition_by_sigma,
    rank_correlation,
)
from mmmono.modality.agreement import feature_correlations
from mmmono.modality.seed_agreement import (
    HalvesStream,
    SeedAgreement,
    SeedScores,
    class_shares,
    consensus_features,
    corrected_correlation,
    corrected_interval,
    reliability,
    seed_agreement,
)
from mmmono.pipeline import seed_comparison

Sides = list[Tensor]  # activations on images, and on texts

PAIRS, FEATURES = 1200, 250


def scored(sides: Sides, groups: np.ndarray | None = None, n_halves: int = 10) -> SeedScores:
    groups = np.arange(len(sides[0])) if groups is None else groups
    halves = HalvesStream(int(groups.max()) + 1, n_halves)
    halves.add(*sides, groups)
    scores = dominance_scores([(sides[0], sides[1])])
    partition = partition_by_sigma(scores.scores, live=scores.informative_pairs >= 10)
    return SeedScores(scores.scores, partition, halves.result())


def matched(first: Sides, second: Sides) -> tuple[Tensor, Tensor]:
    return match_features([(first[0], second[0], "image"), (first[1], second[1], "text")])


def shuffled(sides: Sides, rng: np.random.Generator) -> Sides:
    """Destroy the content within each modality."""
    return [side[rng.permutation(len(side))] for side in sides]


def compared(on: tuple[Sides, Sides], scores: tuple[SeedScores, SeedScores], seed: int) -> tuple[SeedAgreement, ...]:
    """Agreement after matching, and the mean-like first agreement by chance of three."""
    rng = np.random.default_rng(seed)
    first, second = scores
    found = seed_agreement(first, second.reordered(matched(*on)[0]))
    by_chance = (matched(on[0], shuffled(on[1], rng))[0] for _ in range(3))
    return found, *(seed_agreement(first, second.reordered(partners)) for partners in by_chance)


def dense_with_gap(rng: np.random.Generator, gain: np.ndarray) -> Sides:
    """Noise around means that differ between the modalities; no two dictionaries share more than such a gap."""
    return [torch.from_numpy(rng.normal(size=(PAIRS, len(gain))) + mean) for mean in (gain, 1 / gain)]


def sparse_with_gap(rng: np.random.Generator, gain: np.ndarray) -> Sides:
    """Latents that fire at random, more often in one modality."""
    share = 0.02 + 0.26 * gain / (gain + 1 / gain)
    return [
        torch.from_numpy(rng.gamma(2, size=(PAIRS, len(gain))) * (rng.random((PAIRS, len(gain))) < often))
        for often in (share, 0.3 - share)
    ]


@pytest.mark.parametrize("kind", [dense_with_gap, sparse_with_gap])
def test_sharing_nothing_but_the_modality_gap_is_agreement_by_chance(kind) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    gains = [np.exp(rng.normal(size=FEATURES)) for _ in range(2)]
    on, off = ([kind(rng, gain) for gain in gains] for _ in range(2))
    first, second = (scored(sides) for sides in off)
    # Both modalities centered together, as was done before, match what prefers the same modality.
    joint = feature_correlations([(torch.cat(on[0]), torch.cat(on[1]))])
    old = torch.from_numpy(linear_sum_assignment(joint.numpy(), maximize=True)[1])
    assert seed_agreement(first, second.reordered(old)).rho > 0.8
    found, *by_chance = compared((on[0], on[1]), (first, second), 0)
    chance = {key: float(np.mean([getattr(one, key) for one in by_chance])) for key in ("rho", "ari", "across")}
    # Standard error of a rank correlation of 250 features: 0.063.
    assert found.rho == pytest.approx(chance["rho"], abs=0.16)
    assert found.ari == pytest.approx(chance["ari"], abs=0.06)
    assert corrected_correlation(found.across, found.within, chance["across"]) == pytest.approx(0, abs=0.25)
    if kind is dense_with_gap:
        assert found.rho == pytest.approx(0, abs=0.16)
    else:  # latents vary where they fire, so that matching by chance is not blind to the modality
        assert chance["rho"] > 0.2


def noisy(rng: np.random.Generator, lean: np.ndarray, content: np.ndarray, noise: float) -> Sides:
    """A dictionary of latents with the given content, [2, pairs, features], and a bit of its own noise."""
    sides = []
    for gain, side in zip((lean, 1 - lean), content, strict=True):
        sides.append(torch.from_numpy(gain * np.abs(side + noise * rng.normal(size=side.shape))))
    return sides


def test_two_noisy_copies_agree_as_far_as_noise_allows() -> None:
    """Also if they share the noise of the pairs, where dividing by reliabilities would give more than 1."""
    rng = np.random.default_rng(1)
    lean = 0.5 + 0.03 * rng.normal(size=FEATURES)  # a spread of R(d) that is small beside its errors
    order = rng.permutation(FEATURES)
    content = rng.normal(size=(2, 2, PAIRS, FEATURES)) * (rng.random((2, 2, PAIRS, FEATURES)) < 0.7)
    for noise in (0.0, 0.3):
        on, off = ([noisy(rng, lean, c, noise), noisy(rng, lean[order], c[..., order], noise)] for c in content)
        found, *by_chance = compared((on[0], on[1]), (scored(off[0]), scored(off[1])), 0)
        assert 0.1 < found.within < 0.8
        assert corrected_correlation(found.across, found.within) == pytest.approx(1, abs=0.1)
        chance = float(np.mean([one.across for one in by_chance]))
        assert corrected_correlation(found.across, found.within, chance) == pytest.approx(1, abs=0.1)
        if noise == 0:
            assert found.rho == pytest.approx(1)
            assert found.rho / reliability(found.within) > 2


def test_with_independent_errors_the_correction_is_spearmans() -> None:
    """ρ / √(rel_a · rel_b) with reliabilities from halves by Spearman-Brown, on other pairs for either dictionary."""
    rng = np.random.default_rng(2)
    truth = 0.5 + 0.05 * rng.normal(size=2000)
    halves = [torch.from_numpy(truth + 0.06 * rng.normal(size=(2, 1, 2000))) for _ in range(2)]
    first, second = (SeedScores(half.mean((0, 1)), partition_by_sigma(half.mean((0, 1))), half) for half in halves)
    found = seed_agreement(first, second)
    rel = [2 * r / (1 + r) for r in (spearmanr(*half[:, 0]).statistic for half in halves)]
    spearman = spearmanr(first.scores, second.scores).statistic / np.sqrt(rel[0] * rel[1])
    assert found.rho < 0.65
    assert reliability(found.within) == pytest.approx(np.sqrt(rel[0] * rel[1]), abs=0.01)
    assert corrected_correlation(found.across, found.within) == pytest.approx(spearman, abs=0.05)
    assert spearman == pytest.approx(1, abs=0.06)


def seeds_of_known_agreement(rng: np.random.Generator, tau: float, features: int = 150) -> list[SeedScores]:
    """Three dictionaries whose true scores correlate by `tau` with the first; a part of their errors is the same."""
    n_groups, noise = 40, 0.8
    in_first = np.array([rng.permutation(n_groups) < n_groups // 2 for _ in range(2)])
    base, shared = rng.normal(size=features), rng.normal(size=(n_groups, features))
    found = []
    for own in (0, 1, 1):
        truth = (tau * base + np.sqrt(1 - tau**2) * rng.normal(size=features)) if own else base
        errors = 0.6 * shared + 0.8 * rng.normal(size=(n_groups, features))
        of_groups = truth + noise * np.sqrt(n_groups) * errors
        halves = np.stack([side @ of_groups / side.sum(1, keepdims=True) for side in (in_first, ~in_first)])
        scores = torch.from_numpy(of_groups.mean(0))
        found.append(SeedScores(scores, partition_by_sigma(scores), torch.from_numpy(halves)))
    return found


@pytest.mark.parametrize("tau", [0.0, 0.6])
def test_the_interval_of_the_corrected_correlation_covers(tau: float) -> None:
    true = 6 / np.pi * np.arcsin(tau / 2)  # Spearman's ρ of a bivariate normal distribution
    covered, values = [], []
    for repeat in range(80):
        first, *others = seeds_of_known_agreement(np.random.default_rng(1000 + repeat), tau)
        interval = corrected_interval(first, others, n_bootstrap=200, seed=repeat)
        covered.append(interval.low <= true <= interval.high)
        values.append(interval.value)
    assert np.mean(values) == pytest.approx(true, abs=0.05)
    assert np.mean(covered) >= 0.87  # .95 − 3.3 standard errors
    means = [np.mean([getattr(seed_agreement(first, o), of) for o in others]) for of in ("across", "within")]
    assert values[-1] == pytest.approx(corrected(*means))
    assert np.mean(values) == pytest.approx(true, abs=4 * np.std(values) / 80**0.5)
    resampled = corrected_interval(first, others, n_bootstrap=200, seed=1)
    assert resampled.value == values[-1]
    assert resampled.low != interval.low


def corrected(across: float, within: float, chance: float = 0.0) -> float:
    """Rank correlations as Pearson's of normal distributions, corrected, and back."""
    x, y, c = 2 * np.sin(np.pi * np.array([across, within, chance]) / 6)
    return float(6 / np.pi * np.arcsin((x - c) / (y - c) / 2))


def test_an_interval_by_hand() -> None:
    """Against resampled rows, ranked once: Pearson's correlation of the ranks by numpy."""
    first, other, _ = seeds_of_known_agreement(np.random.default_rng(0), 0.6)
    interval = corrected_interval(first, [other], 0.05, n_bootstrap=100, seed=3)
    counts = np.random.default_rng(3).multinomial(150, np.full(150, 1 / 150), size=100)
    a, b = (rankdata(of.halves.numpy(), axis=-1) for of in (first, other))
    drawn = []
    for count in counts:
        rows = np.repeat(np.arange(150), count)
        r = lambda x, y: np.mean([np.corrcoef(x[h, rows], y[h, rows])[0, 1] for h in range(2)])  # noqa: B023, E731
        across = (r(a[0], b[1]) + r(a[1], b[0])) / 2
        drawn.append(corrected(across, np.sqrt(r(*a) * r(*b)), 0.05))
    reach = 1.959964 * np.std(drawn)
    ends = np.tanh(np.arctanh(interval.value) + np.array([-reach, reach]) / (1 - interval.value**2))
    np.testing.assert_allclose([interval.low, interval.high], ends, rtol=1e-6)


def test_few_features_are_covered_too() -> None:
    """By a symmetric interval .905 of 30 features' intervals with bounds covered; estimates were too high in .09."""
    covered = []
    for repeat in range(200):
        first, *others = seeds_of_known_agreement(np.random.default_rng(repeat), 0.7, features=30)
        interval = corrected_interval(first, others, n_bootstrap=100, seed=repeat)
        if interval.bounded:
            covered.append(interval.low <= 6 / np.pi * np.arcsin(0.35) <= interval.high)
    assert len(covered) > 60
    assert np.mean(covered) > 0.93


def test_an_agreement_above_1_has_the_interval_of_one_near_it() -> None:
    first, other, _ = seeds_of_known_agreement(np.random.default_rng(3), 1.0)
    interval = corrected_interval(first, [other], n_bootstrap=100, seed=3)
    assert interval.low < interval.value < interval.high


def test_unreliable_scores_are_not_corrected() -> None:
    rng = np.random.default_rng(4)
    halves = torch.from_numpy(rng.normal(size=(2, 3, 100)))
    noise = SeedScores(halves[0, 0], partition_by_sigma(halves[0, 0]), halves)
    found = seed_agreement(noise, noise)
    assert np.isnan(found.within)
    assert np.isnan(corrected_correlation(found.across, found.within))
    assert not corrected_interval(noise, [noise]).bounded
    assert np.isnan(corrected_correlation(0.3, 0.2, 0.25))
    assert corrected_correlation(0.5, 0.5, 0.1) == pytest.approx(1)
    assert corrected_correlation(0.1, 0.5, 0.1) == pytest.approx(0)
    assert corrected_correlation(0.3, 0.5, 0.1) == pytest.approx(corrected(0.3, 0.5, 0.1))


def test_agreement_counts_what_is_live_in_both() -> None:
    rng = np.random.default_rng(5)
    a, b = (torch.from_numpy(rng.random((2, 4, 60))) for _ in range(2))
    live = [torch.from_numpy(rng.random(60) < 0.8) for _ in range(2)]
    first, second = (
        SeedScores(x[0, 0], partition_by_sigma(x[0, 0], live=of), x) for x, of in zip((a, b), live, strict=True)
    )
    both = live[0] & live[1]
    found = seed_agreement(first, second)
    assert found.features == int(both.sum()) < 60
    assert found.rho == pytest.approx(spearmanr(a[0, 0][both], b[0, 0][both]).statistic)
    classes = [np.array(of.partition.class_of())[both] for of in (first, second)]
    assert found.ari == pytest.approx(adjusted_rand_score(*classes))
    ways = [spearmanr(a[i, h][both], b[1 - i, h][both]).statistic for i in range(2) for h in range(4)]
    assert found.across == pytest.approx(np.mean(ways))
    partners = torch.from_numpy(rng.permutation(60))
    moved = second.reordered(partners)
    np.testing.assert_array_equal(moved.scores, second.scores[partners])
    np.testing.assert_array_equal(moved.halves, second.halves[:, :, partners])
    assert moved.partition.class_of() == [second.partition.class_of()[i] for i in partners]


def test_synthetic_consensus_is_found() -> None:
    """Three dictionaries share 150 of 250 features up to noise; each has 100 of its own."""
    rng = np.random.default_rng(6)
    lean = rng.uniform(0.1, 0.9, size=FEATURES)
    content = rng.normal(size=(2, PAIRS, FEATURES)) * (rng.random((2, PAIRS, FEATURES)) < 0.3)
    agreed = np.arange(FEATURES) < 150
    reference = noisy(rng, lean, content, 0.1)
    correlations, live = [], [scored(reference).live]
    for _ in range(2):
        own = np.where(agreed, content, rng.permuted(content, axis=1))
        order = rng.permutation(FEATURES)
        other = [side[:, order] for side in noisy(rng, lean, own, 0.1)]
        partners, correlation = matched(reference, other)
        assert (order[partners.numpy()][agreed] == np.arange(150)).mean() > 0.95
        correlations.append(correlation)
        live.append(scored(other).reordered(partners).live)
    found = consensus_features(torch.stack(correlations), torch.stack(live), 0.7).numpy()
    assert (found & agreed).sum() / found.sum() >= 0.95
    assert (found & agreed).sum() / agreed.sum() >= 0.95
    # A feature that one seed does not find, or in which it is silent, is none.
    correlations[1][7] = 0.69
    live[2][8] = False
    again = consensus_features(torch.stack(correlations), torch.stack(live), 0.7).numpy()
    np.testing.assert_array_equal(np.flatnonzero(found & ~again), [7, 8])


def test_class_shares() -> None:
    rng = np.random.default_rng(7)
    scores = torch.from_numpy(rng.random((4, 30)))
    scores[0, 3] = torch.nan
    partitions = [partition_by_sigma(one) for one in scores]
    shares = class_shares(partitions)
    for feature in range(30):
        classes = [partition.class_of()[feature] for partition in partitions]
        assert [shares[name][feature] for name in shares] == [classes.count(name) / 4 for name in shares]
    assert sum(share[3] for share in shares.values()) == 0.75
    with pytest.raises(ValueError, match="no partitions"):
        class_shares([])


@pytest.mark.parametrize("undefined", ["skip", "half"])
def test_halves_are_means_over_halves_of_the_groups(undefined) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(8)
    image, text = (rng.random((90, 6)) * (rng.random((90, 6)) < 0.6) for _ in range(2))
    groups = rng.integers(0, 30, size=90)
    stream = HalvesStream(30, 5, seed=1, undefined=undefined)
    for rows in (slice(0, 40), slice(40, 90)):
        stream.add(torch.from_numpy(image[rows]), torch.from_numpy(text[rows]), groups[rows])
    result = stream.result().numpy()
    assert result.shape == (2, 5, 6)
    with np.errstate(invalid="ignore"):
        ratio = np.where(image + text > 0, image / (image + text), 0.5 if undefined == "half" else np.nan)
    chosen = stream._in_first.numpy()
    assert (chosen.sum(1) == 15).all()
    for halving in range(5):
        in_first = np.isin(groups, np.flatnonzero(chosen[halving]))
        np.testing.assert_allclose(result[0, halving], np.nanmean(ratio[in_first], axis=0))
        np.testing.assert_allclose(result[1, halving], np.nanmean(ratio[~in_first], axis=0))


def test_five_captions_of_an_image_are_halved_as_one() -> None:
    """Repeating each pair of a group changes no half, so repetition does not make scores look reliable."""
    rng = np.random.default_rng(9)
    sides = [torch.from_numpy(rng.random((60, 20))) for _ in range(2)]
    five = [side.repeat_interleave(5, 0) for side in sides]
    once, repeated = scored(sides), scored(five, np.repeat(np.arange(60), 5))
    torch.testing.assert_close(once.halves, repeated.halves)
    alone = scored(five)  # each pair for itself: copies in both halves
    assert seed_agreement(alone, alone).within > 0.5
    assert np.isnan(seed_agreement(repeated, repeated).within)


def test_strata_are_centered_by_themselves() -> None:
    rng = np.random.default_rng(10)
    a, b = rng.normal(size=(80, 4)), rng.normal(size=(80, 5))
    strata = rng.integers(0, 3, size=80)
    a[strata == 1] += 1000
    b[strata == 1] -= 300
    stream = CorrelationStream()
    for row in range(80):
        stream.add(torch.from_numpy(a[row : row + 1]), torch.from_numpy(b[row : row + 1]), str(strata[row]))
    centered = [x - np.stack([x[strata == s].mean(0) for s in range(3)])[strata] for x in (a, b)]
    np.testing.assert_allclose(stream.result(), np.corrcoef(*centered, rowvar=False)[:4, 4:], atol=1e-9)
    assert feature_correlations([(torch.from_numpy(a), torch.from_numpy(b))]).max() < -0.9  # the gap alone


def test_sparse_codes_are_correlated_by_what_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    a, b = (rng.random((400, width)) * (rng.random((400, width)) < 0.04) for width in (60, 70))
    b[:, 0] = 0.0
    stream = CorrelationStream()
    for rows in np.split(np.arange(400), 8):
        stream.add(torch.from_numpy(a[rows]).float(), torch.from_numpy(b[rows]).float(), str(int(rows[0]) % 100))
    strata = np.arange(400) // 50 % 2
    centered = [x - np.stack([x[strata == s].mean(0) for s in (0, 1)])[strata] for x in (a, b)]
    products = centered[0].T @ centered[1]
    lengths = [np.linalg.norm(x, axis=0) for x in centered]
    expected = products / np.maximum(lengths[0][:, None] * lengths[1], 1e-300)
    np.testing.assert_allclose(stream.result(), expected, atol=1e-6)
    dense = CorrelationStream()
    monkeypatch.setattr(agreement, "compact", lambda rows: rows.numpy())
    for rows in np.split(np.arange(400), 8):
        dense.add(torch.from_numpy(a[rows]).float(), torch.from_numpy(b[rows]).float(), str(int(rows[0]) % 100))
    np.testing.assert_allclose(stream.result(), dense.result(), atol=1e-14)


def test_dictionaries_too_wide_to_be_matched_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_comparison, "usable_memory", lambda: 10**9)
    seed_comparison.check_width(6_000)
    with pytest.raises(ConfigError, match="match 7,000 features with those of another seed takes 1 GB"):
        seed_comparison.check_width(7_000)


def test_matches_keep_their_sign() -> None:
    rng = np.random.default_rng(11)
    a = [torch.from_numpy(rng.normal(size=(200, 2))) for _ in range(2)]
    partners, correlation = matched(a, [-side for side in a])
    # Each feature of the second set is the opposite of one of the first: the sum is largest if none meets its opposite.
    assert partners.tolist() == [1, 0]
    assert correlation.abs().max() < 0.3
    one = [side[:, :1] for side in a]
    assert matched(one, [-side for side in one])[1].item() == pytest.approx(-1)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ((torch.rand(4, 3), torch.rand(4, 1), np.arange(4)), r"paired blocks \[pairs, features\] expected"),
        ((torch.rand(4, 2), torch.rand(4, 2), np.arange(4)), "a block of 2 features after blocks of 3"),
        ((torch.rand(4, 3), torch.rand(4, 3), np.arange(3)), r"groups of shape \(3,\) given for a block of 4 pairs"),
        ((torch.rand(4, 3), torch.rand(4, 3), np.arange(1, 5)), "groups 1 to 4 given, but .* groups 0 to 3"),
        ((torch.rand(4, 3), torch.rand(4, 3), -np.arange(4)), "groups -3 to 0 given"),
    ],
)
def test_blocks_that_do_not_fit_their_halves_are_refused(block, message) -> None:  # type: ignore[no-untyped-def]
    stream = HalvesStream(4, 2)
    stream.add(torch.rand(4, 3), torch.rand(4, 3), np.arange(4))
    before = stream.result()
    with pytest.raises(ValueError, match=message):
        stream.add(*block)
    assert torch.equal(stream.result(), before)


def test_what_cannot_be_compared_is_refused() -> None:
    wide, narrow = torch.rand(5, 3), torch.rand(5, 2)
    with pytest.raises(ValueError, match="3 features cannot be matched one to one with 2"):
        match_features([(wide, narrow, "image")])
    with pytest.raises(ValueError, match="5 samples of the first set but 4"):
        CorrelationStream().add(wide, wide[:4])
    with pytest.raises(ValueError, match="1 groups of pairs cannot be halved"):
        HalvesStream(1)
    with pytest.raises(ValueError, match="undefined='halve' is neither 'skip' nor 'half'"):
        HalvesStream(4, undefined="halve")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no activations"):
        HalvesStream(4).result()
    with pytest.raises(ValueError, match="cannot be merged"):
        HalvesStream(4).merge(HalvesStream(5))
    a, b = (scored([torch.rand(20, n), torch.rand(20, n)]) for n in (4, 5))
    with pytest.raises(ValueError, match="features"):
        seed_agreement(a, b)
    assert np.isnan(rank_correlation(torch.ones(4), torch.ones(4)))
    assert adjusted_rand_index(a.partition, a.partition) == 1
