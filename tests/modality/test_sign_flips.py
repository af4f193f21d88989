"""The normal limit of the permutation null, against permutations and exact tests."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, false_discovery_control

from mmmono.modality import dominance_scores, resample_dominance, sign_flip_p_values
from tests.modality.test_resampling import synthetic


@pytest.mark.parametrize("undefined", ["skip", "half"])
def test_agrees_with_permutations(undefined: str) -> None:
    image, text = synthetic(pairs=300, shift=0.15)
    silent = torch.from_numpy(np.random.default_rng(0).random(image.shape) < 0.4)
    image[silent], text[silent] = 0, 0
    p, q = sign_flip_p_values(dominance_scores([(image, text)], undefined))  # type: ignore[arg-type]
    drawn = resample_dominance([(image, text)], n_permutations=20_000, n_bootstrap=1, n_halves=1).p_value
    np.testing.assert_allclose(p, drawn, atol=0.02)
    np.testing.assert_allclose(q, false_discovery_control(p.numpy()))


def test_few_pairs_come_near_the_exact_test() -> None:
    """Ten pairs, all won by the image: 2 · 2⁻¹⁰ exactly."""
    image, text = torch.ones(10, 1), torch.zeros(10, 1)
    p, _ = sign_flip_p_values(dominance_scores([(image, text)]))
    assert float(p) == pytest.approx(binomtest(10, 10).pvalue, abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_few_groups_prove_little_however_many_pairs_they_have(count: int) -> None:
    """Five groups of ten pairs, all won by the image: .025 by the normal distribution, .0625 exactly."""
    image, text = torch.ones(10 * count, 1), torch.zeros(10 * count, 1)
    scores = dominance_scores([(image, text)], groups=np.repeat(np.arange(count), 10))
    p, _ = sign_flip_p_values(scores)
    assert float(p) == pytest.approx(binomtest(count, count).pvalue)


def test_groups_are_swapped_as_a_whole() -> None:
    image, text = synthetic(pairs=200, shift=0.15)
    groups = np.repeat(np.arange(50), 4)
    p, _ = sign_flip_p_values(dominance_scores([(image, text)], groups=groups))
    drawn = resample_dominance([(image, text)], 20_000, 1, 1, groups=groups).p_value
    np.testing.assert_allclose(p, drawn, atol=0.03)


def test_features_that_are_not_live_are_not_tested() -> None:
    image, text = synthetic(shift=0.5)
    live = torch.arange(60) < 20
    p, q = sign_flip_p_values(dominance_scores([(image, text)]), live)
    np.testing.assert_allclose(q[:20], false_discovery_control(p[:20].numpy()))
    assert q[20:].isnan().all()
    assert not p.isnan().any()


def test_silent_features_have_no_p_value() -> None:
    image = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 1.0]])
    p, q = sign_flip_p_values(dominance_scores([(image, torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 1.0]]))]))
    assert p.isnan().tolist() == [True, False, False]
    assert p[1:].tolist() == [1.0, 1.0]  # every ratio is ½: nothing speaks against the null
    assert q[1:].tolist() == [1.0, 1.0]
