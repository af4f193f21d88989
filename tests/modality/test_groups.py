"""Errors, tests and resamples by group of pairs, against numpy, repeated data and simulations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmono.core.errors import NonFiniteError, StoreError
from mmmono.features import StoredRows
from mmmono.features.rows import Origin
from mmmono.modality import (
    CorrelationStream,
    DominanceScores,
    DominanceStream,
    EnergyStream,
    GapStream,
    SharednessStream,
    dominance_scores,
    group_sizes,
    image_auroc,
    modality_dominance_score,
    partition_by_sigma,
    resample_dominance,
    scaled_scores,
    sharedness_scores,
)
from mmmono.modality.groups import OpenGroups

Pair = tuple[torch.Tensor, torch.Tensor]


def sparse(pairs: int, features: int, seed: int = 0, density: float = 0.4) -> Pair:
    rng = np.random.default_rng(seed)
    return tuple(
        torch.from_numpy(rng.gamma(2, size=(pairs, features)) * (rng.random((pairs, features)) < density))
        for _ in range(2)
    )  # type: ignore[return-value]


def scattered(pairs: int, groups: int, seed: int = 0) -> np.ndarray:
    """Codes of groups whose pairs lie anywhere; about half of them have one pair."""
    return np.unique(np.random.default_rng(seed).integers(0, groups, pairs), return_inverse=True)[1]


def cut(pair: Pair, *places: int) -> list[Pair]:
    bounds = [0, *places, len(pair[0])]
    return [(pair[0][a:b], pair[1][a:b]) for a, b in pairwise(bounds)]


def assert_equal(got: DominanceScores, expected: DominanceScores, rtol: float = 0) -> None:
    for field in fields(DominanceScores):
        mine, theirs = (np.asarray(getattr(s, field.name), float) for s in (got, expected))
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol, err_msg=field.name)


@pytest.mark.parametrize("undefined", ["skip", "half"])
@pytest.mark.parametrize("stored", [False, True])
def test_errors_are_numpys(undefined: str, stored: bool) -> None:
    """Scores do not depend on groups; cluster-robust errors are one line of numpy each."""
    image, text = sparse(300, 6)
    codes = scattered(300, 200)
    blocks = cut((image.float(), text.float()), 70, 170)
    if stored:
        blocks = [tuple(StoredRows(side, False, "a test") for side in block) for block in blocks]  # type: ignore[misc]
    got = dominance_scores(blocks, undefined, codes)  # type: ignore[arg-type]
    alone = dominance_scores(blocks, undefined)  # type: ignore[arg-type]
    np.testing.assert_allclose(got.scores, alone.scores, atol=1e-7)
    assert torch.equal(got.image_active, alone.image_active)
    assert (got.num_pairs, got.num_groups, alone.num_groups) == (300, len(np.unique(codes)), 300)
    for d in range(6):
        a, b = image[:, d].numpy(), text[:, d].numpy()
        counted = (a + b > 0) | (undefined == "half")
        r, g = np.where(a + b > 0, a / np.maximum(a + b, 1e-300), 0.5)[counted], codes[counted]
        groups, n = len(np.unique(g)), len(r)
        squared = groups / (groups - 1) * (np.bincount(g, r - r.mean()) ** 2).sum() / n**2
        assert got.standard_error[d].item() == pytest.approx(np.sqrt(squared), rel=1e-5)
        assert got.null_error[d].item() == pytest.approx(np.sqrt((np.bincount(g, r - 0.5) ** 2).sum()) / n, rel=1e-5)
        assert got.design_effect[d].item() == pytest.approx(squared / (r.var(ddof=1) / n), rel=1e-5)
        assert got.effective_groups[d].item() == pytest.approx(n**2 / (np.bincount(g) ** 2).sum())
        assert got.informative_groups[d].item() == len(np.unique(codes[a + b > 0]))
        assert got.informative_pairs[d].item() == (a + b > 0).sum()


@pytest.mark.parametrize("stored", [False, True])
def test_groups_of_one_pair_change_nothing(stored: bool) -> None:
    image, text = (side.float() for side in sparse(700, 9))
    blocks = [
        tuple(StoredRows(side, False, "a test") if stored else side for side in block)
        for block in cut((image, text), 300)
    ]
    assert_equal(dominance_scores(blocks, groups=np.arange(700)), dominance_scores(blocks))  # type: ignore[arg-type]
    alone = resample_dominance([(image, text)], 200, 20, 3)
    grouped = resample_dominance([(image, text)], 200, 20, 3, groups=range(700))
    for name in ("p_value", "bootstrap", "halves", "permuted"):
        assert torch.equal(getattr(grouped, name).nan_to_num(9), getattr(alone, name).nan_to_num(9)), name


@pytest.mark.parametrize("times", [2, 5])
@pytest.mark.parametrize("apart", [False, True])
def test_repeated_pairs_say_what_one_says(times: int, apart: bool) -> None:
    """Each pair several times, side by side or the whole data again, is one pair a group: p, q, errors and classes."""
    image, text = sparse(500, 40)
    image[:, :6] *= 3
    codes = np.arange(500)
    again: Callable = (lambda x: torch.cat([x] * times)) if apart else (lambda x: x.repeat_interleave(times, 0))
    many, groups = (again(image), again(text)), again(torch.from_numpy(codes))
    one, got = dominance_scores([(image, text)]), dominance_scores(cut(many, 333), groups=groups)
    for name in ("scores", "standard_error", "null_error", "effective_groups", "informative_groups"):
        np.testing.assert_allclose(getattr(got, name), getattr(one, name), rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(got.design_effect, times, rtol=0.01)
    live = one.informative_groups >= 10
    assert partition_by_sigma(got.scores, live=live).class_of() == partition_by_sigma(one.scores, live=live).class_of()
    alone = resample_dominance([(image, text)], 500, 50, 3)
    resampled = resample_dominance(cut(many, 333), 500, 50, 3, groups=groups)
    for name in ("p_value", "q_value", "bootstrap", "halves", "permuted"):
        np.testing.assert_allclose(getattr(resampled, name), getattr(alone, name), rtol=1e-9, err_msg=name)


@settings(max_examples=30)
@given(
    places=st.lists(st.integers(0, 120), max_size=4),
    seed=st.integers(0, 5),
    undefined=st.sampled_from(["skip", "half"]),
)
def test_parts_that_share_groups_are_merged(places: list[int], seed: int, undefined: str) -> None:
    pair, codes = sparse(120, 3, seed), scattered(120, 60, seed)
    expected = dominance_scores([pair], undefined, codes)  # type: ignore[arg-type]
    for sizes in (group_sizes(codes), None):
        streams, start = [], 0
        for image, text in cut(pair, *sorted(places)):
            streams.append(DominanceStream(undefined, sizes))  # type: ignore[arg-type]
            streams[-1].add(image, text, codes[start : start + len(image)])
            start += len(image)
        first, *others = streams
        for other in others:
            first.merge(other)
        assert_equal(first.result(), expected, rtol=1e-9)


def test_resamples_do_not_depend_on_blocks() -> None:
    pair, codes = sparse(1500, 5), scattered(1500, 900)
    whole = resample_dominance([pair], 100, 20, 3, seed=1, groups=codes)
    parts = resample_dominance(cut(pair, 7, 600, 601, 1200), 100, 20, 3, seed=1, groups=codes)
    assert torch.equal(whole.p_value, parts.p_value)
    for name in ("bootstrap", "halves", "permuted"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name), rtol=1e-12)


def test_halves_keep_groups_whole() -> None:
    """Where the pairs of a group agree and groups do not, halves of groups have nothing in common."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(40), 10)
    image = torch.from_numpy(rng.gamma(2, size=(40, 300)))[codes]
    text = torch.from_numpy(rng.gamma(2, size=(40, 300)))[codes]

    def between(groups: np.ndarray | None) -> float:
        first, second = resample_dominance([(image, text)], 1, 1, 5, groups=groups).halves
        return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)]))

    assert between(None) > 0.7
    assert abs(between(codes)) < 0.15


# Emoji with skin tones: most drawings are one emoji; some have six variants, some many (OpenMoji's validation split).
TONES = np.repeat(np.arange(393), np.r_[np.full(329, 1), np.full(40, 6), np.full(20, 8), np.full(4, 15)])
CAPTIONS = np.repeat(np.arange(160), 5)


@pytest.mark.parametrize(("codes", "correlation"), [(TONES, 0.5), (TONES, 0.9), (CAPTIONS, 0.5), (CAPTIONS, 0.9)])
def test_by_group_tests_hold_their_level_and_intervals_cover(codes: np.ndarray, correlation: float) -> None:
    """And by pair they do not. 2,000 features without preference; pairs of a group are correlated."""
    rng, features = np.random.default_rng(7), 2000
    shared, own = np.sqrt(correlation), np.sqrt(1 - correlation)
    sides = [
        shared * rng.standard_normal((codes.max() + 1, features))[codes]
        + own * rng.standard_normal((len(codes), features))
        for _ in range(2)
    ]
    pair: Pair = tuple(torch.from_numpy(np.exp(side / 2)) for side in sides)  # type: ignore[assignment]
    by_group = resample_dominance([pair], 400, 1, 1, groups=codes)
    by_pair = resample_dominance([pair], 400, 1, 1)
    assert 0.04 <= (by_group.p_value <= 0.05).double().mean() <= 0.06
    assert (by_pair.p_value <= 0.05).double().mean() > 0.15

    def covered(scores: DominanceScores) -> float:
        return float(((scores.scores - 0.5).abs() <= 1.96 * scores.standard_error).double().mean())

    assert 0.93 <= covered(dominance_scores([pair], groups=codes)) <= 0.97
    assert covered(dominance_scores([pair])) < 0.85


def test_the_bootstrap_by_group_covers() -> None:
    rng, features = np.random.default_rng(3), 800
    sides = [
        rng.standard_normal((160, features))[CAPTIONS] + 0.3 * rng.standard_normal((800, features)) for _ in range(2)
    ]
    pair: Pair = tuple(torch.from_numpy(np.exp(side / 2)) for side in sides)  # type: ignore[assignment]
    low, high = resample_dominance([pair], 1, 300, 1, groups=CAPTIONS).interval()
    assert 0.925 <= ((low <= 0.5) & (high >= 0.5)).double().mean() <= 0.97


def test_a_lone_feature_among_thousands_can_be_significant() -> None:
    """200 pairs out of 200: 10,000 permutations alone could not tell it from 8,191 others, the normal tail can."""
    rng = np.random.default_rng(0)
    image, text = (torch.from_numpy((rng.random((200, 1000)) < 0.5).astype(float)) for _ in range(2))
    image[:, 0], text[:, 0] = 1, 0.2
    resamples = resample_dominance([(image, text)], 300, 1, 1)
    assert resamples.p_value[0] < 1e-12
    assert resamples.q_value[0] < 1e-8
    few = resample_dominance([(image[:12], text[:12])], 300, 1, 1)  # 12 signs allow no p-value below 2 · 2⁻¹²
    assert 2 * 2.0**-12 <= few.p_value[0] <= 1 / 301


def test_the_normal_tail_does_not_trust_a_few_large_groups() -> None:
    """Ten groups of 100 pairs, all won by the image, and 300 pairs that say nothing: exactly 2 · 2⁻¹⁰, not 2 · Φ(−10)."""
    rng = np.random.default_rng(0)
    ratio = np.r_[np.ones(1000), rng.normal(0.5, 1e-6, 300)][:, None]
    pair = torch.from_numpy(ratio), torch.from_numpy(1 - ratio)
    groups = np.r_[np.repeat(np.arange(10), 100), np.arange(10, 310)]
    p = [resample_dominance([pair], 100, 1, 1, seed, groups).p_value.item() for seed in range(20)]
    assert min(p) >= 0.9 * 2.0**-9


def test_q_values_are_of_live_features() -> None:
    image, text = sparse(200, 50)
    resamples = resample_dominance([(image, text)], 200, 1, 1)
    live = torch.arange(50) < 10
    np.testing.assert_allclose(
        resamples.q_values(live)[:10], resample_dominance([(image[:, :10], text[:, :10])], 200, 1, 1).q_value
    )
    assert resamples.q_values(live)[10:].isnan().all()


def test_the_null_spread_is_that_of_data_without_preference() -> None:
    """σ of new data of which the null is true, from data of which it is not."""
    rng, features = np.random.default_rng(0), 400

    def drawn(factor: np.ndarray) -> Pair:
        a, b = (rng.gamma(2, size=(100, features))[np.repeat(np.arange(100), 4)] for _ in range(2))
        return torch.from_numpy(a * factor), torch.from_numpy(b)

    codes, live = np.repeat(np.arange(100), 4), torch.ones(features, dtype=torch.bool)
    null = modality_dominance_score(*drawn(np.ones(features))).std(correction=0).item()
    leaning = drawn(np.exp(rng.normal(0, 0.3, features)))
    assert resample_dominance([leaning], 300, 1, 1, groups=codes).null_std(live) == pytest.approx(null, rel=0.15)
    assert dominance_scores([leaning], groups=codes).null_error.square().mean().sqrt() == pytest.approx(null, rel=0.15)
    assert modality_dominance_score(*leaning).std() > 1.5 * null


def test_only_open_groups_stay_in_memory() -> None:
    codes = np.repeat(np.arange(1000), 3)
    groups, most = OpenGroups(group_sizes(codes)), 0
    for start in range(0, 3000, 64):
        groups.add(codes[start : start + 64], torch.ones(len(codes[start : start + 64]), 2).double())
        most = max(most, len(groups))
    assert most == 1
    assert len(groups) == 0


def test_what_does_not_fit_is_refused() -> None:
    image, text = sparse(10, 2)
    with pytest.raises(ValueError, match="groups of 8 pairs, but the blocks have 10"):
        resample_dominance([(image, text)], 5, 1, 1, groups=np.arange(8))
    with pytest.raises(ValueError, match="groups of 12 pairs, but the blocks have 10"):
        dominance_scores([(image, text)], groups=np.arange(12))
    with pytest.raises(ValueError, match="groups of 8 pairs, but the blocks have 10"):
        dominance_scores([(image, text)], groups=np.arange(8))
    with pytest.raises(ValueError, match="8 groups given for a block of 10 pairs"):
        DominanceStream().add(image, text, np.arange(8))
    with pytest.raises(ValueError, match=r"one whole number from 0 on.*lowest -1"):
        dominance_scores([(image, text)], groups=np.arange(10) - 1)
    with pytest.raises(ValueError, match="group 1 has 3 pairs so far, more than the 2"):
        OpenGroups(np.array([2, 2])).add(np.array([1, 1, 1]), torch.ones(3, 1).double())
    with pytest.raises(ValueError, match="group 7 is not among the 2"):
        DominanceStream(group_sizes=np.array([1, 9])).add(image[:1], text[:1], [7])
    one, two = DominanceStream(group_sizes=np.array([2])), DominanceStream(group_sizes=np.array([3]))
    with pytest.raises(ValueError, match="different group_sizes"):
        one.merge(two)


def walk(stream: object) -> Callable[[torch.Tensor, torch.Tensor], object]:
    return lambda image, text: stream.add(image, text)  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "path",
    [
        lambda i, t: dominance_scores([(i, t)]),
        lambda i, t: dominance_scores([(i, t)], groups=[0, 1, 1, 2]),
        lambda i, t: dominance_scores([(i, t)], groups=[0, 0, 0, 0]),
        lambda i, t: resample_dominance([(i, t)], 5, 1, 1),
        lambda i, t: resample_dominance([(i, t)], 5, 1, 1, groups=[0, 1, 1, 2]),
        lambda i, t: walk(EnergyStream())(i, t),
        lambda i, t: walk(GapStream())(i, t),
        lambda i, t: walk(CorrelationStream())(i, t),
        image_auroc,
    ],
)
def test_no_path_takes_a_value_that_is_not_finite(path: Callable, value: float) -> None:
    for side in (0, 1):
        pair = [torch.rand(4, 3), torch.rand(4, 3)]
        pair[side][2, 1] = value
        with pytest.raises(NonFiniteError, match="feature 1|column 1|dimension 1"):
            path(*pair)


def test_a_broken_stored_row_is_named_by_its_place() -> None:
    rows = torch.rand(6, 3)
    rows[4, 1] = float("nan")
    origin = Origin("a store", "image", 10)
    block = StoredRows(rows, False, origin), StoredRows(torch.rand(6, 3), False, origin)
    for codes in ([0, 0, 0, 1, 2, 3], [3, 2, 1, 0, 0, 0]):
        with pytest.raises(StoreError, match="first row 14, dimension 1"):
            dominance_scores([block], groups=codes)


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_ids_of_a_table_are_groups_as_they_are(kind: type) -> None:
    ids = np.array([10**12, 10**12, 5, 7, 10**12 + 3, 7, 8, 9], dtype=kind)
    if kind is np.uint64:
        ids[:2] = 2**64 - 1  # a hash
    numbers = np.unique(ids, return_inverse=True)[1]
    image, text = sparse(8, 4)

    def blocks() -> list[Pair]:
        return [(image[:5], text[:5]), (image[5:], text[5:])]

    for compute in (
        lambda groups: dominance_scores(blocks(), groups=groups),
        lambda groups: resample_dominance(blocks(), 20, 20, 2, groups=groups),
        lambda groups: sharedness_scores(blocks(), groups),
        lambda groups: scaled_scores(blocks(), groups=groups)[0.8],
    ):
        of_ids, of_numbers = compute(ids), compute(numbers)
        for field in fields(of_ids):
            np.testing.assert_array_equal(getattr(of_ids, field.name), getattr(of_numbers, field.name))


def test_sizes_by_ids_are_refused_before_memory_is() -> None:
    ids = np.array([10**12, 10**12, 5])
    for call in (lambda: group_sizes(ids), lambda: SharednessStream(ids)):
        with pytest.raises(ValueError, match="group 1000000000000 is more than .*pandas.factorize"):
            call()
    with pytest.raises(ValueError, match=r"group 18446744073709551615 is no 64-bit number.*pandas\.factorize"):
        group_sizes(np.array([2**64 - 1], dtype=np.uint64))
