import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mmmono.modality import CLASSES, Partition, partition_by_counts, partition_by_margin, partition_by_sigma

scores = npst.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1) | st.just(float("nan")))


@settings(max_examples=100, deadline=None)
@given(values=scores, n_sigma=st.floats(0, 3))
def test_sigma_rule_is_the_papers(values: np.ndarray, n_sigma: float) -> None:
    partition = partition_by_sigma(torch.from_numpy(values), n_sigma)
    live = ~np.isnan(values)
    mean, sigma = (values[live].mean(), values[live].std()) if live.any() else (0.0, 0.0)
    near = np.abs(np.abs(values - mean) - n_sigma * sigma) < 1e-9  # rounding decides on the border
    by_class = partition.class_of()
    for index in np.flatnonzero(~near):
        if not live[index]:
            expected = "dead"
        elif values[index] > mean + n_sigma * sigma:
            expected = "ImgD"
        else:
            expected = "TextD" if values[index] < mean - n_sigma * sigma else "CrossD"
        assert by_class[index] == expected
    assert sorted(torch.cat([partition[name] for name in CLASSES]).tolist()) == list(range(len(values)))


def test_the_border_is_cross_modal() -> None:
    values = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)  # μ = σ = 0.5, all on the border
    assert len(partition_by_sigma(values).cross_modal) == 4


def test_swapping_modalities_swaps_the_classes() -> None:
    values = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there, back = partition_by_sigma(values), partition_by_sigma(1 - values)
    assert torch.equal(there.image_dominant, back.text_dominant)
    assert torch.equal(there.text_dominant, back.image_dominant)


def test_features_that_are_not_live_do_not_move_the_borders() -> None:
    values = torch.tensor([0.1, 0.5, 0.5, 0.5, 0.9, 0.999, 0.999])
    live = torch.tensor([True] * 5 + [False] * 2)
    partition = partition_by_sigma(values, live=live)
    assert partition.dead.tolist() == [5, 6]
    assert partition.image_dominant.tolist() == [4]
    assert partition.text_dominant.tolist() == [0]


def test_counts_take_the_extremes() -> None:
    values = torch.tensor([0.3, float("nan"), 0.9, 0.1, 0.8, 0.5])
    partition = partition_by_counts(values, image_dominant=2, text_dominant=1)
    assert partition.image_dominant.tolist() == [2, 4]
    assert partition.text_dominant.tolist() == [3]
    assert partition.cross_modal.tolist() == [0, 5]
    assert partition.dead.tolist() == [1]
    with pytest.raises(ValueError, match="only 5 are live"):
        partition_by_counts(values, 4, 2)
    assert partition_by_counts(values, 0, 0).cross_modal.tolist() == [0, 2, 3, 4, 5]


def test_all_dead_gives_empty_classes() -> None:
    partition = partition_by_sigma(torch.full((4,), torch.nan))
    assert len(partition.dead) == len(partition) == 4


def test_classes_must_be_disjoint_and_cover() -> None:
    def index(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64)

    with pytest.raises(ValueError, match="disjoint"):
        Partition(index(0, 1), index(1), index(2), index())
    with pytest.raises(ValueError, match="disjoint"):
        Partition(index(0), index(2), index(), index())


def test_negative_n_sigma_is_refused() -> None:
    with pytest.raises(ValueError, match="n_sigma"):
        partition_by_sigma(torch.rand(4), -1)


@settings(max_examples=50, deadline=None)
@given(values=scores, margin=st.floats(0, 0.49))
def test_margin_does_not_look_at_other_features(values: np.ndarray, margin: float) -> None:
    assume(not (abs(abs(values - 0.5) - margin) < 1e-9).any())  # of which rounding decides
    partition = partition_by_margin(torch.from_numpy(values), margin)
    assert partition.image_dominant.tolist() == np.flatnonzero(values > 0.5 + margin).tolist()
    assert partition.text_dominant.tolist() == np.flatnonzero(values < 0.5 - margin).tolist()
    assert partition.dead.tolist() == np.flatnonzero(np.isnan(values)).tolist()


def test_impossible_margin() -> None:
    with pytest.raises(ValueError, match=r"margin=0.5 must lie in \[0, 0.5\)"):
        partition_by_margin(torch.zeros(2), 0.5)


@settings(deadline=None)
@given(
    npst.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1, allow_subnormal=False)),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_unreachable_is_a_class_whose_border_no_score_can_be_beyond(values: np.ndarray, n_sigma: float) -> None:
    scores = torch.from_numpy(values)
    for partition in (partition_by_sigma(scores, n_sigma), partition_by_margin(scores, 0.3)):
        extremes = {"ImgD": partition.high < 1 - 1e-12, "TextD": partition.low > 1e-12}
        assert set(partition.unreachable) == {of for of, possible in extremes.items() if not possible}
        assert all(len(partition[of]) == 0 for of in partition.unreachable)


def test_counts_that_ask_for_none_are_not_unreachable() -> None:
    assert partition_by_counts(torch.tensor([0.1, 0.9]), 0, 0).unreachable == ()
    assert partition_by_sigma(torch.tensor([torch.nan])).unreachable == ()
