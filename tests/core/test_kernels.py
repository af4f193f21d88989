"""Compiled passes over stored rows, against numpy."""

import numpy as np
import pytest

from mmmono.core import kernels
from mmmono.core.nested_targets import nested_targets


def test_every_half_precision_number_is_read_as_numpy_reads_it() -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16)
    finite = numbers[np.isfinite(numbers.view(np.float16))]
    values, places = np.zeros((len(finite), 1), np.float32), np.zeros((len(finite), 1), np.int64)
    kernels.keep_best(finite[None], False, 0, values, places)
    np.testing.assert_array_equal(values[:, 0], np.maximum(finite.view(np.float16).astype(np.float32), 0))


def norms(rows: np.ndarray, normalize: bool = False) -> list[tuple[float, float]]:
    """Shortest and longest row, of all kernels; those of pairs get the rows as texts, with images of length 1."""
    stored = rows.view(np.uint16) if rows.dtype == np.float16 else rows
    pairs, features = rows.shape
    images = np.zeros_like(rows)
    images[:, 0] = 1
    sides = images.view(stored.dtype), stored
    groups, classes = (np.arange(pairs), np.array([0, pairs])), np.zeros(1, np.int64)
    best = np.zeros((features, 3), np.float32), np.zeros((features, 3), np.int64)
    sums = np.zeros(features), np.zeros(features), np.zeros((3, features), np.int64)
    products, ratios = np.zeros((1, kernels.PRODUCTS, features)), np.zeros((kernels.GROUP_SUMS, features))
    of_pairs = [
        kernels.add_ratios(*sides, normalize, *sums),
        kernels.add_products(*sides, normalize, groups, classes, products),
        kernels.add_group_ratios(*sides, normalize, groups, np.zeros(features), False, ratios),
    ]
    assert [of_images for of_images, _ in of_pairs] == [(1, 1)] * 3
    return [kernels.keep_best(stored, normalize, 0, *best), *(of_texts for _, of_texts in of_pairs)]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (7, 129), (40, 1000)])
def test_norms(dtype: type, shape: tuple[int, int], normalize: bool) -> None:
    rows = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    for found in norms(rows, normalize):
        np.testing.assert_allclose(found, [lengths.min(), lengths.max()], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_number_that_is_not_finite_shows_in_the_longest(dtype: type, value: float, place: int) -> None:
    rows = np.ones((7, 20), dtype)
    rows[place, 11] = value
    assert not np.isfinite([longest for _, longest in norms(rows)]).any()
    rows[place] = 0
    assert [shortest for shortest, _ in norms(rows)] == [0] * 4


def test_takes_what_it_was_compiled_for() -> None:
    assert kernels.supports(np.dtype(np.float32))
    assert not kernels.supports(np.dtype(np.float64))


@pytest.mark.parametrize("levels", [1, 3])
def test_targets_of_nested_levels(levels: int) -> None:
    rng = np.random.default_rng(0)
    samples, dim, latents = 7, 33, 9
    centered, atoms = (rng.standard_normal((rows, dim)).astype(np.float32) for rows in (samples, latents))
    codes = rng.random((samples, levels, latents)) * (
        rng.random((samples, levels, latents)) < 0.4
    )  # some rows are empty
    rows, indices = codes.reshape(-1, latents).nonzero()
    starts = np.searchsorted(rows, np.arange(samples * levels + 1))
    values = codes.reshape(-1, latents)[rows, indices].astype(np.float32)
    weights = np.array([0.5, 0.3, 0.2][:levels], np.float32)
    targets, last = np.empty((samples * levels, dim), np.float32), np.empty((samples, dim), np.float32)
    error = nested_targets(centered, atoms, (values, indices, starts), weights, targets, last)
    residuals = centered[:, None] - (codes @ atoms).cumsum(1)
    weighted = residuals * weights[:, None]
    np.testing.assert_allclose(last, residuals[:, -1], atol=1e-5)
    np.testing.assert_allclose(targets.reshape(weighted.shape), weighted[:, ::-1].cumsum(1)[:, ::-1], atol=1e-5)
    assert error == pytest.approx(float((residuals * weighted).sum()), rel=1e-5)
