"""Top samples in one pass, against a full sort."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmmono.features import StoredRows
from mmmono.interpretability import top_samples


def by_sorting(a: np.ndarray, m: int) -> list[list[int]]:
    """Rows of the m largest positive activations of each column; of equal ones the earlier first."""
    order = np.argsort(-a, axis=0, kind="stable")
    return [[int(row) for row in order[:m, d] if a[row, d] > 0] for d in range(a.shape[1])]


@pytest.mark.slow
@given(
    arrays(np.float32, st.tuples(st.integers(1, 60), st.integers(1, 6)), elements=st.integers(-2, 6)),
    st.integers(1, 8),
    st.integers(1, 25),
)
@settings(max_examples=150, deadline=None)
def test_one_pass_equals_a_stable_sort(a: np.ndarray, m: int, block: int) -> None:
    """Small integers make ties; zeros and negatives make features with too few positive samples."""
    blocks = torch.from_numpy(a).split(block)
    top = top_samples(blocks, m)
    stored = [StoredRows(values.half(), False, "a test") for values in blocks]
    mixed = [of_both[i % 2] for i, of_both in enumerate(zip(blocks, stored, strict=True))]
    for other in (top_samples(stored, m), top_samples(mixed, m)):
        assert torch.equal(other.rows, top.rows)
        assert torch.equal(other.values, top.values)
    expected = by_sorting(a, m)
    for d, rows in enumerate(expected):
        found = top.rows[d].tolist()
        assert found[: len(rows)] == rows
        assert all(row == -1 for row in found[len(rows) :])
        np.testing.assert_array_equal(top.values[d, : len(rows)], a[rows, d])
        assert bool((top.values[d, len(rows) :] == 0).all())
    assert top.found.tolist() == [len(rows) for rows in expected]


def test_memory_does_not_grow_with_the_stream() -> None:
    """Rising activations replace the best at every block: the worst case keeps m places all the same."""
    blocks = (torch.arange(i * 100, (i + 1) * 100).float()[:, None].expand(-1, 3) for i in range(50))
    top = top_samples(blocks, 4)
    assert top.rows.tolist() == [[4999, 4998, 4997, 4996]] * 3


@pytest.mark.parametrize("normalize", [False, True])
def test_stored_rows_of_many_features_equal_a_full_sort(normalize: bool) -> None:
    """More features than are looked at together, and not a multiple of them."""
    a = np.random.default_rng(0).standard_normal((900, 300)).astype(np.float16)
    top = top_samples(
        [StoredRows(torch.from_numpy(a[i : i + 256]), normalize, "a test") for i in range(0, 900, 256)], 20
    )
    exact = a.astype(np.float64)
    assert top.rows.tolist() == by_sorting(
        exact / np.linalg.norm(exact, axis=1, keepdims=True) if normalize else exact, 20
    )


def test_distinct_contents() -> None:
    a = torch.tensor([[9.0], [8], [7], [6], [5]])
    top = top_samples([a], 5)
    once = top.distinct(3, ["cat", "cat", "dog", "cat", "eel"])
    assert once.rows.tolist() == [[0, 2, 4]]
    assert once.values.tolist() == [[9, 7, 5]]
    both = top.distinct(5, ["cat", "cat", "dog", "cat", "eel"], [1, 2, 1, 3, 4])
    assert both.rows.tolist() == [[0, 4, -1, -1, -1]]
    assert both.found.tolist() == [2]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="m=0"):
        top_samples([torch.ones(2, 2)], 0)
    with pytest.raises(ValueError, match="no activations"):
        top_samples([], 1)
    with pytest.raises(ValueError, match="feature 0 are NaN"):
        top_samples([torch.ones(2, 1), torch.tensor([[1.0], [float("nan")]])], 1)
