"""Compiled passes over stored rows, against numpy."""

import numpy as np
import pytest

from mmmono.core import kernels


def test_every_half_precision_number_is_read_as_numpy_reads_it() -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16)
    finite = numbers[np.isfinite(numbers.view(np.float16))]
    values, places = np.zeros((len(finite), 1), np.float32), np.zeros((len(finite), 1), np.int64)
    kernels.keep_best(finite[None], np.ones(1, np.float32), 0, values, places)
    np.testing.assert_array_equal(values[:, 0], np.maximum(finite.view(np.float16).astype(np.float32), 0))
    np.testing.assert_array_equal(np.isfinite(kernels.lengths(numbers[:, None])), np.isfinite(numbers.view(np.float16)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (7, 129), (40, 1000)])
def test_lengths(dtype: type, shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    got = kernels.lengths(rows.view(np.uint16) if dtype is np.float16 else rows)
    np.testing.assert_allclose(got, np.linalg.norm(rows.astype(np.float64), axis=1), rtol=1e-6)


def test_takes_what_it_was_compiled_for() -> None:
    assert kernels.takes(np.dtype(np.float32))
    assert not kernels.takes(np.dtype(np.float64))
