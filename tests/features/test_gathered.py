"""Pairs of a view in another order, and samples of large views."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmmono.features import FeatureStore, FeatureView
from mmmono.features.gathered import sampled_runs
from tests.features.test_store import write_like_clip_retrieval


@pytest.fixture
def view(tmp_path: Path) -> FeatureView:
    write_like_clip_retrieval(tmp_path, [3000, 5000, 2500], 4)
    return FeatureView(FeatureStore(tmp_path), np.arange(1, 10_500, 2), codes=np.arange(10_500) // 3)


def test_small_views_stay_as_they_are(view: FeatureView) -> None:
    assert sampled_runs(view, None) is view
    assert sampled_runs(view, len(view)) is view


@pytest.mark.parametrize("pairs", [2, 300, 1024, 5000])
def test_a_sample_is_runs_from_all_over_the_view(view: FeatureView, pairs: int) -> None:
    sample = sampled_runs(view, pairs)
    assert max(0, pairs - 2 * 256) < len(sample) <= pairs
    assert sample.rows is not None
    assert view.rows is not None
    positions = np.searchsorted(view.rows, sample.rows)
    np.testing.assert_array_equal(view.rows[positions], sample.rows)
    assert (np.diff(positions) > 0).all()
    assert (np.diff(positions) > 1).sum() < max(1, pairs / 256)  # runs
    if pairs >= 1024:
        assert positions.max() > 2 * len(view) / 3
        assert positions.min() < len(view) / 3
    np.testing.assert_array_equal(sampled_runs(view, pairs).rows, sample.rows)
    for side in ("image", "text"):
        whole = view.read(side, 0, len(view))[positions]
        assert sample.read(side, 0, len(sample)).equal(whole)
    np.testing.assert_array_equal(sample.groups(), pd.factorize(view.groups()[positions])[0])
