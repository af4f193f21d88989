"""Sharedness against SciPy, against re-pairing at random, and on data whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import false_discovery_control, fisher_exact, hypergeom, norm, pearsonr, permutation_test

from mmmono.core.errors import NonFiniteError
from mmmono.features import StoredRows
from mmmono.modality import (
    Sharedness,
    SharednessStream,
    broken_pairs,
    modality_dominance_score,
    rank_correlation,
    sharedness_scores,
)
from mmmono.modality.broken_pairs import EXACT_IN_PARTS, POWERS, Moments, _fourth_cumulant, broken_pairs_test
from mmmono.modality.grouped import Units

Array = npt.NDArray[np.float64]


def of(image: Array, text: Array, groups: npt.NDArray[np.int64] | None = None) -> Sharedness:
    return sharedness_scores([(torch.from_numpy(image), torch.from_numpy(text))], groups)


def sparse(
    rng: np.random.Generator, pairs: int, features: int, rate: float, together: float = 0.0
) -> tuple[Array, Array]:
    """Gamma strengths where a side fires; a pair fires as one with probability `together`."""
    joint, as_one = rng.random((pairs, features)) < rate, rng.random((pairs, features)) < together
    image, text = (
        np.where(as_one, joint, rng.random((pairs, features)) < rate) * rng.gamma(2.0, 0.25, (pairs, features))
        for _ in range(2)
    )
    return image, text


def test_sparse_features_are_scipys_phi_and_hypergeometric_test() -> None:
    image, text = sparse(np.random.default_rng(0), 300, 12, 0.1, 0.1)
    found = of(image, text)
    assert bool(found.sparse.all())
    for feature in range(12):
        fires = image[:, feature] > 0, text[:, feature] > 0
        both, counts = int((fires[0] & fires[1]).sum()), [int(side.sum()) for side in fires]
        assert found.score[feature] == pytest.approx(np.corrcoef(*fires)[0, 1], abs=1e-12)
        assert (found.co_firing[feature], found.expected[feature]) == (both, pytest.approx(counts[0] * counts[1] / 300))
        assert found.correlation[feature] == pytest.approx(pearsonr(image[:, feature], text[:, feature])[0], abs=1e-10)
        null = hypergeom(300, *counts)
        assert found.p_value[feature] == pytest.approx(null.sf(both) + null.pmf(both) / 2, rel=1e-9)
        exact = fisher_exact(np.histogram2d(*fires, bins=2)[0], alternative="greater").pvalue
        assert exact - null.pmf(both) <= found.p_value[feature] <= exact


@pytest.mark.parametrize(("rate", "together"), [(0.01, 0.1), (0.02, 0.2), (0.3, 0.0)])
def test_sparse_features_of_groups_have_the_exact_tail(rate: float, together: float) -> None:
    """Of features that fire a few times, p = .0001 had come out as .001, from the first three moments of the null."""
    rng = np.random.default_rng(4)
    sizes = np.repeat([1, 2, 4, 8, 16, 30], [200, 60, 40, 10, 5, 1])
    groups = np.repeat(np.arange(len(sizes)), sizes)
    image, text = sparse(rng, len(groups), 200, rate, together)
    found = of(image, text, groups)
    fires = [np.zeros((len(sizes), 200), bool) for _ in range(2)]
    for side, activations in zip(fires, (image, text), strict=True):
        np.logical_or.at(side, groups, activations > 0)
    for feature in np.flatnonzero(found.sparse.numpy() & ~found.p_value.isnan().numpy()):
        null, both = np.ones(1), int(found.co_firing[feature])
        for size in np.unique(sizes):
            first, second = (int(side[sizes == size, feature].sum()) for side in fires)
            counts = int((sizes == size).sum()), first, second
            null = np.convolve(null, hypergeom.pmf(np.arange(min(first, second) + 1), *counts))
        certain = null.max() > 1 - 1e-9  # nothing else could have come out
        exact = 1.0 if certain else null[both + 1 :].sum() + null[both] / 2
        assert found.p_value[feature] == pytest.approx(exact, rel=1e-6)


def test_features_that_fire_too_often_for_the_exact_tail_have_nearly_the_same() -> None:
    """Where the exact distribution of the sum over sizes of groups gives way to its first three moments."""
    rng = np.random.default_rng(5)
    parts = []
    for count in (3000, 1500, 800, 100):
        image, text = (torch.from_numpy(rng.binomial(count, 0.03, 300)) for _ in range(2))
        both = torch.from_numpy(rng.hypergeometric(image, count - image, text) + rng.poisson(0.8, 300))
        sums = torch.zeros(len(POWERS), 300, dtype=torch.float64)
        parts.append(Moments(count, sums, image, text, torch.minimum(both, torch.minimum(image, text))).firing())
    few = torch.stack([torch.minimum(part.image_firing, part.text_firing) for part in parts]).sum(0)
    assert bool((few < EXACT_IN_PARTS).all())
    exact, moments = broken_pairs_test(parts, counts=True), _by_moments(parts)
    ratio = (moments / exact)[exact > 1e-5]
    assert 0.9 < ratio.min() < ratio.max() < 2.5


def _by_moments(parts: list[Moments]) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broken_pairs, "EXACT_IN_PARTS", -1)
        return broken_pairs_test(parts, counts=True)


def test_dense_features_are_scipys_correlation_and_permutation_test() -> None:
    rng = np.random.default_rng(1)
    image = rng.exponential(size=(60, 5)) + 40
    text = 0.2 * image + rng.exponential(size=(60, 5))
    found = of(image, text)
    assert not bool(found.sparse.any())
    for feature in range(5):
        x, y = image[:, feature], text[:, feature]
        assert found.score[feature] == pytest.approx(pearsonr(x, y).statistic, abs=1e-9)
        shuffled = permutation_test(
            (x,), lambda z, y=y: z @ y, permutation_type="pairings", alternative="greater", n_resamples=20_000, rng=2
        )
        assert found.p_value[feature] == pytest.approx(shuffled.pvalue, abs=0.015)


def test_the_interval_of_normal_activations_is_that_of_fishers_z() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((5000, 1))
    y = 0.5 * x + rng.standard_normal((5000, 1))
    low, high = pearsonr(x[:, 0], y[:, 0]).confidence_interval()
    found = of(x, y)
    assert (float(found.low[0]), float(found.high[0])) == pytest.approx((low, high), abs=0.004)


def test_two_or_three_groups_have_no_interval() -> None:
    """Of two groups the correlation is ±1, and its interval was [1, 1]; that of three covered in .82."""
    rng = np.random.default_rng(0)
    image, text = rng.standard_normal((2, 4, 5))
    for count, bounded in ((2, False), (3, False), (4, True)):
        found = of(image[:count], text[:count])
        assert bool(found.score.isfinite().all())
        assert bool(found.low.isfinite().all()) == bool(found.high.isfinite().all()) == bounded
    assert bool(of(image[[0, 1, 2, 2, 3, 3]], text[[0, 1, 2, 2, 3, 3]], np.array([0, 1, 2, 2, 3, 3])).low.isnan().all())


@pytest.mark.parametrize(("rate", "together"), [(0.1, 0.3), (0.1, 0.8), (0.4, 0.5)])
def test_intervals_of_sparse_features_cover(rate: float, together: float) -> None:
    found = of(*sparse(np.random.default_rng(3), 300, 2000, rate, together))
    covers = (found.low <= together) & (found.high >= together)  # phi of equal rates is `together`
    assert 0.93 <= covers.double().mean() <= 0.97


def grouped(
    kind: str, sizes: npt.NDArray[np.int64], features: int, seed: int
) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """Sides that depend on their group, not on each other: ICC .9, or one image with several texts."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    sides = [
        0.9**0.5 * rng.standard_normal((len(sizes), features))[groups]
        + 0.1**0.5 * rng.standard_normal((len(groups), features))
        for _ in range(2)
    ]
    if kind == "one image":
        sides[0] = rng.standard_normal((len(sizes), features))[groups]
    if kind == "sparse":
        sides = [np.maximum(side - 1, 0) for side in sides]
    return sides[0], sides[1], groups


FIVE = np.full(150, 5)
TONES = np.concatenate([np.ones(300, np.int64), np.full(30, 2), np.full(12, 6), np.arange(7, 27)])  # as OpenMoji's


@pytest.mark.parametrize("sizes", [FIVE, TONES], ids=["five captions", "tones"])
@pytest.mark.parametrize("kind", ["dense", "one image", "sparse"])
def test_false_positives_are_as_many_as_they_should_be_with_groups(kind: str, sizes: npt.NDArray[np.int64]) -> None:
    p_values = [of(*grouped(kind, sizes, 1500, seed)).p_value for seed in range(2)]
    assert 0.04 <= (torch.cat(p_values) <= 0.05).double().mean() <= 0.06
    image, text, _ = grouped(kind, sizes, 1500, 0)
    assert (of(image, text).p_value <= 0.05).double().mean() > 0.1  # as if pairs were independent


def test_sizes_of_groups_make_no_sharedness() -> None:
    """Sides that fire independently: both fire more often in large groups, which had been a score of .25."""
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(len(TONES)), TONES)
    image, text = ((rng.random((len(groups), 1000)) < 0.1).astype(float) for _ in range(2))
    found = of(image, text, groups)
    assert abs(float(found.score.mean())) < 0.01
    assert ((found.low <= 0) & (found.high >= 0)).double().mean() >= 0.93
    torch.testing.assert_close(found.phi, found.score)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, shape: rng.standard_normal(shape),
        lambda rng, shape: np.exp(rng.standard_normal(shape)),
        lambda rng, shape: rng.standard_t(3, shape),
        lambda rng, shape: (rng.random(shape) < 0.1) * rng.gamma(2.0, 0.25, shape),
        lambda rng, shape: (rng.random(shape) < 0.7) * np.exp(rng.standard_normal(shape)),
    ],
    ids=["normal", "log-normal", "t3", "sparse", "often active"],
)
def test_false_positives_are_as_many_as_they_should_be(draw: Callable[..., Array]) -> None:
    rng = np.random.default_rng(5)
    p_value = of(draw(rng, (300, 4000)), draw(rng, (300, 4000))).p_value
    assert 0.04 <= (p_value <= 0.05).double().mean() <= 0.06
    assert 0.005 <= (p_value <= 0.01).double().mean() <= 0.015


def test_heavy_tails_make_no_discoveries() -> None:
    """Values of a t distribution with 3 degrees of freedom; by the Pearson III distribution half of the sets had any."""
    rng, every = np.random.default_rng(0), torch.ones(1000, dtype=torch.bool)
    found = [
        int((of(*(rng.standard_t(3, (300, 1000)) for _ in range(2))).q_value(every) <= 0.05).sum()) for _ in range(15)
    ]
    assert np.count_nonzero(found) <= 3


def test_the_fourth_cumulant_is_that_of_all_re_pairings() -> None:
    rng = np.random.default_rng(2)
    x, y = (rng.standard_t(3, 7) for _ in range(2))
    sums = np.array([x @ y[list(order)] for order in permutations(range(7))])
    deviations = sums - sums.mean()
    expected = (deviations**4).mean() - 3 * (deviations**2).mean() ** 2
    image, text = (torch.from_numpy(side[:, None]) for side in (x, y))
    found = _fourth_cumulant(Moments.of(Units(image, text, image != 0, text != 0, np.ones(7, np.int64))))
    assert found.item() == pytest.approx(expected)


def test_pairs_of_one_group_count_once() -> None:
    """Copies of pairs add nothing: the same score, test and interval as without them."""
    rng = np.random.default_rng(6)
    image, text = sparse(rng, 200, 8, 0.2, 0.3)
    dense = rng.standard_normal((200, 8))
    image, text = np.hstack([image, dense]), np.hstack([text, dense + rng.standard_normal((200, 8))])
    groups = rng.permutation(np.repeat(np.arange(200), 3))
    once, copied = of(image, text), of(image[groups], text[groups], groups)
    for name in ("score", "low", "high", "p_value", "co_firing", "expected"):
        torch.testing.assert_close(getattr(copied, name), getattr(once, name), rtol=1e-6, atol=1e-9)
    assert (copied.num_pairs, copied.num_groups) == (600, 200)
    alone = of(image, text, np.arange(200))
    torch.testing.assert_close(alone.p_value, once.p_value)


def test_groups_of_several_sizes_are_re_paired_within_their_size() -> None:
    """Against shuffles of whole groups among those of the same size."""
    rng = np.random.default_rng(7)
    groups = np.concatenate([np.arange(60), np.repeat(np.arange(60, 90), 2)])
    image, text = sparse(rng, 120, 4, 0.25, 0.2)
    image[60:, :2] = text[60:, :2] = 0  # two features fire on single pairs alone
    found = of(image, text, groups)
    fires = [np.stack([side[groups == g].any(0) for g in range(90)]) for side in (image > 0, text > 0)]
    counts = []
    for _ in range(20_000):
        order = np.concatenate([rng.permutation(60), 60 + rng.permutation(30)])
        counts.append((fires[0] & fires[1][order]).sum(0))
    both = (fires[0] & fires[1]).sum(0)
    np.testing.assert_array_equal(found.co_firing, both)
    np.testing.assert_allclose(found.expected, np.mean(counts, 0), atol=0.05)
    expected = (np.array(counts) > both).mean(0) + (np.array(counts) == both).mean(0) / 2
    np.testing.assert_allclose(found.p_value, expected, atol=0.02)


def test_breaking_the_pairs_takes_sharedness_away_and_leaves_dominance() -> None:
    """Sides that fire unequally often, as those of an SAE's latents do."""
    rng = np.random.default_rng(8)
    image, text = sparse(rng, 4000, 50, 0.2, 0.8)
    image, text = image * (rng.random((4000, 50)) < rng.random(50)), text * (rng.random((4000, 50)) < rng.random(50))
    broken = text[rng.permutation(4000)]
    assert (of(image, text).p_value < 0.01).double().mean() > 0.9
    assert (of(image, broken).p_value < 0.01).double().mean() < 0.1
    before, after = (modality_dominance_score(torch.from_numpy(image), torch.from_numpy(x)) for x in (text, broken))
    assert rank_correlation(before, after) > 0.98


def test_gains_do_not_matter() -> None:
    image, text = sparse(np.random.default_rng(9), 300, 4, 0.7, 0.5)
    once, scaled = of(image, text), of(image * 10, text / 10)
    torch.testing.assert_close(once.score, scaled.score)
    torch.testing.assert_close(once.p_value, scaled.p_value)


def test_what_is_constant_on_a_side_shares_nothing() -> None:
    rng = np.random.default_rng(10)
    values = rng.standard_normal((50, 1))
    silent, always = np.zeros((50, 1)), np.full((50, 1), 0.1)
    rare = (np.arange(50) < 5)[:, None].astype(float)
    image = np.hstack([rare, values, silent, always])
    text = np.hstack([silent, always, silent, always])
    found = of(image, text)
    np.testing.assert_array_equal(found.score, [0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(found.p_value, [1, 1, np.nan, np.nan])
    assert bool(found.low.isnan().all() & found.high.isnan().all())
    live = torch.tensor([True, True, True, False])
    np.testing.assert_array_equal(found.q_value(live), [1, 1, np.nan, np.nan])


def test_q_values_count_live_features_only() -> None:
    image, text = sparse(np.random.default_rng(11), 400, 20, 0.1, 0.1)
    found = of(image, text)
    live = torch.arange(20) < 5
    np.testing.assert_allclose(found.q_value(live)[:5], false_discovery_control(found.p_value[:5].numpy()))
    assert bool(found.q_value(live)[5:].isnan().all())


def test_common_features_are_tested_by_moments() -> None:
    """Above 2,000 firings the Pearson III distribution takes over; the hypergeometric one agrees."""
    image, text = sparse(np.random.default_rng(12), 30_000, 6, 0.08, 0.01)
    found = of(image, text)
    for feature in range(6):
        counts = int((image[:, feature] > 0).sum()), int((text[:, feature] > 0).sum())
        assert min(counts) > 2000
        null, both = hypergeom(30_000, *counts), int(found.co_firing[feature])
        assert norm.isf(found.p_value[feature]) == pytest.approx(norm.isf(null.sf(both) + null.pmf(both) / 2), abs=0.01)


def test_large_means_do_not_spoil_the_sums() -> None:
    rng = np.random.default_rng(13)
    x = rng.standard_normal((2000, 3))
    y = 0.3 * x + rng.standard_normal((2000, 3))
    near, far = of(x, y), of(x + 1000, y - 1000)
    torch.testing.assert_close(far.score, near.score, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(far.low, near.low, rtol=1e-2, atol=1e-2)


def test_stored_rows_and_blocks_of_any_size_give_the_same() -> None:
    rng = np.random.default_rng(14)
    image, text = (torch.from_numpy(rng.standard_normal((700, 4)).astype(np.float32)) for _ in range(2))
    whole = sharedness_scores([(image, text)])
    stored = [
        (StoredRows(i, False, "a test"), StoredRows(t, False, "a test"))
        for i, t in zip(image.split(300), text.split(300), strict=True)
    ]
    torch.testing.assert_close(sharedness_scores(stored).score, whole.score, rtol=1e-12, atol=1e-12)


def test_parts_of_groups_in_any_block_and_stream_come_together() -> None:
    rng = np.random.default_rng(15)
    groups = rng.permutation(np.concatenate([np.arange(50), np.repeat(np.arange(50, 90), rng.integers(2, 9, 40))]))
    groups = np.unique(groups, return_inverse=True)[1]
    image, text = (torch.from_numpy(x) for x in sparse(rng, len(groups), 5, 0.3, 0.3))
    streams = [SharednessStream(groups) for _ in range(3)]
    for block in np.array_split(np.arange(len(groups)), 12):
        rows = torch.from_numpy(block)
        streams[int(rng.integers(3))].add(image[rows], text[rows], groups[block])
    streams[0].merge(streams[1])
    streams[0].merge(streams[2])
    merged, whole = streams[0].result(), sharedness_scores([(image, text)], groups)
    for name in ("score", "low", "high", "p_value", "co_firing", "expected", "correlation", "phi"):
        torch.testing.assert_close(getattr(merged, name), getattr(whole, name), rtol=1e-9, atol=1e-12)
    assert merged.num_groups == whole.num_groups == 90


def test_wrong_blocks_are_refused() -> None:
    rows = torch.ones(4, 2)
    with pytest.raises(ValueError, match="paired blocks"):
        sharedness_scores([(rows, torch.ones(3, 2))])
    with pytest.raises(ValueError, match="no activations to compare"):
        sharedness_scores([])
    with pytest.raises(NonFiniteError, match="values of feature 1 are NaN, first at text 2"):
        sharedness_scores([(rows, torch.tensor([[0, 0], [0, 0], [0, np.nan], [0, 0]]))])
    with pytest.raises(ValueError, match="groups of 3 pairs, but the blocks have 4"):
        sharedness_scores([(rows, rows)], np.array([0, 0, 1]))
    with pytest.raises(ValueError, match="groups of 6 pairs, but the blocks have 4"):
        sharedness_scores([(rows, rows)], np.array([0, 0, 1, 1, 2, 2]))
    with pytest.raises(ValueError, match="codes 0 to 1, not 0 or 7"):
        SharednessStream(np.array([0, 0, 1])).add(rows, rows, np.array([0, 0, 7, 0]))
    with pytest.raises(ValueError, match="cannot be merged"):
        SharednessStream(np.array([0, 0, 1])).merge(SharednessStream(np.array([0, 1, 1, 1])))
