import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmono.interpretability import activation_histograms


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), block=st.integers(1, 50), bins=st.sampled_from([4, 16, 64]), scale=st.integers(-30, 30)
)
def test_counts_are_numpys_whatever_the_blocks(seed: int, block: int, bins: int, scale: int) -> None:
    rng = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        a = rng.standard_t(2, size=(90, 5)) * 2.0**scale  # heavy tails, so that ranges have to grow
        a[rng.random(a.shape) < 0.4] = 0
        a[:, 3], a[:, 4] = np.abs(a[:, 3]), 0
        sides.append(torch.from_numpy(a.astype(np.float32)))
    image, text = sides
    found = activation_histograms(zip(image.split(block), text.split(block), strict=True), bins)
    assert found.samples == 90
    for feature in range(4):
        reach = max(float(side[:, feature].abs().max()) for side in sides)
        width = float(found.width[feature])
        assert 2 * reach / bins <= width < 4 * reach / bins + 1e-45  # the smallest power of two that holds them all
        edges = (np.arange(bins + 1) - bins // 2) * width
        for counts, side in zip(found.counts[:, feature], sides, strict=True):
            values = side[:, feature].double().numpy()
            np.testing.assert_array_equal(counts, np.histogram(values[values != 0], edges)[0])
    assert found.counts[:, 4].sum() == 0
    np.testing.assert_array_equal(found.positive, torch.stack([(side > 0).sum(0) for side in sides]))


def test_powers_of_two_fill_their_range_to_the_brim() -> None:
    found = activation_histograms([(torch.tensor([[1.0], [-1.0], [0.5]]), torch.tensor([[0.0], [0.25], [0.0]]))], 8)
    assert found.width.item() == 0.25
    assert found.counts[0, 0].tolist() == [1, 0, 0, 0, 0, 0, 1, 1]
    assert found.counts[1, 0].tolist() == [0, 0, 0, 0, 0, 1, 0, 0]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="no activations"):
        activation_histograms([])
    with pytest.raises(ValueError, match="bins=6: give a positive multiple of 4"):
        activation_histograms([], bins=6)
    nan = torch.tensor([[0.0, torch.nan]])
    with pytest.raises(ValueError, match="feature 1 are NaN, first at image 0"):
        activation_histograms([(nan, nan)])
