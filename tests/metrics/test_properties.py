"""What holds of every metric whatever the numbers: factors, orders, swaps, and partitions that cover all features."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mmmono.interpretability import embsim, monosemanticity_score, winrate
from mmmono.modality import (
    CLASSES,
    Partition,
    dominance_scores,
    energy_ratio,
    image_auroc,
    modality_gap,
    partition_by_counts,
    partition_by_margin,
    partition_by_null,
    partition_by_sigma,
    resample_dominance,
)
from tests.metrics.inputs import DTYPES, blocks, fits
from tests.metrics.metrics import METRICS

few = settings(max_examples=25, deadline=None)
SHAPE = (12, 4)
numbers = st.floats(-100, 100, width=16).map(lambda v: 0.0 if abs(v) < 0.01 else v)
sides = st.tuples(*[npst.arrays(np.float32, SHAPE, elements=numbers)] * 2).map(
    lambda s: [torch.from_numpy(x) for x in s]
)
scores = npst.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1) | st.just(float("nan")))
CLOSE = dict(rtol=1e-5, atol=1e-6, equal_nan=True)


def assert_close(a: object, b: object) -> None:
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), check_dtype=False, **CLOSE)


@few
@given(pair=sides, exponent=st.integers(-10, 13), name=st.sampled_from([n for n, m in METRICS.items() if m.invariant]))
def test_a_common_factor_changes_nothing(pair: list[torch.Tensor], exponent: int, name: str) -> None:
    """Powers of two, which round nothing."""
    assume(all((side != 0).any(1).all() for side in pair))
    of, factor = METRICS[name].of, 2.0**exponent
    assert_close(of([tuple(side * factor for side in pair)]), of([tuple(pair)]))


@few
@given(pair=sides, order=st.permutations(range(SHAPE[0])), block=st.integers(1, SHAPE[0]))
def test_the_order_of_pairs_and_their_blocks_change_nothing(pair: list, order: list[int], block: int) -> None:
    for of in (
        lambda b: dominance_scores(b).scores,
        lambda b: dominance_scores(b).standard_error,
        energy_ratio,
        lambda b: monosemanticity_score((image, text + 200) for image, text in b),
        lambda b: modality_gap((image + 200, text) for image, text in b).mean_norm_difference,
    ):
        assert_close(of(blocks(block, *(side[order] for side in pair))), of([tuple(pair)]))


@few
@given(pair=sides, order=st.permutations(range(SHAPE[1])))
def test_features_are_scored_each_for_itself(pair: list, order: list[int]) -> None:
    for of in (
        lambda i, t: dominance_scores([(i, t)]).scores,
        lambda i, t: energy_ratio([(i, t)]),
        image_auroc,
        lambda i, t: monosemanticity_score([(i, torch.eye(len(i)) + 0.5)]),
        lambda i, t: resample_dominance([(i, t)], 20, 3, 2, seed=1).p_value,
    ):
        assert_close(of(*(side[:, order] for side in pair)), of(*pair)[order])


@few
@given(pair=sides, undefined=st.sampled_from(["skip", "half"]))
def test_swapping_the_modalities_turns_scores_round(pair: list, undefined: str) -> None:
    there, back = (dominance_scores([tuple(p)], undefined) for p in (pair, pair[::-1]))  # type: ignore[arg-type]
    assert_close(back.scores, 1 - there.scores)
    assert_close(back.standard_error, there.standard_error)
    assert torch.equal(back.image_active, there.text_active)
    assert torch.equal(back.informative_pairs, there.informative_pairs)
    assert_close(energy_ratio([tuple(pair[::-1])]), 1 - energy_ratio([tuple(pair)]))
    assert_close(image_auroc(*pair[::-1]), 1 - image_auroc(*pair))
    assert_close(
        resample_dominance([tuple(pair[::-1])], 30, 2, 1, seed=2).p_value,
        resample_dominance([tuple(pair)], 30, 2, 1, seed=2).p_value,
    )


@few
@given(pair=sides, block=st.integers(1, SHAPE[0]), seed=st.integers(0, 1000))
def test_resamples_depend_on_the_seed_and_not_on_blocks(pair: list, block: int, seed: int) -> None:
    whole = resample_dominance([tuple(pair)], 20, 5, 3, seed)
    parts = resample_dominance(blocks(block, *pair), 20, 5, 3, seed)
    assert torch.equal(whole.p_value.nan_to_num(2), parts.p_value.nan_to_num(2))
    for name in ("bootstrap", "halves"):
        assert_close(getattr(parts, name), getattr(whole, name))
    known = ~whole.p_value.isnan()
    assert ((whole.p_value[known] > 0) & (whole.q_value[known] >= whole.p_value[known])).all()


@few
@given(pair=sides, name=st.sampled_from(list(METRICS)), exponent=st.integers(-3, 3))
def test_types_agree_on_numbers_that_all_of_them_hold(pair: list, name: str, exponent: int) -> None:
    assume(all((side != 0).any(1).all() for side in pair))
    rounded = [(side * 10.0**exponent).bfloat16() for side in pair]
    assume(all(side.half().isfinite().all() and bool((side.half() == side).all()) for side in rounded))
    expected = METRICS[name].of([tuple(side.double() for side in rounded)])
    for dtype in DTYPES:
        if fits(10.0**exponent, dtype):
            assert_close(METRICS[name].of([tuple(side.to(dtype) for side in rounded)]), expected)


def covers(partition: Partition, values: np.ndarray) -> None:
    members = torch.cat([partition[name] for name in CLASSES])
    assert sorted(members.tolist()) == list(range(len(values)))
    assert all(torch.equal(partition[name], partition[name].sort().values) for name in CLASSES)
    assert partition.dead.tolist() == np.flatnonzero(np.isnan(values)).tolist()


@few
@given(values=scores, n_sigma=st.floats(0, 3), margin=st.floats(0, 0.49), data=st.data())
def test_partitions_cover_all_features_and_are_disjoint(
    values: np.ndarray, n_sigma: float, margin: float, data: st.DataObject
) -> None:
    tensor, live = torch.from_numpy(values), int((~np.isnan(values)).sum())
    image = data.draw(st.integers(0, live))
    text = data.draw(st.integers(0, live - image))
    counted = partition_by_counts(tensor, image, text)
    assert (len(counted.image_dominant), len(counted.text_dominant)) == (image, text)
    if image and text:
        assert tensor[counted.image_dominant].min() >= tensor[counted.text_dominant].max()
    for partition in (
        counted,
        partition_by_sigma(tensor, n_sigma),
        partition_by_margin(tensor, margin),
        partition_by_null(tensor, torch.from_numpy(np.abs(np.sin(np.arange(len(values)) * 7)))),
    ):
        covers(partition, values)


@few
@given(values=scores, n_sigma=st.floats(0, 3), margin=st.floats(0, 0.49))
def test_swapping_the_modalities_swaps_the_classes(values: np.ndarray, n_sigma: float, margin: float) -> None:
    there, back = torch.from_numpy(values), torch.from_numpy(1 - values)
    mean, sigma = np.nanmean(np.append(values, 0.5)), 0.0
    if (~np.isnan(values)).any():
        mean, sigma = np.nanmean(values), np.nanstd(values)
    # Not where rounding of 1 − R decides on which side of a border a score lies.
    distances = [np.abs(np.abs(values - mean) - n_sigma * sigma), np.abs(np.abs(values - 0.5) - margin)]
    assume(not any(((d > 1e-15) & (d < 1e-11)).any() for d in distances))
    for rule in (lambda s: partition_by_sigma(s, n_sigma), lambda s: partition_by_margin(s, margin)):
        assert torch.equal(rule(there).image_dominant, rule(back).text_dominant)
        assert torch.equal(rule(there).cross_modal, rule(back).cross_modal)


@few
@given(seed=st.integers(0, 10_000), m=st.integers(2, 8), dim=st.integers(2, 12), dtype=st.sampled_from(DTYPES))
def test_eq_5_turns_with_its_sides_and_not_with_its_axes(seed: int, m: int, dim: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    active, random = (
        torch.nn.functional.normalize(torch.randn(3, m, dim, generator=generator), dim=2).to(dtype) for _ in "ab"
    )
    order = torch.randperm(m, generator=generator)
    axes = torch.randperm(dim, generator=generator)
    for score in (embsim, winrate):
        assert_close(score(active[:, order], random[:, order]), score(active, random))
        assert_close(score(active[..., axes], random[..., axes]), score(active, random))
    assert ((winrate(active, random) >= 0) & (winrate(active, random) <= 1)).all()
    assert (winrate(active, random) + winrate(random, active) <= 1 + 1e-12).all()


@pytest.mark.parametrize("name", ["R(d)", "ratio of energies", "AUROC"])
@few
@given(pair=sides)
def test_scores_lie_between_0_and_1(pair: list, name: str) -> None:
    score = torch.as_tensor(METRICS[name].of([tuple(pair)]))
    known = score[~score.isnan()]
    assert ((known >= 0) & (known <= 1)).all()
