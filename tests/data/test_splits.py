from hypothesis import given
from hypothesis import strategies as st

from mmmono.data import in_train_split


@given(group=st.text(), seed=st.integers(0, 99))
def test_depends_on_group_and_seed_alone_and_grows_with_the_fraction(group: str, seed: int) -> None:
    assert in_train_split(group, seed) == in_train_split(group, seed)
    assert in_train_split(group, seed, 1.0)
    assert not in_train_split(group, seed, 0.0)
    if in_train_split(group, seed, 0.3):
        assert in_train_split(group, seed, 0.7)


def test_share_is_the_fraction() -> None:
    for fraction in (0.5, 0.8):
        share = sum(in_train_split(str(i), 0, fraction) for i in range(5000)) / 5000
        assert abs(share - fraction) < 0.03
    assert any(in_train_split(str(i), 0) != in_train_split(str(i), 1) for i in range(100))
