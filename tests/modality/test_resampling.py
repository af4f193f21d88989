"""The permutation null, bootstrap and halves, against what they must give on data with known answers."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, false_discovery_control

from mmmono.modality import modality_dominance_score, partition_by_null, resample_dominance, resampled_sums


def synthetic(
    pairs: int = 400, features: int = 60, shift: float = 0.0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exchangeable sides, but for the first ten features, which images activate more by a factor."""
    rng = np.random.default_rng(seed)
    image, text = (torch.from_numpy(rng.gamma(2, size=(pairs, features))) for _ in range(2))
    image[:, :10] *= 1 + shift
    return image, text


def test_sign_tests_are_the_special_case() -> None:
    """Where every ratio is 0 or 1, the null is a fair coin: the exact binomial test."""
    rng = np.random.default_rng(0)
    wins = rng.random((60, 5)) < np.array([0.5, 0.55, 0.65, 0.75, 0.4])
    image, text = torch.from_numpy(wins.astype(float)), torch.from_numpy((~wins).astype(float))
    p = resample_dominance([(image, text)], n_permutations=20_000, n_bootstrap=1, n_halves=1).p_value
    exact = [binomtest(int(column.sum()), 60).pvalue for column in wins.T]
    np.testing.assert_allclose(p, exact, atol=0.012)


def test_p_values_are_uniform_under_the_null_and_small_beyond_it() -> None:
    image, text = synthetic(features=400, shift=0.5)
    resamples = resample_dominance([(image, text)], n_permutations=2000, n_bootstrap=1, n_halves=1)
    null = resamples.p_value[10:].numpy()
    assert abs(np.mean(null < 0.2) - 0.2) < 0.06
    assert abs(np.mean(null < 0.5) - 0.5) < 0.08
    assert resamples.p_value[:10].max() < 0.01
    np.testing.assert_allclose(resamples.q_value, false_discovery_control(resamples.p_value.numpy()))
    scores = modality_dominance_score(image, text)
    partition = partition_by_null(scores, resamples.q_value, fdr=0.05)
    assert set(range(10)) <= set(partition.image_dominant.tolist())
    assert len(partition.image_dominant) + len(partition.text_dominant) <= 10 + 4


def test_blocks_do_not_matter_to_what_is_observed() -> None:
    image, text = synthetic(shift=0.3)
    whole = resample_dominance([(image, text)], 500, 50, 5)
    parts = resample_dominance(zip(image.split(37), text.split(37), strict=True), 500, 50, 5)
    np.testing.assert_allclose(whole.p_value, parts.p_value, atol=0.12)
    assert whole.p_value[:10].max() < 0.02
    assert parts.p_value[:10].max() < 0.02


def test_intervals_agree_with_numpys_bootstrap() -> None:
    image, text = synthetic(pairs=300, features=4, shift=0.2)
    low, high = resample_dominance([(image, text)], 1, 4000, 1).interval()
    ratio = (image / (image + text)).numpy()
    rng = np.random.default_rng(1)
    means = np.stack([ratio[rng.integers(0, 300, 300)].mean(0) for _ in range(4000)])
    np.testing.assert_allclose(low, np.quantile(means, 0.025, axis=0), atol=3e-3)
    np.testing.assert_allclose(high, np.quantile(means, 0.975, axis=0), atol=3e-3)


def test_halves_are_complements() -> None:
    image, text = synthetic(pairs=101, features=3)
    halves = resample_dominance([(image, text)], 1, 1, 30).halves
    overall = modality_dominance_score(image, text)
    # Weighted by their sizes, about equal, both halves average to the whole.
    np.testing.assert_allclose(halves.mean((0, 1)), overall, atol=4e-3)
    assert not torch.equal(halves[0], halves[1])


def test_silent_pairs_and_features_say_nothing() -> None:
    image, text = synthetic(features=3, shift=0.4)
    silent = torch.zeros(500, 3, dtype=image.dtype)
    alone = resample_dominance([(image, text)], 2000, 1, 1)
    diluted = resample_dominance([(torch.cat([image, silent]), torch.cat([text, silent]))], 2000, 1, 1)
    np.testing.assert_allclose(alone.p_value, diluted.p_value, atol=0.05)
    image[:, 2] = text[:, 2] = 0
    dead = resample_dominance([(image, text)], 100, 20, 2)
    assert dead.p_value[2].isnan()
    assert dead.q_value[2].isnan()
    assert dead.interval()[:, 2].isnan().all()
    assert not dead.q_value[:2].isnan().any()
    partition = partition_by_null(modality_dominance_score(image, text), dead.q_value)
    assert partition.dead.tolist() == [2]


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="no activations"):
        resample_dominance([])


@pytest.mark.parametrize("groups", [None, np.arange(1600) // 2])
def test_sparse_codes_are_summed_by_what_is_not_zero(
    groups: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba", reason="the fast extra brings it")
    rng = np.random.default_rng(0)
    sides = [torch.from_numpy(rng.random((1600, 90)) * (rng.random((1600, 90)) < 0.02)) for _ in range(2)]
    loops, add = [], resampled_sums.add_sparse
    monkeypatch.setattr(resampled_sums, "add_sparse", lambda *of: (loops.append(of), add(*of)))
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(resample_dominance([tuple(sides)], 300, 40, 4, groups=groups))  # type: ignore[list-item]
    finally:
        torch.set_num_threads(before)
    assert len(loops) == 2 * (4 if groups is None else 2)  # chunks of 512 groups
    monkeypatch.setattr(resampled_sums, "few_are_active", lambda pairs: False)
    products = resample_dominance([tuple(sides)], 300, 40, 4, groups=groups)  # type: ignore[list-item]
    for name in ("p_value", "bootstrap", "halves", "permuted"):
        one, other, dense = (getattr(of, name) for of in (*found, products))
        assert one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
        torch.testing.assert_close(one, dense, rtol=0, atol=1e-12, equal_nan=True)
