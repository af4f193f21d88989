"""The compiled search for the k largest entries of each row, against numpy's sort."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")

from mmmono.core.largest import largest

Array = np.ndarray[Any, Any]
KINDS = ("normal", "rounded", "equal", "negative", "sparse", "huge", "tiny", "special")


def drawn(kind: str, rows: int, columns: int, rng: np.random.Generator) -> Array:
    """Rows of one kind of number: with ties, zeros of both signs, overflow, subnormal numbers, NaN and infinity."""
    normal = rng.standard_normal((rows, columns))
    x = {
        "normal": normal,
        "rounded": normal.round(),
        "equal": np.full_like(normal, 0.1),
        "negative": -np.abs(normal),
        "sparse": normal * (rng.random(normal.shape) < 0.05),  # and −0
        "huge": np.exp(60 * normal),
        "tiny": normal * 1e-42,
        "special": rng.choice([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], normal.shape),
    }[kind]
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, np.float32)


@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(0, 4),
    columns=st.sampled_from([1, 2, 3, 31, 32, 33, 64, 100, 511, 512, 1000, 4096]),
    share=st.floats(0, 1),
    seed=st.integers(0, 9999),
)
def test_finds_what_a_stable_sort_puts_first(kind: str, rows: int, columns: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, k = drawn(kind, rows, columns, rng), 1 + int(share**3 * (columns - 1))
    values, indices = np.full((rows, k), 7, np.float32), np.full((rows, k), -1)
    largest(x, k, values, indices)
    descending = np.where(np.isnan(x), -np.inf, -x.astype(np.float64))
    order = np.lexsort((~np.isnan(x), descending))  # NaN before infinity; of equal ones the first
    np.testing.assert_array_equal(indices, np.sort(order[:, :k], axis=1))
    np.testing.assert_array_equal(values, np.take_along_axis(x, indices, 1))
