import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from mmmono.dictionaries import ReconstructionMoments, fraction_of_variance_unexplained


def test_fvu_is_one_minus_variance_weighted_r2() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6)) * np.arange(1, 7) + 5
    reconstruction = x + 0.3 * rng.standard_normal((200, 6)) + 0.1
    expected = 1 - r2_score(x, reconstruction, multioutput="variance_weighted")
    assert fraction_of_variance_unexplained(
        torch.from_numpy(x), torch.from_numpy(reconstruction)
    ).item() == pytest.approx(expected)


def test_the_mean_explains_nothing_and_a_constant_bias_costs() -> None:
    x = torch.randn(300, 4) + 10
    assert fraction_of_variance_unexplained(x, x.mean(0).expand_as(x)).item() == pytest.approx(1, rel=1e-5)
    assert fraction_of_variance_unexplained(x, x).item() == 0
    assert fraction_of_variance_unexplained(x, x + 1).item() == pytest.approx(
        1 / x.var(0, correction=0).mean().item(), rel=1e-4
    )


def test_moments_over_blocks_equal_the_definitions_over_the_whole() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 6) + 3
    reconstruction = x + 0.5 * torch.randn(500, 6)
    codes = torch.randn(500, 9).relu() * (torch.rand(500, 9) < 0.2)
    codes[:, 4] = 0
    moments = ReconstructionMoments(6, 9)
    for start in range(0, 500, 70):
        rows = slice(start, start + 70)
        moments.add(x[rows], reconstruction[rows], codes[rows])
    quality = moments.result()
    assert quality.fvu == pytest.approx(fraction_of_variance_unexplained(x, reconstruction).item(), rel=1e-5)
    assert quality.explained_variance == pytest.approx(1 - quality.fvu)
    assert quality.cosine == pytest.approx(torch.cosine_similarity(x, reconstruction).mean().item(), rel=1e-5)
    assert quality.l0 == pytest.approx((codes > 0).sum(1).float().mean().item())
    assert quality.active == int((codes > 0).any(0).sum()) <= 8
    assert quality.dead_fraction == pytest.approx(1 - quality.active / 9)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_moments_far_from_zero_and_in_any_type(scale: float, dtype: torch.dtype) -> None:
    """As numpy computes them in float64 from the same numbers, however they are cut into blocks."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(scale * (rng.standard_normal((400, 5)) * 0.01 + 1)).to(dtype)
    reconstruction = (x.double() * 1.001).to(dtype)
    exact, approximate = x.double().numpy(), reconstruction.double().numpy()
    fvu = ((exact - approximate) ** 2).sum() / ((exact - exact.mean(0)) ** 2).sum()
    for block in (1, 7, 400):
        moments = ReconstructionMoments(5, 3)
        for rows in torch.arange(400).split(block):
            moments.add(x[rows], reconstruction[rows], torch.ones(len(rows), 3))
        assert moments.result().fvu == pytest.approx(fvu, rel=1e-9)


def test_moments_of_nothing_are_nan() -> None:
    quality = ReconstructionMoments(5, 3).result()
    assert np.isnan([quality.fvu, quality.cosine, quality.l0]).all()
    assert quality.active == 0
