import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmono.data import SplitShares


@given(group=st.text(), seed=st.integers(0, 99), train=st.floats(0, 0.9))
def test_depends_on_group_and_seed_alone_and_grows_with_the_fraction(group: str, seed: int, train: float) -> None:
    assert SplitShares(seed).split_of(group) == SplitShares(seed).split_of(group)
    assert SplitShares(seed, 1.0, 0.0).split_of(group) == "train"
    assert SplitShares(seed, 0.0, 0.0).split_of(group) == "val"
    if SplitShares(seed, train, 0.1).split_of(group) == "train":
        assert SplitShares(seed, min(1.0, train + 0.1), 0.0).split_of(group) == "train"


@given(group=st.text(), seed=st.integers(0, 99))
def test_the_split_val_depends_on_the_sum_of_the_other_shares_alone(group: str, seed: int) -> None:
    one, other = SplitShares(seed, 0.5, 0.25), SplitShares(seed, 0.75, 0.0)
    assert (one.split_of(group) == "val") == (other.split_of(group) == "val")


@pytest.mark.parametrize("shares", [SplitShares(), SplitShares(3, 0.5, 0.2), SplitShares(1, 0.8, 0.0)])
def test_shares_are_the_fractions(shares: SplitShares) -> None:
    splits = np.array([shares.split_of(str(i)) for i in range(5000)])
    for name, share in (("train", shares.train), ("select", shares.select), ("val", 1 - shares.train - shares.select)):
        assert abs((splits == name).mean() - share) < 0.03


@pytest.mark.parametrize("select", [0.1, 0.3, 1 / 3])
def test_shares_of_more_than_all_groups_are_refused(select: float) -> None:
    assert SplitShares(0, 1 - select, select).select == select
    with pytest.raises(ValueError, match="together more than 1"):
        SplitShares(0, 1 - select + 0.01, select)


def test_another_seed_gives_other_splits() -> None:
    assert any(SplitShares(0).split_of(str(i)) != SplitShares(1).split_of(str(i)) for i in range(100))


@pytest.mark.parametrize("groups", [2, 3, 15, 60, 1000, 5000])
@pytest.mark.parametrize("shares", [SplitShares(0, 0.995, 0.005), SplitShares(1, 0.98, 0.02), SplitShares(2, 0.7, 0.1)])
def test_few_groups_leave_something_to_select_by(groups: int, shares: SplitShares) -> None:
    names = [f"image {i}" for i in range(groups)]
    adapted = shares.with_groups([shares.place(name) for name in names])
    before, after = ([of.split_of(name) for name in names] for of in (shares, adapted))
    enough = max(1, min(200, groups // 10))
    assert after.count("select") >= min(before.count("select"), enough)
    if before.count("val") < groups - 1:
        assert 2 * after.count("select") >= enough
        assert after.count("train") >= 1
    assert [split == "val" for split in after] == [split == "val" for split in before]
    if 2 * before.count("select") >= enough:
        assert after == before


def test_no_share_selects_nothing() -> None:
    shares = SplitShares(0, 0.8, 0.0)
    assert shares.with_groups([shares.place(str(i)) for i in range(50)]) == shares
